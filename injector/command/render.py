"""Values as text: YAML as people write it, in block style with scripts as literal blocks, or in flow style; JSON."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import yaml

from injector.manifests import resolvers

Value = Any
"""What JSON can say."""
_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_Base):  # type: ignore[misc] # its base depends on how PyYAML was built
    """Texts of several lines as literal blocks, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002 (PyYAML's interface)
        return True


def _represent_text(dumper: Any, text: str) -> yaml.ScalarNode:  # noqa: ANN401 (PyYAML's)
    node: yaml.ScalarNode = dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)
    return node


_Dumper.add_representer(str, _represent_text)
# Text that kubectl would take for a number or a boolean is put in quotes.
_Dumper.yaml_implicit_resolvers = {key: list(known) for key, known in yaml.SafeDumper.yaml_implicit_resolvers.items()}
for _first, _known in resolvers().items():
    _Dumper.yaml_implicit_resolvers.setdefault(_first, []).extend(_known)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"[yYnN]$"), list("yYnN"))


def as_yaml(value: Value, *, flow: bool = False) -> str:
    """A whole document, its lists and mappings one item a line, or all of it on one (`flow`)."""
    said: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=flow, sort_keys=False, width=1_000_000, allow_unicode=True
    )
    return said


def as_json(value: Value, like: str) -> str:
    """A whole document with the indentation, the spaces and the last lines of another one."""
    indent = re.match(r"\s*[\[{]\n([ \t]*)", like)
    close = indent is None and '": ' not in like
    separators = (",", ":") if close else None
    said = json.dumps(value, indent=indent and indent[1], separators=separators, ensure_ascii=like.isascii())
    return said + like[len(like.rstrip()) :]


def in_flow(value: Value) -> str:
    """What stands for a value within a collection in flow style; of a collection, with its brackets."""
    return as_yaml([value], flow=True).rstrip("\n")[1:-1]


def pairs(value: dict[str, Value], column: int, step: int) -> str:
    """The lines of a mapping at this column; lists in it are indented by `step` more than their keys."""
    pad = " " * column
    return "".join(f"{pad}{_key(key)}:{behind_key(item, column, step)}\n" for key, item in value.items())


def items(value: list[Value], column: int, step: int) -> str:
    """The lines of a list whose dashes are at this column."""
    return "".join(f"{' ' * column}- {_behind_dash(item, column, step)}\n" for item in value)


def behind_key(value: Value, column: int, step: int) -> str:
    """What stands behind the colon of a key at this column."""
    if value and isinstance(value, dict):
        return "\n" + pairs(value, column + 2, step)[:-1]
    if value and isinstance(value, list):
        return "\n" + items(value, column + step, step)[:-1]
    return " " + scalar(value, column)


def _behind_dash(value: Value, column: int, step: int) -> str:
    if value and isinstance(value, dict):
        return pairs(value, column + 2, step)[column + 2 : -1]
    if value and isinstance(value, list):
        return items(value, column + 2, step)[column + 2 : -1]
    return scalar(value, column)


def scalar(value: Value, column: int) -> str:
    """A scalar or an empty collection; further lines are indented to below this column."""
    return _text(value, column) if isinstance(value, str) else json.dumps(value)


def _key(value: str) -> str:
    return _text(value, 0) if "\n" not in value else _quoted(value)


@functools.lru_cache(4096)  # most of what is written into one Pod is written into the next as well
def _text(value: str, column: int) -> str:
    said = as_yaml([value])[2:].rstrip("\n")
    if said.startswith("|") and not re.match(r"\|-?\n", said):
        return _quoted(value)  # its first or last lines need more than a plain block says
    return re.sub(r"\n(?=[^\n])", "\n" + " " * column, said)


def _quoted(value: str) -> str:
    """A text in double quotes, on one line. Not JSON's: for what needs more than four digits it has two escapes."""
    said: str = yaml.dump(value, Dumper=_Base, default_style='"', width=1_000_000)
    return said.rstrip("\n")
