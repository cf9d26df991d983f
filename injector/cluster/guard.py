"""The single-writer guard: a Lease for each replica, taken before the Pod that will write there is created.

The way of a question: `ask` (patience, measuring) → `claim` (look at all, decide by the rules of lease.py, take all)
→ a claim for the Pod to carry, or why it must not be created now. Each call for one creation goes the whole way.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

from injector.cluster import lease as rules
from injector.cluster.client import ClusterError, Conflict
from injector.cluster.lease import Asks, Holder, Lease, Look, Take
from injector.cluster.turns import Crowded, Turns
from injector.errors import quoted
from injector.pod.claim import Claim, Refusal, carried, slimmed, workload
from injector.pod.inject import Injection
from injector.stores import Place
from injector.values import Object

logger = logging.getLogger(__name__)

PATIENCE = 8.0  # seconds for an answer, waiting included: the API server waits 10 for ours
SWEPT_AFTER = timedelta(days=1)
SWEEP_SECONDS = 6 * 3600.0
PLACE = {
    "endpoint",
    "bucket",
    "replica-path",
}  # of a Pod that writes all of them, no change of defaults moves a replica
IN_FLIGHT = 16  # questions at a time; the others wait
WAITING = 256  # each with its Pod in memory, and more come from a controller's next try
LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # those of the API server's own generated names
LONGEST_BASE = 57  # so that a name has at most 63 letters, as a host's


class Api(Protocol):
    """The calls that the protocol makes. Each raises ClusterError, and Conflict for 409."""

    async def get_lease(self, namespace: str, name: str) -> Object | None:
        """The Lease; None where there is none."""

    async def create_lease(self, namespace: str, lease: Object) -> Object:
        """The Lease as it was created; Conflict if there is one of that name."""

    async def replace_lease(self, namespace: str, lease: Object) -> Object:
        """The Lease as it was replaced; Conflict unless it was still the one of this uid and resourceVersion."""

    async def patch_lease(self, namespace: str, name: str, patch: list[Object]) -> Object:
        """The Lease after a JSON Patch; Conflict unless it is there, and is what the patch tests for."""

    async def delete_lease(self, namespace: str, name: str, uid: str, version: str) -> None:
        """Delete the Lease, if it is there; Conflict unless it is the one of this uid and resourceVersion."""

    def list_leases(self, namespace: str, labels: Mapping[str, str] | None = None) -> AsyncIterator[list[Object]]:
        """All Leases of the namespace, or those with these labels, page by page."""

    async def find_pod(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """The whole Pod, as of this moment; None where there is none."""


def new_name(workload: str) -> str:
    """A new Pod's name, as the API server makes them, of the name of KIND/NAME."""
    base = workload.partition("/")[2][:LONGEST_BASE].rstrip("-.")
    return f"{base}-{''.join(random.choices(LETTERS, k=5))}"  # noqa: S311 (unique, not secret)


