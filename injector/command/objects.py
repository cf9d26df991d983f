"""The objects of a document: one, or those of a List, to any depth; and what each is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from injector.errors import quoted

Path = tuple[str | int, ...]


class Found(NamedTuple):
    """An object, and the keys and indices that lead to it in its document."""

    path: Path
    value: dict[str, Any]


class Name(NamedTuple):
    """What an object is called in what the command line says; nothing in it breaks a line."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def objects(value: Any, path: Path = ()) -> Iterator[Found]:  # noqa: ANN401 (any YAML value)
    """The object that a document is, or each in a List."""
    if not isinstance(value, dict):
        return
    if isinstance(value.get("items"), list) and str(value.get("kind", "")).endswith("List"):
        for index, item in enumerate(value["items"]):
            yield from objects(item, (*path, "items", index))
    elif isinstance(value.get("metadata") or {}, dict):
        yield Found(path, value)


def name_of(found: Mapping[str, Any], namespace: str) -> Name:
    """What to call an object.

    Args:
        found: the object.
        namespace: of objects that name none.
    """
    metadata = found.get("metadata") or {}
    name = metadata.get("name") or metadata.get("generateName") or "nameless"
    words = (found.get("kind"), metadata.get("namespace") or namespace, name)
    return Name(*(quoted(str(word))[1:-1] for word in words))


def put(value: Any, path: Path, replacement: Any) -> Any:  # noqa: ANN401 (any YAML value)
    """A document with another object at this path; what is beside the path stays the very same objects."""
    if not path:
        return replacement
    changed = value.copy()
    changed[path[0]] = put(value[path[0]], path[1:], replacement)
    return changed
