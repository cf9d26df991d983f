"""Before, after → JSON Patch (RFC 6902): what is the very same object is skipped, so a patch costs what was changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

Operation = dict[str, Any]


def diff(before: Any, after: Any) -> list[Operation]:  # noqa: ANN401 (any JSON value)
    """The operations that turn one JSON document into the other; [] if they are equal."""
    operations: list[Operation] = []
    _compare("", before, after, operations)
    return operations


def _compare(path: str, before: Any, after: Any, operations: list[Operation]) -> None:  # noqa: ANN401
    if before is after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        _compare_objects(path, before, after, operations)
    elif isinstance(before, list) and isinstance(after, list):
        _compare_lists(path, before, after, operations)
    elif type(before) is not type(after) or before != after:
        operations.append({"op": "replace", "path": path, "value": after})


def _compare_objects(path: str, before: dict[str, Any], after: dict[str, Any], operations: list[Operation]) -> None:
    added = 0
    for key, value in after.items():
        if key not in before:
            added += 1
            operations.append({"op": "add", "path": f"{path}/{_escaped(key)}", "value": value})
        elif (there := before[key]) is not value:
            _compare(f"{path}/{_escaped(key)}", there, value, operations)
    if len(before) + added > len(after):
        operations.extend({"op": "remove", "path": f"{path}/{_escaped(key)}"} for key in before if key not in after)


def _escaped(key: str) -> str:
    """A key as a token of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def _compare_lists(path: str, before: list[Any], after: list[Any], operations: list[Operation]) -> None:
    """Walks both lists once: items are matched by identity (`name`, or being the same object), in order.

    An item that comes out of order is removed where it was and added where it goes.
    """
    if len(before) == len(after) and all(map(_same_place, before, after)):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            if old is not new:
                _compare(f"{path}/{index}", old, new, operations)
        return
    start = _common(before, after)
    before, after = before[start:], after[start:]
    wanted = [_identity(item) for item in after]
    survivors = []
    for item, stays in zip(before, _in_order([_identity(item) for item in before], wanted), strict=True):
        if stays:
            survivors.append(item)
        else:
            operations.append({"op": "remove", "path": f"{path}/{start + len(survivors)}"})
    length, following = start + len(survivors), 0
    for index, item in enumerate(after, start):
        if following < len(survivors) and _identity(survivors[following]) == wanted[index - start]:
            _compare(f"{path}/{index}", survivors[following], item, operations)
            following += 1
        else:
            operations.append({"op": "add", "path": f"{path}/{'-' if index == length else index}", "value": item})
            length += 1


def _common(before: Sequence[object], after: Sequence[object]) -> int:
    """How many items at the start of two lists are the very same: what is appended to a long list costs little."""
    count = 0
    for old, new in zip(before, after, strict=False):
        if old is not new:
            break
        count += 1
    return count


def _same_place(old: object, new: object) -> bool:
    """Whether two items of lists of one length are one: nameless ones have nothing but their place."""
    if old is new:
        return True
    if isinstance(old, dict) and isinstance(new, dict):
        return bool(old.get("name") == new.get("name") and old.get("mountPath") == new.get("mountPath"))
    return (isinstance(old, list) and isinstance(new, list)) or _identity(old) == _identity(new)


def _identity(item: Any) -> tuple[str, Hashable]:  # noqa: ANN401
    if isinstance(item, dict):
        name = item.get("mountPath", item.get("name"))
        return ("named", name) if isinstance(name, str) else ("object", id(item))
    if isinstance(item, list):
        return ("list", id(item))
    return (type(item).__name__, item)


def _in_order(before: Sequence[Hashable], after: Sequence[Hashable]) -> Iterator[bool]:
    """Whether each item of `before` can stay where it is: its next occurrence in `after` follows its predecessor's."""
    places: dict[Hashable, deque[int]] = {}
    for index, identity in enumerate(after):
        places.setdefault(identity, deque()).append(index)
    reached = -1
    for identity in before:
        ahead = places.get(identity, deque())
        while ahead and ahead[0] <= reached:
            ahead.popleft()
        if ahead:
            reached = ahead.popleft()
            yield True
        else:
            yield False