class Guard:
    """Asks the API who may write; at most IN_FLIGHT questions at a time, of one namespace after the other.

    Args:
        api: the cluster's.
        home: the namespace of the Leases.
        on_error: what becomes of a Pod when the API can't be asked: `deny` or `allow`.
        observe: is told of every question: `free`, `taken` or `unknown`, and the seconds it took.
        now: the time of the moment.
        mark: makes a text that was never there before.
        named: makes a name for a Pod of a workload.
    """

    def __init__(
        self,
        api: Api,
        home: str,
        on_error: str = "deny",
        observe: Callable[[str, float], None] = lambda _result, _seconds: None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        mark: Callable[[], str] = lambda: secrets.token_hex(8),
        named: Callable[[str], str] = new_name,
    ) -> None:
        self._api = api
        self._home = home
        self._on_error = on_error
        self._observe = observe
        self._now = now
        self._mark = mark
        self._named = named
        self._turns = Turns(IN_FLIGHT, WAITING)

    async def ask(self, injection: Injection, *, dry_run: bool = False) -> Claim | Refusal:
        """A claim to all replicas of a Pod, or why it must not be created now; never raises for the API's faults.

        A dry run changes nothing and gets an empty claim, and so does a Pod that GUARD_ON_ERROR=allow lets pass.
        """
        pod, settings = injection.pod, injection.settings
        before, whose = carried(pod), injection.identity
        asks = Asks(whose.namespace, before.name, workload(pod, whose), before.mark)
        places = {settings.bucket.place(settings.endpoint, path) for path in injection.replicas.values()}
        known = settings.given >= (PLACE if settings.bucket.kind == "s3" else PLACE - {"endpoint"})
        searches: list[asyncio.Task[tuple[str, ...]]] = []

        def is_new() -> None:  # while the Leases are written
            if not known:
                searches.append(asyncio.create_task(self._moved_from(asks, places)))

        start = time.perf_counter()
        try:
            async with asyncio.timeout(PATIENCE), self._turns.of(asks.namespace):
                answer = await self.claim(asks, places, dry_run=dry_run, is_new=is_new)
            taken = time.perf_counter() - start
            self._observe("free" if isinstance(answer, Claim) else "taken", taken)
            if isinstance(answer, Claim) and searches:
                found, _ = await asyncio.wait(searches, timeout=PATIENCE - taken)
                return answer._replace(moved_from=found.pop().result() if found else ())
        except Crowded:  # GUARD_ON_ERROR=allow lets nobody pass who brought a crowd
            self._observe("unknown", time.perf_counter() - start)
            return Refusal(_crowded(asks))
        except (ClusterError, TimeoutError) as error:
            self._observe("unknown", time.perf_counter() - start)
            return self._unknown(asks, str(error) or f"the Kubernetes API did not answer within {PATIENCE:g} s")
        finally:
            for search in searches:
                search.cancel()
        return answer

    async def _moved_from(self, asks: Asks, places: Collection[Place]) -> tuple[str, ...]:
        """Where the workload's replicas were until now, as far as the API tells: it stops no Pod."""
        wanted = {rules.name_of(place): place for place in places}
        try:
            labels = rules.owner_label(asks.namespace, asks.workload)
            pages = [page async for page in self._api.list_leases(self._home, labels)]
        except ClusterError:
            return ()
        found = filter(rules.ours, itertools.chain(*pages))
        return tuple(sorted(filter(None, (rules.moved_from(each, asks, wanted) for each in found))))

    def _unknown(self, asks: Asks, why: str) -> Claim | Refusal:
        if self._on_error == "allow":
            logger.warning(
                "can't determine who else writes for %s in namespace %s (%s): the Pod is allowed",
                quoted(asks.workload),
                asks.namespace,
                why,
            )
            return Claim()
        return Refusal(
            f"the webhook can't determine whether another Pod still writes this replica: {why}. The Pod's controller "
            "tries again; GUARD_ON_ERROR=allow of the webhook lets Pods pass unchecked, at the risk that two "
            "writers destroy the replica."
        )

    async def run(self) -> None:
        """Sweep now and then, until cancelled. What the API says against it is logged."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 (spreads the replicas' work)
            try:
                logger.info("deleted %d Leases whose Pods have been gone for a day", await self.sweep())
            except ClusterError as error:
                logger.warning("can't delete the Leases whose Pods have been gone for a day: %s", error)

    async def claim(
        self,
        asks: Asks,
        places: Collection[Place],
        *,
        dry_run: bool = False,
        is_new: Callable[[], None] = lambda: None,
    ) -> Claim | Refusal:
        """The protocol. Raises ClusterError where the API, or a Lease, can't say.

        `is_new` is told before the first write that none of the replicas had a Lease.
        """
        wanted = dict(sorted((rules.name_of(place), place) for place in places))
        mark = self._mark()
        if asks.name and asks.mark and not dry_run and await self._renew_all(asks, mark, wanted):
            return Claim(asks.name, mark, tuple(wanted))
        looks: dict[str, Look] = {}
        for name, place in wanted.items():
            looks[name] = look = await self._look(name)
            if look.pod is not None and rules.lives(name, look.pod):
                return Refusal(_writes(look.pod, place, self._told(asks, look)))
        if (namesake := await self._namesake(asks, looks.values())) is not None:
            return Refusal(_exists(namesake))
        if dry_run:
            return Claim()
        inherited = next(filter(None, (rules.inherited_name(asks, look) for look in looks.values())), "")
        asks = asks._replace(name=asks.name or inherited or self._named(asks.workload))
        takes: dict[str, Take] = {}
        for name, look in looks.items():
            if (take := rules.decide(asks, look)) is None:
                return Refusal(_waits(wanted[name], look, self._told(asks, look)))
            takes[name] = take
        wishes = [
            (rules.wish(asks, name, looks[name], take, mark), wanted[name], take.alone) for name, take in takes.items()
        ]
        if all(look.lease is None for look in looks.values()):
            is_new()
        return await self._take_all(wishes) or Claim(asks.name, mark, tuple(wanted))

    async def sweep(self) -> int:
        """Delete the Leases that are a day old and whose holder is gone; how many. Raises ClusterError."""
        swept = 0
        async for page in self._api.list_leases(self._home):
            at = self._now()
            for lease in map(rules.read, filter(rules.ours, page)):
                if at - lease.admitted > SWEPT_AFTER and await self._swept(lease):
                    swept += 1
        return swept

    async def _swept(self, lease: Lease) -> bool:
        """Whether the Lease is deleted: its holder doesn't live, and nobody has taken it since it was read."""
        if rules.lives(lease.name, await self._pod(lease.holder)):
            return False
        try:
            await self._api.delete_lease(self._home, lease.name, lease.uid, lease.version)
        except Conflict:
            return False
        return True

    async def _look(self, name: str) -> Look:
        """The Lease, then the time, then its holder: in another order, a creation could take effect unseen."""
        found = await self._api.get_lease(self._home, name)
        at = self._now()
        if found is None:
            return Look(None, at)
        lease = rules.read(found)
        return Look(lease, at, await self._pod(lease.holder))

    async def _pod(self, holder: Holder) -> Mapping[str, Any] | None:
        """What matters of a Pod; the rest of it, megabytes maybe, is let go while many questions are under way."""
        found = await self._api.find_pod(*holder)
        return None if found is None else slimmed(found)

    async def _namesake(self, asks: Asks, looks: Collection[Look]) -> Mapping[str, Any] | None:
        """The Pod that there is already of a named Pod's name."""
        if not asks.name:
            return None
        own = Holder(asks.namespace, asks.name)
        for look in looks:
            if look.lease is not None and look.lease.holder == own:
                return look.pod
        return await self._pod(own)

    def _told(self, asks: Asks, look: Look) -> Told:
        """Whoever reaches our port can ask for any replica: only its own namespace's Pods are named to a caller."""
        assert look.lease is not None  # noqa: S101 (nobody is told of a holder without one)
        if look.lease.holder.namespace == asks.namespace:
            return Told(_named_pod(look.lease.holder), own=True)
        return Told(
            "a Pod in another namespace",
            f" Whoever may read Leases finds it with: kubectl get lease {look.lease.name} -n {self._home}",
        )

    async def _renew_all(self, asks: Asks, mark: str, names: Collection[str]) -> bool:
        """Whether this is the second call for one creation: the Pod carries the mark that each of its Leases has."""
        for name in names:
            write = self._api.patch_lease(self._home, name, rules.renewal(asks, mark, self._now()))
            if await self._written(write, name, mark) is None:
                return False
        return True

    async def _take_all(self, wishes: Sequence[tuple[Lease, Place, bool]]) -> Refusal | None:
        """Take one after another, always in the order of their names; what can't be used is given back."""
        taken: list[Lease] = []
        try:
            for wish, place, alone in wishes:
                stored = await self._take(wish, place)
                if stored is None:
                    await self._give_back(taken)
                    return Refusal(_contended(place))
                if alone:
                    taken.append(stored)
        except ClusterError:
            await self._give_back(taken)
            raise
        return None

    async def _take(self, wish: Lease, place: Place) -> Lease | None:
        """The Lease as it is stored with our mark; None if another call was faster."""
        write = self._api.replace_lease if wish.version else self._api.create_lease
        return await self._written(write(self._home, rules.write(wish, self._home, place)), wish.name, wish.mark)

    async def _written(self, write: Awaitable[Object], name: str, mark: str) -> Lease | None:
        """The Lease as it is stored with this mark; None if it was not as it had to be.

        A write can take effect although its answer is lost, or is a conflict with itself: so it is read, once.
        """
        try:
            return rules.read(await write)
        except ClusterError as error:
            found = await self._api.get_lease(self._home, name)
            stored = None if found is None else rules.read(found)
            if stored is not None and stored.mark == mark:
                return stored
            if isinstance(error, Conflict):
                return None
            raise

    async def _give_back(self, taken: Collection[Lease]) -> None:
        for lease in taken:
            with contextlib.suppress(ClusterError):  # then it expires
                await self._api.delete_lease(self._home, lease.name, lease.uid, lease.version)


