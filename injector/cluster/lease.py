"""The Lease of a replica: who may write it, and the rules by which the next one may.

A Lease (coordination.k8s.io/v1) per replica, in the webhook's own namespace. At admission a Pod has neither a uid
nor, where its name is generated, a name, and its creation may fail later or take effect after a while. So the holder
is a name that the webhook gives, and the API server's own uniqueness of names keeps two creations of one workload
apart; where the name differs, time does. docs/one-writer.md tells the rules with their reasons.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from injector import GROUP
from injector.cluster.client import ClusterError
from injector.errors import quoted
from injector.pod.claim import carried
from injector.stores import Place, location
from injector.values import Object

# A creation can take effect until 34 s after it began (the API server's longest request), clocks may be 30 s apart,
# and 11 s are to spare.
EXPIRY = timedelta(seconds=75)
PREFIX = "replica-"
LONGEST_LABEL = 63
ENDED = ("Succeeded", "Failed")


def owner_label(namespace: str, workload: str) -> dict[str, str]:
    """The label that all Leases of one workload's Pods have."""
    return {f"{GROUP}/workload": hashlib.sha256(f"{namespace}/{workload}".encode()).hexdigest()[:LONGEST_LABEL]}


def name_of(place: Place) -> str:
    """The name of a replica's Lease."""
    return PREFIX + hashlib.sha256(location(place).encode()).hexdigest()


class Holder(NamedTuple):
    """The name of a Pod, whether there is one or not."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Lease(NamedTuple):
    """What a Lease says.

    `workload` is the holder's, `mark` a random text of the call that wrote it, `admitted` when that was, by the clock
    of the webhook that wrote it. `again`: an earlier creation of the same name may still take effect. `uid` and
    `version` are those of the object that was read.
    """

    name: str
    holder: Holder
    workload: str
    mark: str
    admitted: datetime
    again: bool
    uid: str = ""
    version: str = ""


class BadLease(ClusterError):
    """A Lease that the webhook did not write, or that somebody has changed."""


class _Metadata(msgspec.Struct, rename="camel"):
    name: str
    annotations: dict[str, str]
    uid: str = ""
    resource_version: str = ""


class _Spec(msgspec.Struct, rename="camel"):
    holder_identity: str
    acquire_time: datetime


class _Lease(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec


def ours(found: Object) -> bool:
    """Whether an object in a list of Leases is one of a replica, and says so."""
    try:
        return read(found).name.startswith(PREFIX)
    except BadLease:
        return False


def read(found: Object) -> Lease:
    """What a Lease says. Raises BadLease where it does not say it."""
    try:
        lease = msgspec.convert(found, _Lease)
        annotations = lease.metadata.annotations
        namespace, _, name = lease.spec.holder_identity.partition("/")
        if not namespace or not name or lease.spec.acquire_time.tzinfo is None:
            raise msgspec.ValidationError("no holder, or no time zone")
        return Lease(
            lease.metadata.name,
            Holder(namespace, name),
            annotations[f"{GROUP}/workload"],
            annotations[f"{GROUP}/mark"],
            lease.spec.acquire_time,
            annotations[f"{GROUP}/again"] == "true",
            lease.metadata.uid,
            lease.metadata.resource_version,
        )
    except (msgspec.ValidationError, KeyError) as error:
        which = quoted(str((found.get("metadata") or {}).get("name")))
        raise BadLease(
            f"the Lease {which} in the webhook's namespace is not what the webhook writes there ({error}): "
            "make sure that no Pod writes the replica that it stands for, and delete it"
        ) from None


def write(lease: Lease, namespace: str, place: Place) -> Object:
    """The object; with a `uid` and `version` it replaces the one that has these."""
    there = {"uid": lease.uid, "resourceVersion": lease.version} if lease.version else {}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": lease.name,
            "namespace": namespace,
            "labels": owner_label(lease.holder.namespace, lease.workload),
            "annotations": {
                f"{GROUP}/replica": location(place),
                f"{GROUP}/workload": lease.workload,
                f"{GROUP}/mark": lease.mark,
                f"{GROUP}/again": "true" if lease.again else "false",
            },
            **there,
        },
        "spec": {
            "holderIdentity": str(lease.holder),
            "leaseDurationSeconds": int(EXPIRY.total_seconds()),
            "acquireTime": _micro_time(lease.admitted),
        },
    }


def renewal(asks: Asks, mark: str, admitted: datetime) -> list[Object]:
    """The JSON Patch of a second call for one creation, which fits as long as the Pod carries the Lease's mark."""
    annotation = f"/metadata/annotations/{GROUP}~1"
    return [
        {"op": "test", "path": "/spec/holderIdentity", "value": str(Holder(asks.namespace, asks.name))},
        {"op": "test", "path": f"{annotation}mark", "value": asks.mark},
        {"op": "replace", "path": f"{annotation}mark", "value": mark},
        {"op": "replace", "path": f"{annotation}workload", "value": asks.workload},
        {"op": "replace", "path": "/spec/acquireTime", "value": _micro_time(admitted)},
    ]


