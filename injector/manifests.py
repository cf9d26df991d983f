"""Manifests: YAML or JSON text ↔ Kubernetes objects, with everything that is not changed kept as it was written."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jsonpatch
import ruamel.yaml
import yaml
from ruamel.yaml.scalarstring import LiteralScalarString

from injector.pod.patch import Operation

_SEPARATOR = re.compile(r"^---[ \t]*(?:#.*)?(?:\r?\n|\Z)", re.MULTILINE)
_INDENTED_SEQUENCE = re.compile(
    r"^( *)(?:- +)*[^ #\n][^\n]*:[ \t]*(?:#[^\n]*)?\n(?:[ \t]*(?:#[^\n]*)?\n)*\1 +- ", re.MULTILINE
)


LARGEST_DOCUMENT = 1_000_000


class UnreadableManifest(Exception):
    """Text that is no YAML (or JSON), with the line and what is wrong there."""


class Document(NamedTuple):
    """One document of a manifest: its number (from 1), the separator line before it, its text, and what it says."""

    number: int
    separator: str
    text: str
    value: Any


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc] # its base depends on how PyYAML was built
    """YAML as kubectl reads it: no dates, no numbers in base 60, no key twice."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":int", ":float", ":value"))
    ]
    for first, resolvers in _Base.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def _construct_int(_: Any, node: yaml.ScalarNode) -> int:  # noqa: ANN401 (PyYAML's constructor)
    text = str(node.value).replace("_", "")
    sign, digits = (-1, text[1:]) if text[0] == "-" else (1, text.lstrip("+"))
    if re.fullmatch(r"0[0-7]+", digits):
        return sign * int(digits, 8)
    return sign * int(digits, 0)


def _construct_mapping(loader: Any, node: yaml.MappingNode) -> dict[Any, Any]:  # noqa: ANN401
    loader.flatten_mapping(node)
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, (str, int, float, bool)):
            raise yaml.constructor.ConstructorError(None, None, "a key that is not text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is there twice", key_node.start_mark)
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def read(text: str) -> list[Document]:
    """The documents in the text of a manifest, in order; ones without content have the value None.

    Raises:
        UnreadableManifest: if any of them is no YAML.
    """
    text = text.removeprefix("\ufeff")
    if text.lstrip().startswith(("{", "[")):
        try:
            return [Document(1, "", text, json.loads(text))]
        except ValueError:
            pass  # YAML's flow style looks the same
    documents, line = [], 1
    for number, (separator, body) in enumerate(_split(text), 1):
        line += separator.count("\n")
        documents.append(Document(number, separator, body, _parse(body, number, line)))
        line += body.count("\n")
    return documents


def _split(text: str) -> Iterator[tuple[str, str]]:
    separator, start = "", 0
    for match in _SEPARATOR.finditer(text):
        body = text[start : match.start()]
        if separator or body.strip():
            yield separator, body
            separator = match[0]
        else:
            separator = body + match[0]
        start = match.end()
    yield separator, text[start:]


def _parse(body: str, number: int, line: int) -> Any:  # noqa: ANN401 (any YAML value)
    content = re.sub(r"(?m)\A(?:%[^\n]*\n)+", lambda match: "\n" * match[0].count("\n"), body)
    try:
        return _unshared(yaml.load(content, _Loader), [LARGEST_DOCUMENT])  # noqa: S506 (a safe loader)
    except yaml.MarkedYAMLError as error:
        at = line + (error.problem_mark.line if error.problem_mark else 0)
        raise UnreadableManifest(f"document {number}, line {at}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UnreadableManifest(f"document {number}: {error}") from None


def _unshared(value: Any, left: list[int]) -> Any:  # noqa: ANN401 (any YAML value)
    """A copy in which aliases are copies too, so that a change of one place changes no other.

    `left` counts down the values that it may still have: aliases of aliases can stand for billions.
    """
    left[0] -= 1
    if left[0] < 0:
        raise ValueError(f"its anchors stand for more than {LARGEST_DOCUMENT} values")
    if isinstance(value, dict):
        return {key: _unshared(item, left) for key, item in value.items()}
    return [_unshared(item, left) for item in value] if isinstance(value, list) else value


def patched(document: Document, operations: Sequence[Operation]) -> tuple[str, bool]:
    """The text of a document with a JSON Patch applied, and whether its comments could be kept.

    The text is edited in place where that means the same; where it does not (one anchor in several places),
    the document is written anew.
    """
    wanted = jsonpatch.apply_patch(document.value, list(operations))
    edited = _edit(document.text, operations)
    if edited is not None:
        try:
            if _exactly(_parse(edited, document.number, 1)) == _exactly(wanted):
                return edited, True
        except UnreadableManifest:
            pass
    return yaml.dump(wanted, Dumper=_Dumper, sort_keys=False, width=4096, allow_unicode=True), False


def _exactly(value: Any) -> str:  # noqa: ANN401 (any YAML value)
    """A text that is equal for equal values of equal types only: for Python alone, 1 and true are equal."""
    return json.dumps(value, sort_keys=True)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002 (PyYAML's interface)
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)
# Text that kubectl would take for a number or a boolean is put in quotes.
_Dumper.yaml_implicit_resolvers = {key: list(known) for key, known in yaml.SafeDumper.yaml_implicit_resolvers.items()}
for _first, _known in _Loader.yaml_implicit_resolvers.items():
    _Dumper.yaml_implicit_resolvers.setdefault(_first, []).extend(_known)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"[yYnN]$"), list("yYnN"))


def _edit(text: str, operations: Sequence[Operation]) -> str | None:
    editor = ruamel.yaml.YAML(typ="rt")
    editor.preserve_quotes = True
    editor.width = 1_000_000
    editor.explicit_start = text.startswith("---")
    if _INDENTED_SEQUENCE.search(text):
        editor.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    try:
        tree = editor.load(text)
        ours = [{**operation, "value": _blocks(operation["value"])} if "value" in operation else operation
                for operation in operations]  # fmt: skip
        editor.dump(jsonpatch.apply_patch(tree, ours, in_place=True), stream)
    except (ruamel.yaml.error.YAMLError, jsonpatch.JsonPatchException, ValueError, RecursionError):
        return None
    return stream.getvalue()


def _blocks(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    """The value with texts of several lines as literal blocks, which people can read."""
    if isinstance(value, Mapping):
        return {key: _blocks(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_blocks(item) for item in value]
    return LiteralScalarString(value) if isinstance(value, str) and "\n" in value else value
