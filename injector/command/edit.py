"""A document of a manifest that says something else: new text is put where it belongs, and all else stays as it is."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

import yaml

from injector.command import render
from injector.command.render import Value
from injector.manifests import Document, UnreadableManifest, as_text, composed, parse

_INDENTED_SEQUENCE = re.compile(
    r"^( *)(?:- +)*[^ #\n][^\n]*:[ \t]*(?:#[^\n]*)?\n(?:[ \t]*(?:#[^\n]*)?\n)*\1 +- ", re.MULTILINE
)
LOST = "written anew without its comments: it can't be edited in place, as where an anchor stands for several places"
"""What to tell of a document that could not be edited in place."""
_ALIAS = re.compile(r"[^*]*\*[^\s,\[\]{}]+")
Collection: TypeAlias = yaml.MappingNode | yaml.SequenceNode


class _NotInPlace(Exception):
    """A change that can't be made by putting text in, taking it out, or replacing it."""


class _Edit(NamedTuple):
    """The text between two places (counted in characters) is to be replaced by another."""

    start: int
    end: int
    text: str


def written(document: Document, wanted: Value) -> tuple[str, bool]:
    """The text of a document that says what is wanted, and whether its comments could be kept.

    The text is edited in place where that means the same; where it does not (one anchor in several places), the
    document is written anew. Ends of lines stay the document's own, and JSON stays JSON, as much indented as it was.

    Args:
        document: as it was read.
        wanted: what it is to say.
    """
    if wanted is document.value or as_text(wanted) == as_text(document.value):
        return document.text, True
    if document.json:
        return anew(document, wanted), True
    edited = _edited(document._replace(text=document.text.replace("\r\n", "\n")), wanted)
    return (anew(document, wanted), False) if edited is None else (_with_ends(document, edited), True)


def anew(document: Document, wanted: Value) -> str:
    """What is wanted, in the document's own format, as if nobody had written it before."""
    text = document.text.replace("\r\n", "\n")
    return _with_ends(document, render.as_json(wanted, text) if document.json else render.as_yaml(wanted))


def _with_ends(document: Document, text: str) -> str:
    return text.replace("\n", "\r\n") if "\r\n" in document.text else text


def _edited(document: Document, wanted: Value) -> str | None:
    """The edited text; None where no edit says exactly what is wanted."""
    text, node = document.text, composed(document)
    try:
        edits = list(_Editor(text).changes(node, document.value, wanted))
    except (_NotInPlace, RecursionError):
        return None
    pieces, done = [], 0
    for edit in sorted(edits, key=lambda edit: edit.start):  # what belongs to one place stays in order
        pieces += [text[done : edit.start], edit.text]
        done = edit.end
    edited = "".join([*pieces, text[done:]])
    try:
        return edited if as_text(parse(edited)) == as_text(wanted) else None
    except UnreadableManifest:
        return None