def _micro_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Asks(NamedTuple):
    """A Pod that is about to be created.

    `name` is empty where the API server would make one, `mark` is what an earlier call has put into it.
    """

    namespace: str
    name: str
    workload: str
    mark: str


class Look(NamedTuple):
    """What there was at one moment: a replica's Lease, then `at`, then the Pod that holds it, if there is one."""

    lease: Lease | None
    at: datetime
    pod: Mapping[str, Any] | None = None


class Take(NamedTuple):
    """The Lease may be taken. `alone`: no earlier creation can take effect any more, so it may be given back."""

    again: bool
    alone: bool


def lives(name: str, pod: Mapping[str, Any] | None) -> bool:
    """Whether a Pod is a living writer of the Lease's replica: it has not ended, and its spec names the Lease."""
    return pod is not None and not ended(pod) and name in carried(pod).leases


def moved_from(found: Object, asks: Asks, wanted: Mapping[str, Place]) -> str | None:
    """The replica's place that a Lease of the same workload stands for, where it is none of those that are wanted.

    Pods of a DaemonSet have a replica on each node: of theirs, only one of the same path is the same one elsewhere.
    """
    lease = read(found)
    if lease.name in wanted or (lease.holder.namespace, lease.workload) != (asks.namespace, asks.workload):
        return None
    place: str = found["metadata"]["annotations"].get(f"{GROUP}/replica", "")
    same = any(place.endswith(f"/{each.path}") for each in wanted.values())
    return place if same or not asks.workload.startswith("daemonset/") else None


def ended(pod: Mapping[str, Any]) -> bool:
    """Whether a Pod has ended for good."""
    return (pod.get("status") or {}).get("phase") in ENDED


def inherited_name(asks: Asks, look: Look) -> str:
    """The name that a nameless Pod takes over from the holder of its own workload, who is not there; empty if none."""
    lease = look.lease
    if lease is None or look.pod is not None:
        return ""
    same = (lease.holder.namespace, lease.workload) == (asks.namespace, asks.workload)
    return lease.holder.name if same else ""


def wish(asks: Asks, name: str, look: Look, take: Take, mark: str) -> Lease:
    """The Lease as this Pod wants it."""
    before = look.lease or Lease(name, Holder("", ""), "", "", look.at, again=False)
    holder = Holder(asks.namespace, asks.name)
    return before._replace(holder=holder, workload=asks.workload, mark=mark, admitted=look.at, again=take.again)


def decide(asks: Asks, look: Look) -> Take | None:
    """May this Pod, which has a name by now and of whose name there is no object, take the Lease? None: not now."""
    lease, pod = look.lease, look.pod
    if lease is None:
        return Take(again=False, alone=True)
    if lives(lease.name, pod):
        return None
    mine = lease.holder == Holder(asks.namespace, asks.name)
    if mine and pod is None:  # another creation of the same name: the API server lets one of them be
        return Take(again=True, alone=False)
    if pod is not None and ended(pod) and carried(pod).mark == lease.mark and not lease.again:
        return Take(again=False, alone=True)
    if look.at - lease.admitted > EXPIRY:
        return Take(again=False, alone=True)
    return None
