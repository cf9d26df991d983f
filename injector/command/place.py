"""Where in a file something stands: the line of an annotation or a field, or of the nearest thing that is there."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from injector.admission.workload import TEMPLATES
from injector.command.objects import Path
from injector.manifests import Document, composed


class Places:
    """The lines of one document, which is read for them once, and only when one is asked for."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._root: yaml.Node | None = None

    def line(self, path: Path, field: str = "", group: str = "") -> int:
        """The line (from 1) in the file.

        Args:
            path: of the object in its document.
            field: an annotation's full key, the path of a field (`spec.replicas`), or one of metadata with a key
                in brackets; where it is not there, the line of what is nearest to it.
            group: of our annotations, one of which is nearest to an annotation that is missing.
        """
        self._root = self._root or composed(self._document)
        if self._root is None:
            return self._document.line
        place, found, _ = _walk(self._root, tuple(map(str, path)))
        if "/" in field:
            key = _key(found, field.partition("[")[2].rstrip("]") or field) or _key(found, f"{group}/…")
            place = key or place
        elif field:
            steps = tuple(re.findall(r"[^.\[\]]+", field))
            bases = [(), *TEMPLATES.values()]
            _, place = max(
                ((depth, where) for base in bases for where, _, depth in [_walk(found, steps, base)]),
                key=lambda each: each[0],
            )
        return self._document.line + int(place.start_mark.line)


def _walk(node: yaml.Node, steps: Path, base: Path = ()) -> tuple[yaml.Node, yaml.Node, int]:
    """The last key and value on a path that are there, and how many of its steps lead to them, after those of a base.

    The base counts only if all of it is there.
    """
    key, depth = node, 0
    for number, step in enumerate((*base, *steps)):
        pair = _child(node, str(step))
        if pair is None:
            break
        key, node = pair
        depth = max(0, number + 1 - len(base))
    return key, node, depth


def _child(node: yaml.Node, step: str) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == step), None)
    if isinstance(node, yaml.SequenceNode) and step.isdigit() and int(step) < len(node.value):
        return node.value[int(step)], node.value[int(step)]
    return None


def _key(node: yaml.Node, wanted: str) -> yaml.Node | None:
    """The annotation of this key; of one that ends in …, the first that begins so."""
    start = wanted.removesuffix("…")
    whole = start == wanted
    return next((key for key in _keys(node) if (key.value == wanted if whole else key.value.startswith(start))), None)


def _keys(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    """The keys of all annotations in an object."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == "annotations" and isinstance(value, yaml.MappingNode):
                yield from (name for name, _ in value.value if isinstance(name, yaml.ScalarNode))
            else:
                yield from _keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _keys(item)