class _Editor:
    """Finds the edits of one text, by its nodes and what they say before and after."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._step = 2 if _INDENTED_SEQUENCE.search(text) else 0

    def changes(self, node: yaml.Node | None, before: Value, after: Value) -> Iterator[_Edit]:
        """The edits that make a collection say `after`.

        Raises:
            _NotInPlace: if there are none.
        """
        if isinstance(node, yaml.MappingNode) and isinstance(before, dict) and isinstance(after, dict) and node.value:
            yield from self._mapping(node, before, after)
        elif (
            isinstance(node, yaml.SequenceNode)
            and isinstance(before, list)
            and isinstance(after, list)
            and before
            and after
        ):
            yield from self._sequence(node, before, after)
        else:
            raise _NotInPlace

    def _mapping(self, node: yaml.MappingNode, before: dict[str, Value], after: dict[str, Value]) -> Iterator[_Edit]:
        there = {key.value: (key, value) for key, value in node.value}
        new = {}
        for name, old in before.items():
            if name not in after:
                yield self._removal(node, *there.get(name, (None, None)))
            elif old is not after[name] and old != after[name]:
                if name in there:
                    yield from self._replacement(node, *there[name], old, after[name])
                else:
                    new[name] = after[name]  # it came by a merge key, and a key of its own wins over that
        new.update({name: value for name, value in after.items() if name not in before})
        if new and node.flow_style:
            yield _inserted(self._end(*_last_value(node)), f", {render.in_flow(new)[1:-1]}")
        elif new:
            lines = render.pairs(new, node.value[0][0].start_mark.column, self._step)
            yield self._lines_after(*_last_value(node), lines)

    def _replacement(
        self, parent: Collection, key: yaml.Node, node: yaml.Node, old: Value, new: Value
    ) -> Iterator[_Edit]:
        if node.start_mark.index < key.end_mark.index:
            raise _NotInPlace  # an alias: what it stands for is there elsewhere, too
        if old and new and type(old) is type(new) and isinstance(new, (dict, list)):
            yield from self.changes(node, old, new)
            return
        start = self._text.index(":", key.end_mark.index) + 1
        end = max(start, self._end(node, key.end_mark.index))
        column = key.start_mark.column
        said = f" {render.in_flow(new)}" if parent.flow_style else render.behind_key(new, column, self._step)
        yield _Edit(start, end - 1 if self._text[end - 1] == "\n" else end, said)

    def _removal(self, parent: yaml.MappingNode, key: yaml.Node | None, node: yaml.Node | None) -> _Edit:
        if key is None or node is None or parent.flow_style or len(parent.value) == 1:
            raise _NotInPlace
        start = self._line(key.start_mark.index)
        if self._text[start : key.start_mark.index].strip():
            raise _NotInPlace
        return _Edit(start, self._next_line(self._end(node, key.end_mark.index)), "")

    def _sequence(self, node: yaml.SequenceNode, before: list[Value], after: list[Value]) -> Iterator[_Edit]:
        matcher = difflib.SequenceMatcher(None, _names(before), _names(after), autojunk=False)
        for what, start, end, first, last in matcher.get_opcodes():
            if what == "equal" or (what == "replace" and end - start == last - first):
                for old, new in zip(range(start, end), range(first, last), strict=True):
                    yield from self._item(node, node.value[old], before[old], after[new])
            elif what == "insert":
                yield self._insertion(node, start, after[first:last])
            else:
                raise _NotInPlace

    def _item(self, parent: yaml.SequenceNode, node: yaml.Node, old: Value, new: Value) -> Iterator[_Edit]:
        if old is new or old == new:
            return
        if node.start_mark.index < parent.start_mark.index:
            raise _NotInPlace  # an alias
        if isinstance(node, yaml.ScalarNode) and not isinstance(new, (dict, list)):
            start, end = int(node.start_mark.index), int(node.end_mark.index)
            yield _Edit(start, end - 1 if self._text[end - 1] == "\n" else end, render.in_flow(new))
        else:
            yield from self.changes(node, old, new)

    def _insertion(self, node: yaml.SequenceNode, index: int, new: list[Value]) -> _Edit:
        if index == len(node.value):
            if node.flow_style:
                return _inserted(self._end(*_last_item(node)), f", {render.in_flow(new)[1:-1]}")
            return self._lines_after(*_last_item(node), self._items(node, new))
        at = node.value[index].start_mark.index
        if node.flow_style:
            return _inserted(at, f"{render.in_flow(new)[1:-1]}, ")
        start = self._line(self._text.rindex("-", 0, at))
        while start and self._text[(above := self._line(start - 1)) : start].lstrip(" ").startswith("#"):
            start = above  # what is said right above an item is about that
        return _inserted(start, self._items(node, new))

    def _items(self, node: yaml.SequenceNode, new: list[Value]) -> str:
        return render.items(new, node.start_mark.column, self._step)

    def _lines_after(self, node: yaml.Node, after: int, lines: str) -> _Edit:
        place = self._next_line(self._end(node, after))
        return _inserted(place, lines if self._text[place - 1] == "\n" else f"\n{lines[:-1]}")

    def _end(self, node: yaml.Node, after: int) -> int:
        """Where a node's own text ends: PyYAML lets a collection in block style end where the next thing begins.

        Args:
            node: the last one of a collection, or its value.
            after: where its text begins at the earliest; for an alias PyYAML tells where what it stands for is.
        """
        if node.start_mark.index < after:
            alias = _ALIAS.match(self._text, after)
            if alias is None:
                raise _NotInPlace
            return alias.end()
        if isinstance(node, yaml.MappingNode) and not node.flow_style:
            return self._end(*_last_value(node))
        if isinstance(node, yaml.SequenceNode) and not node.flow_style:
            return self._end(*_last_item(node))
        return max(int(node.end_mark.index), after)

    def _line(self, place: int) -> int:
        return self._text.rfind("\n", 0, place) + 1

    def _next_line(self, place: int) -> int:
        if self._text[place - 1] == "\n":  # behind a block scalar
            return place
        found = self._text.find("\n", place)
        return len(self._text) if found < 0 else found + 1


def _last_value(node: yaml.MappingNode) -> tuple[yaml.Node, int]:
    """The last value of a mapping, and where it begins at the earliest."""
    key, value = node.value[-1]
    return value, int(key.end_mark.index)


def _last_item(node: yaml.SequenceNode) -> tuple[yaml.Node, int]:
    """The last item of a sequence, and where it begins at the earliest."""
    start = max((int(item.end_mark.index) for item in node.value[:-1]), default=int(node.start_mark.index))
    return node.value[-1], start


def _inserted(place: int, text: str) -> _Edit:
    return _Edit(place, place, text)


def _names(items: list[Value]) -> list[str]:
    """What items are recognized by: the name that most of Kubernetes' lists go by, else all of it."""
    return [str(item["name"]) if isinstance(item, Mapping) and "name" in item else as_text(item) for item in items]