class Told(NamedTuple):
    """How a refusal names the holder of a Lease, and how it ends for those who may know more."""

    who: str
    more: str = ""
    own: bool = False  # whether it is of the caller's own namespace


def _named_pod(holder: Holder) -> str:
    return f"Pod {quoted(holder.name)} in namespace {quoted(holder.namespace)}"


def _writes(pod: Mapping[str, Any], place: Place, told: Told) -> str:
    """What the one who creates the second writer reads."""
    first = f"{told.who} still writes the replica {quoted(str(place))}"
    since = _ending_since(pod)
    if since is None:
        return (
            f"{first}, and nobody has asked it to end. Two writers destroy a replica: delete that Pod first "
            "(a Deployment needs replicas: 1 and strategy type Recreate), or give this one another replica-path."
            f"{told.more}"
        )
    metadata = pod["metadata"]
    force = (
        " If its node is dead, and only if you are sure of that, remove it with: "
        f"kubectl delete pod {metadata['name']} -n {metadata['namespace']} --force --grace-period=0"
    )
    return (
        f"{first}; it has been terminating since {since:%Y-%m-%d %H:%M:%S} UTC. The Pod's controller tries "
        f"again until it is gone.{force if told.own else told.more}"
    )


def _exists(pod: Mapping[str, Any]) -> str:
    since = _ending_since(pod)
    what = "delete it first" if since is None else f"it has been terminating since {since:%Y-%m-%d %H:%M:%S} UTC"
    metadata = pod["metadata"]
    return f"{_named_pod(Holder(metadata['namespace'], metadata['name']))} exists already: {what}."


def _waits(place: Place, look: Look, told: Told) -> str:
    assert look.lease is not None  # noqa: S101 (without one nobody has to wait)
    left = look.lease.admitted + rules.EXPIRY - look.at
    return (
        f"{told.who} was allowed to write the replica "
        f"{quoted(str(place))} a moment ago and may still be on its way. If it does not appear, the replica is free in "
        f"{max(1, round(left.total_seconds()))} s: try again, as a Pod's controller does by itself.{told.more}"
    )


def _crowded(asks: Asks) -> str:
    return (
        f"too many Pods of namespace {quoted(asks.namespace)} are created at once: try again, as a Pod's controller "
        "does by itself."
    )


def _contended(place: Place) -> str:
    return (
        f"another Pod was allowed to write the replica {quoted(str(place))} at the same moment: try again, as a Pod's "
        "controller does by itself."
    )


def _ending_since(pod: Mapping[str, Any]) -> datetime | None:
    """When the Pod was asked to end: the deletion timestamp is when its grace period will be over."""
    metadata = pod["metadata"]
    until = metadata.get("deletionTimestamp")
    if until is None:
        return None
    grace = timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)
    return (datetime.fromisoformat(until) - grace).astimezone(UTC)
