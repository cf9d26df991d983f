"""Our fields laid over an object that may already have them: the first call adds, the second changes nothing.

Between two calls, other webhooks and the API server's own admission set fields in the objects that we
added (limits, pull policies, token mounts). What we did not set is kept; and what is already as it
should be is returned as the very same object, so that the patch can skip it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from injector import values

# Lists whose items have an identity, and the field that is it.
KEYS = {"env": "name", "ports": "containerPort", "volumeMounts": "mountPath", "volumes": "name"}
RESOURCES = ("limits", "requests")
QUANTITIES = (*RESOURCES, "sizeLimit")


def over(theirs: Any, ours: Any, name: str = "") -> Any:  # noqa: ANN401 (any JSON value)
    """The value with our fields over theirs; `theirs` itself where that changes nothing.

    Args:
        theirs: what is there (None: nothing).
        ours: what we want there.
        name: of the field, which decides how lists are matched and quantities compared.
    """
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return _over_object(theirs, ours, name)
    if isinstance(ours, list) and isinstance(theirs, list):
        merged = items(theirs, ours, name) if name in KEYS else [*map(over, theirs, ours)]
        longer = name not in KEYS and len(theirs) != len(ours)
        return ours if longer else _same(theirs, merged)
    if type(ours) is type(theirs) and ours == theirs:
        return theirs
    return theirs if name in QUANTITIES and same_quantity(theirs, ours) else ours


def _over_object(theirs: dict[str, Any], ours: Mapping[str, Any], name: str) -> dict[str, Any]:
    merged = theirs
    for key, wanted in ours.items():
        there = theirs.get(key)
        value = wanted if there is None else over(there, wanted, name if name in QUANTITIES else key)
        if value is not there or key not in theirs:
            if merged is theirs:
                merged = dict(theirs)
            merged[key] = value
    return merged


def items(theirs: Sequence[dict[str, Any]], ours: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """A keyed list (see KEYS) with our items laid over those of the same key, and the missing ones at its end."""
    key = KEYS[name]
    wanted = {item[key]: item for item in ours}
    present = {item.get(key) for item in theirs}
    one = _variable if name == "env" else over
    merged = [one(item, wanted[item[key]]) if item.get(key) in wanted else item for item in theirs]
    return merged + [dict(item) for item in ours if item[key] not in present]


def _variable(theirs: dict[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """An environment variable: Kubernetes refuses one with both a value and a source.

    A reference that another webhook (of a secret store) has resolved to a value stays resolved.
    """
    if "valueFrom" in ours and theirs.get("value"):
        return theirs
    if "value" in ours and theirs.get("valueFrom") is not None:
        return dict(ours)
    merged: dict[str, Any] = over(theirs, ours)
    return merged


def _same(theirs: list[Any], merged: list[Any]) -> list[Any]:
    unchanged = len(theirs) == len(merged) and all(map(lambda a, b: a is b, theirs, merged))
    return theirs if unchanged else merged


def same_quantity(theirs: object, ours: object) -> bool:
    """Whether two texts are one amount: the API server rewrites `0.5` to `500m`."""
    try:
        return values.quantity(str(theirs)).amount == values.quantity(str(ours)).amount
    except ValueError:
        return False
