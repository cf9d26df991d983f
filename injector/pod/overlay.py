"""Our containers laid over those of the same name: what others have set in them stays, what we set follows.

On a second call (for one Pod, or for a manifest that was injected and then edited) both are in one container. Somebody
else's are an image rewritten to a mirror or a digest, a command wrapped in another (a secret store's, which starts
ours), and resources that a LimitRange or an autoscaler has set. Ours are told by what the status says that we set, and
by the scripts that only we start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from injector.pod import merge, volumes
from injector.pod.containers import PORT, SCRIPT
from injector.pod.plan import Earlier
from injector.pod.shapes import Container, InjectedContainer
from injector.values import Object

COMMAND = ("command", "args")
PROBES = ("livenessProbe", "readinessProbe")


def laid(there: Sequence[Container], ours: Sequence[InjectedContainer], earlier: Earlier) -> list[Container]:
    """The containers with ours laid over those of the same name, missing ones at the end.

    Args:
        there: what the Pod has.
        ours: what is asked for now.
        earlier: what an earlier call asked for.
    """
    wanted = {item["name"]: item for item in ours}
    result = [_over(item, wanted.pop(item["name"]), earlier) if item["name"] in wanted else item for item in there]
    return result + [cast("Container", item) for item in wanted.values()]


def _over(theirs: Container, ours: InjectedContainer, earlier: Earlier) -> Container:
    mine: Object = dict(ours)
    there = _without_stale(theirs, mine)
    if there.get("image") and there["image"] not in earlier.images:
        del mine["image"]
    if _wrapped(theirs):
        mine = {key: value for key, value in mine.items() if key not in COMMAND}
    if there.get("resources"):
        there["resources"], mine["resources"] = _resources(there["resources"], ours["resources"], earlier.resources)
    merged: Container = merge.over(theirs if there == theirs else there, mine)
    return merged


def _without_stale(theirs: Container, mine: Mapping[str, Any]) -> Object:
    """One of our containers without what only we write there, where it is not asked for any more."""
    stale = {key for key in PROBES if key not in mine}
    if not _wrapped(theirs):
        stale |= {key for key in COMMAND if key not in mine}
    there: Object = {key: value for key, value in theirs.items() if key not in stale}
    hooks = there.get("lifecycle") or {}
    if "postStart" in hooks and "postStart" not in (mine.get("lifecycle") or {}):
        there["lifecycle"] = {key: hook for key, hook in hooks.items() if key != "postStart"}
    if there.get("ports"):
        there["ports"] = [port for port in there["ports"] if port.get("name") != PORT or port in mine.get("ports", [])]
    return there


def _wrapped(item: Container) -> bool:
    """Whether somebody else starts the container: by no script of ours, nor by Litestream's own command."""
    command, arguments = item.get("command") or [], item.get("args") or []
    if not command:
        return bool(arguments) and arguments[0] not in ("replicate", "restore")
    script = command[1] if len(command) > 1 else ""
    return command[:3] != SCRIPT and not script.startswith(f"{volumes.CONFIG_DIRECTORY}/")


def _resources(
    there: Mapping[str, Any], ours: Mapping[str, Mapping[str, str]], earlier: Mapping[str, Mapping[str, str]]
) -> tuple[Object, Object]:
    """What stays of a container's resources, and what of ours is laid over that."""
    theirs = {
        kind: {
            name: amount
            for name, amount in (there.get(kind) or {}).items()
            if not merge.same_quantity(amount, earlier.get(kind, {}).get(name))
        }
        for kind in merge.RESOURCES
    }
    mine = {
        kind: {name: amount for name, amount in amounts.items() if name not in theirs[kind]}
        for kind, amounts in ours.items()
    }
    kept = {
        kind: {name: amount for name, amount in there[kind].items() if name in theirs[kind] or name in mine[kind]}
        for kind in merge.RESOURCES
        if there.get(kind)
    }
    return {**there, **kept}, mine
