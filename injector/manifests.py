"""Manifests: YAML or JSON text → Kubernetes objects, as kubectl reads them, and where in the text each part stands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

_SEPARATOR = re.compile(r"^---[ \t]*(?:#.*)?(?:\r?\n|\Z)", re.MULTILINE)
_MERGE = "tag:yaml.org,2002:merge"
LARGEST_DOCUMENT = 1_000_000


class UnreadableManifest(Exception):
    """Text that is no YAML (or JSON): what is wrong, and at which line."""

    def __init__(self, problem: str, line: int) -> None:
        super().__init__(problem)
        self.line = line


class Document(NamedTuple):
    """One document of a manifest: the separator line before it, its text, what it says, and the line it begins at.

    `json`: it is written in JSON, not YAML.
    """

    separator: str
    text: str
    value: Any
    line: int = 1
    json: bool = False


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


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def read(text: str) -> list[Document]:
    """The documents in the text of a manifest, in order; ones without content have the value None.

    Raises:
        UnreadableManifest: if any of them is no YAML.
    """
    text = text.removeprefix("\ufeff")
    if text.lstrip().startswith(("{", "[")):
        try:
            return [Document("", text, json.loads(text, object_pairs_hook=_once), json=True)]
        except ValueError:
            pass  # YAML's flow style looks the same
    documents, line = [], 1
    for separator, body in _split(text):
        line += separator.count("\n")
        documents.append(Document(separator, body, parse(body, line), line))
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


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def parse(text: str, line: int = 1) -> Any:  # noqa: ANN401 (any YAML value)
    """What the text of one document says.

    Args:
        text: of the document, without its separator.
        line: that the text begins at.

    Raises:
        UnreadableManifest: if it is no YAML.
    """
    try:
        return _load(_content(text))
    except yaml.MarkedYAMLError as error:
        at = line + (error.problem_mark.line if error.problem_mark else 0)
        raise UnreadableManifest(str(error.problem), at) from None
    except RecursionError:
        raise UnreadableManifest("it is nested too deeply, or stands for itself by an anchor", line) from None
    except (yaml.YAMLError, ValueError) as error:
        raise UnreadableManifest(str(error), line) from None


def composed(document: Document) -> yaml.Node | None:
    """The nodes of a document, which know where in its text they stand; None if it has none, or can't tell."""
    # YAML takes no tabs where JSON does; within a string JSON takes none either.
    text = document.text.replace("\t", " ") if document.json else _content(document.text)
    try:
        node: yaml.Node | None = yaml.compose(text, _Base)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return node


def _content(text: str) -> str:
    """The text with its directives as comments of the same length: PyYAML takes none without a separator."""
    return re.sub(r"\A(?:%[^\n]*\n)+", lambda match: match[0].replace("%", "#"), text)


def _load(text: str) -> Any:  # noqa: ANN401 (any YAML value)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _value(loader, node, [LARGEST_DOCUMENT])
    finally:
        loader.dispose()


def _value(loader: Any, node: yaml.Node, left: list[int]) -> Any:  # noqa: ANN401 (PyYAML's, and any YAML value)
    """What a node says. What an alias stands for is made anew, so that a change of one place changes no other.

    `left` counts down the values that there may still be: aliases of aliases can stand for billions.
    """
    left[0] -= 1
    if left[0] < 0:
        raise ValueError(f"its anchors stand for more than {LARGEST_DOCUMENT} values")
    if node.tag == "tag:yaml.org,2002:str" and isinstance(node, yaml.ScalarNode):
        return node.value
    if node.tag == "tag:yaml.org,2002:map" and isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, left)
    if node.tag == "tag:yaml.org,2002:seq" and isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, left) for item in node.value]
    return loader.construct_object(node, deep=True)


def _mapping(loader: Any, node: yaml.MappingNode, left: list[int]) -> dict[Any, Any]:  # noqa: ANN401
    if any(key.tag == _MERGE for key, _ in node.value):
        _merge(loader, node)
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = _value(loader, key_node, left)
        if not isinstance(key, (str, int, float, bool)):
            raise yaml.constructor.ConstructorError(None, None, "a key that is not text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is there twice", key_node.start_mark)
        seen[key] = _value(loader, value_node, left)
    return seen


def _merge(loader: Any, node: yaml.MappingNode) -> None:  # noqa: ANN401
    """Puts what merge keys stand for in their place; a key of the mapping's own wins over one that is merged."""
    own = [(key, value) for key, value in node.value if key.tag != _MERGE]
    loader.flatten_mapping(node)
    merged = {(key.tag, str(key.value)): (key, value) for key, value in node.value[: len(node.value) - len(own)]}
    for key, _ in own:
        merged.pop((key.tag, str(key.value)), None)
    node.value = [*merged.values(), *own]


def resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """By its first character, what plain text that kubectl takes for something else than text looks like."""
    found: dict[str, list[tuple[str, re.Pattern[str]]]] = _Loader.yaml_implicit_resolvers
    return found


def as_text(value: Any) -> str:  # noqa: ANN401 (any JSON value)
    """A text that is equal for equal values of equal types only: for Python alone, 1 and true are equal."""
    return json.dumps(_sorted(value))


def _sorted(value: Any) -> Any:  # noqa: ANN401 (any YAML value)
    """The value with its keys in order, whatever their types are: YAML's may be numbers."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value, key=lambda key: (str(type(key)), str(key)))}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
