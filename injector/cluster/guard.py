"""The single-writer guard: is another Pod still writing a replica that a Pod about to be created would?

It lists the namespace's injected Pods and compares replicas, without a cache. Between its answer and the
Pod's creation another one can come: it narrows the window, it is no lease.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta

import msgspec

from injector.annotations.table import group
from injector.cluster.client import Cluster, ClusterError, PodMetadata
from injector.errors import quoted

logger = logging.getLogger(__name__)

LIMIT = 1.0  # seconds for an answer of the API, and for waiting for our turn to ask
IN_FLIGHT = 16  # lists at a time


class Replica(msgspec.Struct, frozen=True):
    """Where a database is replicated to. An empty bucket or endpoint matches any: it was not recorded."""

    bucket: str
    endpoint: str
    path: str

    def collides(self, other: Replica) -> bool:
        """Whether two databases replicated to the one and to the other would destroy each other's."""
        return (
            self.path.strip("/") == other.path.strip("/")
            and _alike(self.bucket, other.bucket)
            and _alike(self.endpoint.rstrip("/"), other.endpoint.rstrip("/"))
        )


class Writer(msgspec.Struct, frozen=True):
    """Another Pod that writes a replica; `ending_since` is None while nobody has asked it to end."""

    pod: str
    replica: Replica
    ending_since: datetime | None


class _Status(msgspec.Struct):
    """What is read of a Pod's `…/status` annotation."""

    databases: dict[str, str]
    bucket: str | None = None
    endpoint: str | None = None


class Guard:
    """Asks the API who else writes; at most IN_FLIGHT questions at a time, the others wait."""

    def __init__(
        self,
        cluster: Cluster | None,
        on_error: str = "deny",
        variant: str = "",
        observe: Callable[[str, float], None] = lambda _result, _seconds: None,
    ) -> None:
        """Without a cluster there is nobody to ask: every Pod passes. `on_error` is `deny` or `allow`.

        `observe` is told of every question: `free`, `taken` or `unknown`, and the seconds it took.
        """
        self._observe = observe
        self._cluster = cluster
        self._on_error = on_error
        self._group = group(variant)
        self._turn = asyncio.Semaphore(IN_FLIGHT)
        if cluster is None:
            logger.warning("the single-writer guard is off: there is no Kubernetes API to ask")

    async def other_writer(self, namespace: str, pod: str, replicas: Collection[Replica]) -> str | None:
        """Why the Pod must not be created now, in a sentence or two; None if nobody else writes `replicas`.

        `pod` is its name, empty where the API server is to generate one. Never raises for the API's
        faults: those are denied or, with GUARD_ON_ERROR=allow, logged and let pass.
        """
        if self._cluster is None or not replicas:
            return None
        label = f"{self._group}/replicates=true"
        start = time.perf_counter()
        try:
            async with asyncio.timeout(LIMIT) as deadline:
                await self._turn.acquire()
            try:
                left = (deadline.when() or 0) - asyncio.get_running_loop().time()
                pods = await self._cluster.list_pods(namespace, label, limit=left)
            finally:
                self._turn.release()
        except (ClusterError, TimeoutError) as error:
            self._observe("unknown", time.perf_counter() - start)
            return self._unknown(namespace, str(error) or f"it took {LIMIT:g} s to ask about other Pods")
        # A Pod of the same name can't come to be beside it: the API server says so in its own words.
        others = [other for other in pods if not pod or other.name != pod]
        found = writer(others, replicas, f"{self._group}/status")
        self._observe("free" if found is None else "taken", time.perf_counter() - start)
        return None if found is None else denial(namespace, found)

    def _unknown(self, namespace: str, why: str) -> str | None:
        if self._on_error == "allow":
            logger.warning("can't determine who else writes in namespace %s (%s): the Pod is allowed", namespace, why)
            return None
        return (
            f"the webhook can't determine whether another Pod still writes this replica: {why}. The Pod's controller "
            "tries again; GUARD_ON_ERROR=allow of the webhook lets Pods pass unchecked, at the risk that two "
            "writers destroy the replica."
        )


def writer(pods: Collection[PodMetadata], replicas: Collection[Replica], annotation: str) -> Writer | None:
    """The first of `pods` (those that have not ended) that writes one of `replicas`; None if none does.

    `annotation` is the key of their status. A status that can't be read is logged and counts as none.
    """
    for pod in sorted(pods, key=lambda pod: pod.name):
        for written in _written(pod, annotation):
            if any(written.collides(replica) for replica in replicas):
                return Writer(pod.name, written, _ending_since(pod))
    return None


def denial(namespace: str, found: Writer) -> str:
    """What the one who creates the second writer reads."""
    first = f"Pod {quoted(found.pod)} still writes the replica {quoted(_place(found.replica))}"
    if found.ending_since is None:
        return (
            f"{first}, and nobody has asked it to end. Two writers destroy a replica: delete that Pod first "
            "(a Deployment needs replicas: 1 and strategy type Recreate), or give this one another "
            "replica-path."
        )
    return (
        f"{first}; it has been terminating since {found.ending_since:%Y-%m-%d %H:%M:%S} UTC. The Pod's controller "
        "tries again until it is gone. If its node is dead, and only if you are sure of that, remove it with: "
        f"kubectl delete pod {found.pod} -n {namespace} --force --grace-period=0"
    )


def _written(pod: PodMetadata, annotation: str) -> list[Replica]:
    text = (pod.annotations or {}).get(annotation)
    try:
        status = msgspec.json.decode(text or "", type=_Status)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        logger.warning(
            "Pod %s: its annotation %s can't be read, so it counts as no writer: %s",
            quoted(pod.name),
            annotation,
            error,
        )
        return []
    return [Replica(status.bucket or "", status.endpoint or "", path) for path in status.databases.values()]


def _ending_since(pod: PodMetadata) -> datetime | None:
    """When the Pod was asked to end: the deletion timestamp is when its grace period will be over."""
    if pod.deletion_timestamp is None:
        return None
    grace = timedelta(seconds=pod.deletion_grace_period_seconds or 0)
    return (pod.deletion_timestamp - grace).astimezone(UTC)


def _alike(one: str, other: str) -> bool:
    return not one or not other or one == other


def _place(replica: Replica) -> str:
    return f"{replica.bucket}/{replica.path}" if replica.bucket else replica.path
