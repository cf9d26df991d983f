"""A Pod's claim to its replicas: what the guard gives it, and what its spec says of that for as long as it lives.

The proof stands in our sidecar's environment, because that can't be changed once the Pod exists, as labels,
annotations and status can.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from injector.pod import merge
from injector.pod.containers import REPLICATE
from injector.pod.replica import Identity, controller
from injector.values import Object

LEASES = "LITESTREAM_HOOK_LEASES"
MARK = "LITESTREAM_HOOK_MARK"
LISTS = ("initContainers", "containers")  # where our sidecar can be


class Claim(NamedTuple):
    """Leases that a Pod of this name may hold; `mark` is what they say of this one creation of it.

    `moved_from` are the places where the workload's replicas were until now, if the Pod's are others where nobody has
    written yet, as far as Leases tell. Without Leases: a Pod that claims nothing, as nobody was asked.
    """

    name: str = ""
    mark: str = ""
    leases: tuple[str, ...] = ()
    moved_from: tuple[str, ...] = ()


class Refusal(NamedTuple):
    """Why a Pod must not be created now, in a sentence or two."""

    message: str


def laid(pod: Object, claim: Claim) -> Object:
    """The injected Pod with a claim in it: its name, and the proof. Without Leases the very same Pod."""
    if not claim.leases:
        return pod
    proof = {"env": [{"name": LEASES, "value": " ".join(claim.leases)}, {"name": MARK, "value": claim.mark}]}
    spec = pod["spec"]
    lists = {
        key: [merge.over(item, proof) if item["name"] == REPLICATE else item for item in spec[key]]
        for key in LISTS
        if spec.get(key)
    }
    return {**pod, "metadata": merge.over(pod["metadata"], {"name": claim.name}), "spec": {**spec, **lists}}


def carried(pod: Mapping[str, Any]) -> Claim:
    """What a Pod has of a claim: its name, if it has one yet, and what its spec proves."""
    spec = pod.get("spec") or {}
    name = (pod.get("metadata") or {}).get("name") or ""
    environment = {
        entry["name"]: entry.get("value") or ""
        for key in LISTS
        for item in spec.get(key) or []
        if item["name"] == REPLICATE
        for entry in item.get("env") or []
    }
    return Claim(name, environment.get(MARK, ""), tuple(environment.get(LEASES, "").split()))


def slimmed(pod: Mapping[str, Any]) -> Object:
    """What of a Pod says who it is, whether it ends, and what it claims; all else, megabytes maybe, is left out."""
    spec = pod.get("spec") or {}
    ours = {key: [item for item in spec.get(key) or [] if item["name"] == REPLICATE] for key in LISTS}
    metadata = {key: value for key, value in (pod.get("metadata") or {}).items() if isinstance(value, str | int)}
    return {"metadata": metadata, "spec": ours, "status": {"phase": (pod.get("status") or {}).get("phase")}}


def workload(pod: Mapping[str, Any], identity: Identity) -> str:
    """Whose Pod it is, as KIND/NAME, the same for all revisions: its Pods take over from each other by name."""
    if "workload" in identity.known:
        return f"{identity.known['kind']}/{identity.known['workload']}"
    metadata = pod.get("metadata") or {}
    if (owner := controller(metadata)) is not None:
        return f"{owner['kind'].lower()}/{owner['name']}"
    return f"pod/{(metadata.get('generateName') or metadata.get('name') or '').rstrip('-.')}"
