"""A model of the world around the guard's protocol, which drives the real protocol through every course of events.

A state is: the Leases, the Pods, each creation (with what its call was answered so far) and the writes that are still
on their way. Everything that can happen next is a step: a call of the protocol is answered, or its answer is lost,
or the webhook dies; a creation takes effect, fails, is admitted a second time, or takes effect until 34 s after it
began; a Pod ends or is gone; time passes. Two Pods that live and write one replica are what must never be.

The protocol is not copied here. It is a coroutine, and what it asks next follows from the answers so far, so a state
holds the answers, and the coroutine is run again for every new list of them. Times are seconds from the state's moment.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import jsonpatch

from injector.cluster import guard as guarding
from injector.cluster import lease as rules
from injector.cluster.client import ClusterError, Conflict
from injector.cluster.guard import Guard
from injector.cluster.lease import Asks, Holder, Lease
from injector.pod.claim import LEASES, MARK, Claim, Refusal
from injector.pod.containers import REPLICATE
from injector.stores import Place

HOME = "litestream-hook"
CREATION = 34  # seconds until which a creation can take effect
OLDEST = -400  # seconds: whatever is older is alike
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
READS = ("get", "list", "pod")
LOST, CONFLICT = "lost", "conflict"


class Record(NamedTuple):
    """A stored Lease; its version is the mark, as no mark is written twice."""

    name: str
    uid: str
    holder: Holder
    workload: str
    mark: str
    admitted: int
    again: bool


class Pod(NamedTuple):
    """A stored Pod."""

    namespace: str
    name: str
    mark: str
    leases: tuple[str, ...]
    ended: bool = False


class Request(NamedTuple):
    """A call to the API; `record` is what is to be written, `version` and `uid` what it is to replace or delete."""

    verb: str
    namespace: str = ""
    name: str = ""
    record: Record | None = None
    uid: str = ""
    version: str = ""


class Creation(NamedTuple):
    """A creation; `asks` of the call that goes on, or went through. `second`: it is, or was, the second call."""

    stage: str = "to come"  # asking, granted, over
    began: int = 0
    second: bool = False
    asks: Asks = Asks("", "", "", "")
    skew: int = 0
    answers: tuple[Any, ...] = ()
    leases: tuple[str, ...] = ()


class State(NamedTuple):
    leases: tuple[Record, ...] = ()
    pods: tuple[Pod, ...] = ()
    creations: tuple[Creation, ...] = ()
    late: frozenset[Request] = frozenset()
    manifests: frozenset[tuple[str, str, str]] = frozenset()
    faults: int = 0


@dataclass(frozen=True)
class Plan:
    """Somebody who will create a Pod: `replay` makes it of a Pod that there was, name and mark included."""

    namespace: str = "apps"
    name: str = ""
    workload: str = "deployment/web"
    places: tuple[Place, ...] = (Place("", "backups", "web.db"),)
    replay: bool = False
    twice: bool = False  # it may be admitted a second time
    sweeps: bool = False  # not a creation: the webhook sweeps


@dataclass(frozen=True)
class World:
    """What may happen: who creates, the clocks of webhooks, how many faults, and what is broken on purpose."""

    plans: tuple[Plan, ...]
    faults: int = 1
    skews: tuple[int, ...] = (0, 30)
    forget_again: bool = False
    one_mark: bool = False
    ends: bool = True  # Pods may end and stay


class _Answer:
    def __init__(self, request: Request) -> None:
        self.request = request

    def __await__(self) -> Generator[Request, Any, Any]:
        return (yield self.request)


class _Api:
    """The API as the protocol calls it: a request goes out, and an answer comes in."""

    def __init__(self, forget_again: bool) -> None:
        self.clock = 0
        self.forget_again = forget_again

    async def _ask(self, request: Request) -> Any:
        answer = await _Answer(request)
        if answer == LOST:
            raise ClusterError("no answer")
        if answer == CONFLICT:
            raise Conflict("409", 409)
        return answer

    async def get_lease(self, _: str, name: str) -> dict[str, Any] | None:
        record, self.clock = await self._ask(Request("get", name=name))
        return None if record is None else _object(record)

    async def create_lease(self, _: str, lease: dict[str, Any]) -> dict[str, Any]:
        return _object(await self._ask(self._write("create", lease)))

    async def replace_lease(self, _: str, lease: dict[str, Any]) -> dict[str, Any]:
        return _object(await self._ask(self._write("replace", lease)))

    async def patch_lease(self, _: str, name: str, patch: list[dict[str, Any]]) -> dict[str, Any]:
        tests = {one["path"]: one["value"] for one in patch if one["op"] == "test"}
        namespace, _, holder = tests["/spec/holderIdentity"].partition("/")
        expected = next((value for path, value in tests.items() if path.endswith("mark")), "")
        fitting = Lease(name, Holder(namespace, holder), "", expected, MOMENT, again=False)
        patched = jsonpatch.apply_patch(rules.write(fitting, HOME, Place("", "b", "p")), patch)
        return _object(await self._ask(self._write("patch", patched)._replace(version=expected)))

    async def delete_lease(self, _: str, name: str, uid: str, version: str) -> None:
        await self._ask(Request("delete", name=name, uid=uid, version=version))

    async def list_leases(self, _: str, labels: Mapping[str, str] | None = None) -> AsyncIterator[list[dict[str, Any]]]:
        assert labels is None, "asked outside of the protocol"
        records, self.clock = await self._ask(Request("list"))
        yield [_object(record) for record in records]

    async def find_pod(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        pod = await self._ask(Request("pod", namespace, name))
        if pod is None:
            return None
        env = [{"name": LEASES, "value": " ".join(pod.leases)}, {"name": MARK, "value": pod.mark}]
        return {
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "spec": {"initContainers": [{"name": REPLICATE, "env": env}]},
            "status": {"phase": "Failed" if pod.ended else "Running"},
        }

    def _write(self, verb: str, body: dict[str, Any]) -> Request:
        lease = rules.read(body)
        admitted = round((lease.admitted - MOMENT).total_seconds())
        again = lease.again and not self.forget_again
        record = Record(lease.name, lease.uid or lease.mark, lease.holder, lease.workload, lease.mark, admitted, again)
        return Request(verb, name=lease.name, record=record, uid=lease.uid, version=lease.version)


def _object(record: Record) -> dict[str, Any]:
    admitted = MOMENT + timedelta(seconds=record.admitted)
    lease = Lease(record.name, record.holder, record.workload, record.mark, admitted, record.again)
    return rules.write(lease._replace(uid=record.uid, version=record.mark), HOME, Place("", "b", "p"))


class Model:
    """All that can become of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._known: dict[Any, Request | Claim | Refusal | None] = {}

    def first(self) -> State:
        return State(creations=(Creation(),) * len(self.world.plans), faults=self.world.faults)

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Everything that can happen next, each with what is then."""
        for number, creation in enumerate(state.creations):
            for what, after in self._of_creation(state, number, creation):
                yield f"creation {number} {what}", after
        for request in state.late:
            leases, _ = _applied(state.leases, request)
            yield f"late {request}", state._replace(leases=leases, late=state.late - {request})
        for pod in state.pods:
            rest = tuple(one for one in state.pods if one != pod)
            yield f"{pod.name} is gone", state._replace(pods=rest)
            if self.world.ends and not pod.ended:
                yield f"{pod.name} ends", state._replace(pods=_sorted(*rest, pod._replace(ended=True)))
        if (seconds := self._until_next(state)) is not None:
            yield f"{seconds} s pass", self._later(state, seconds)

    def _of_creation(self, state: State, number: int, creation: Creation) -> Iterator[tuple[str, State]]:
        stages = {"to come": self._to_come, "asking": self._asking, "granted": self._granted}
        if creation.stage in stages:
            yield from stages[creation.stage](state, number, creation)

    def _to_come(self, state: State, number: int, _: Creation) -> Iterator[tuple[str, State]]:
        plan = self.world.plans[number]
        for namespace, name, mark in state.manifests if plan.replay else {(plan.namespace, plan.name, "")}:
            for skew in self.world.skews:
                begun = Creation("asking", asks=Asks(namespace, name, plan.workload, mark), skew=skew)
                yield f"begins as {name!r}", _become(state, number, begun)

    def _asking(self, state: State, number: int, creation: Creation) -> Iterator[tuple[str, State]]:
        asked = self._asked(number, creation)
        if isinstance(asked, Request):
            for what, answer, others in self._answers(state, asked, creation.skew):
                answered = creation._replace(answers=(*creation.answers, answer))
                after = Creation("over") if what == "dies" else answered
                yield f"{asked.verb} {what}", _become(state, number, after)._replace(**others)
        elif isinstance(asked, Claim):
            asks = creation.asks._replace(name=asked.name, mark=asked.mark)
            granted = Creation("granted", creation.began, creation.second, asks, leases=asked.leases)
            yield f"is let in as {asked.name}", _become(state, number, granted)
        else:
            yield "is refused", _become(state, number, Creation("over"))

    def _granted(self, state: State, number: int, creation: Creation) -> Iterator[tuple[str, State]]:
        yield "fails", _become(state, number, Creation("over"))
        if self.world.plans[number].twice and not creation.second:
            for skew in self.world.skews:
                again = creation._replace(stage="asking", second=True, skew=skew, leases=())
                yield "is asked again", _become(state, number, again)
        asks = creation.asks
        if all((pod.namespace, pod.name) != (asks.namespace, asks.name) for pod in state.pods):
            pod = Pod(asks.namespace, asks.name, asks.mark, creation.leases)
            after = _become(state, number, Creation("over"))._replace(pods=_sorted(*state.pods, pod))
            if any(plan.replay for plan in self.world.plans):
                after = after._replace(manifests=state.manifests | {(asks.namespace, asks.name, asks.mark)})
            yield f"takes effect as {asks.name}", after

    def _answers(self, state: State, request: Request, skew: int) -> Iterator[tuple[str, Any, dict[str, Any]]]:
        """Each answer that may come, and what else is different then."""
        if request.verb == "get":
            record = next((one for one in state.leases if one.name == request.name), None)
            yield "is answered", (record, skew), {}
        elif request.verb == "list":
            yield "is answered", (state.leases, skew), {}
        elif request.verb == "pod":
            where = (request.namespace, request.name)
            yield "is answered", next((pod for pod in state.pods if (pod.namespace, pod.name) == where), None), {}
        else:
            leases, answer = _applied(state.leases, request)
            yield "is answered", answer, {"leases": leases}
            if state.faults:
                less = {"faults": state.faults - 1}
                yield "is lost, maybe on its way", LOST, {**less, "late": state.late | {request}}
                yield "took effect, its answer is lost", LOST, {**less, "leases": leases}
                yield "dies", None, {**less, "late": state.late | {request}}

    def _asked(self, number: int, creation: Creation) -> Request | Claim | Refusal | None:
        """What the protocol asks for after these answers, or how it ends."""
        key = (number, creation.second, creation.asks, creation.answers)
        if key not in self._known:
            self._known[key] = self._run(number, creation)
        return self._known[key]

    def _run(self, number: int, creation: Creation) -> Request | Claim | Refusal | None:
        api = _Api(self.world.forget_again)
        mark = "mark" if self.world.one_mark else f"mark-{number}{'b' if creation.second else 'a'}"
        guard = Guard(
            api,
            HOME,
            now=lambda: MOMENT + timedelta(seconds=api.clock),
            mark=lambda: mark,
            named=lambda _: f"web-{number}",
        )
        plan = self.world.plans[number]
        protocol: Any = guard.sweep() if plan.sweeps else guard.claim(creation.asks, plan.places)
        try:
            asked = protocol.send(None)
            for answer in creation.answers:
                asked = protocol.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        except ClusterError:
            return None
        protocol.close()
        return asked  # type: ignore[no-any-return]

    def _until_next(self, state: State) -> int | None:
        """Seconds until something is different by time alone: a creation is over, or a webhook sees a Lease expire."""
        ages = {round(age.total_seconds()) for age in (rules.EXPIRY, guarding.SWEPT_AFTER)}
        moments = {
            creation.began + CREATION + 1 for creation in state.creations if creation.stage in ("asking", "granted")
        }
        moments |= {
            lease.admitted + age + 1 - skew for lease in state.leases for age in ages for skew in self.world.skews
        }
        return min((moment for moment in moments if moment > 0), default=None)

    def _later(self, state: State, seconds: int) -> State:
        creations, late = [], {_aged(request, seconds) for request in state.late}
        for number, creation in enumerate(state.creations):
            changed = creation
            if creation.stage in ("asking", "granted"):
                changed = creation._replace(began=creation.began - seconds, answers=_aged(creation.answers, seconds))
                if changed.began < -CREATION:
                    asked = self._asked(number, changed) if changed.stage == "asking" else None
                    if isinstance(asked, Request) and asked.verb not in READS:
                        late.add(asked)
                    changed = Creation("over")
            creations.append(changed)
        return state._replace(leases=_aged(state.leases, seconds), creations=tuple(creations), late=frozenset(late))


def _become(state: State, number: int, creation: Creation) -> State:
    return state._replace(creations=(*state.creations[:number], creation, *state.creations[number + 1 :]))


def _applied(leases: tuple[Record, ...], request: Request) -> tuple[tuple[Record, ...], Any]:
    """The Leases after a write, as an API server does it, and its answer."""
    found = next((one for one in leases if one.name == request.name), None)
    rest = tuple(one for one in leases if one.name != request.name)
    there = found is not None and (found.uid, found.mark) == (request.uid, request.version)
    if request.verb == "delete":
        return (rest, "done") if there else (leases, CONFLICT)
    assert request.record is not None
    if request.verb == "patch":
        if found is None or found.holder != request.record.holder or request.version not in ("", found.mark):
            return leases, CONFLICT
        changed = request.record
        patched = found._replace(workload=changed.workload, mark=changed.mark, admitted=changed.admitted)
        return _sorted(*rest, patched), patched
    if there if request.verb == "replace" else found is None:
        return _sorted(*rest, request.record), request.record
    return leases, CONFLICT


def _sorted(*things: Any) -> tuple[Any, ...]:
    return tuple(sorted(things))


def _aged(thing: Any, seconds: int) -> Any:
    """The same with its times farther in the past."""
    if isinstance(thing, Record):
        return thing._replace(admitted=max(OLDEST, thing.admitted - seconds))
    if isinstance(thing, Request):
        return thing._replace(record=_aged(thing.record, seconds))
    if type(thing) is tuple:
        if len(thing) == 2 and type(thing[1]) is int:  # a Lease, and when it was read
            return (_aged(thing[0], seconds), max(OLDEST, thing[1] - seconds))
        return tuple(_aged(one, seconds) for one in thing)
    return thing


def two_writers(state: State) -> bool:
    """Whether two Pods live that write one replica."""
    written = [lease for pod in state.pods if not pod.ended for lease in pod.leases]
    return len(set(written)) < len(written)


class Found(NamedTuple):
    """How a search ended: the events that led to two writers (empty: there are none), and the states seen."""

    events: list[str]
    states: int


def search(world: World) -> Found:
    """Look at every state that a world can come to, until two write one replica."""
    model = Model(world)
    first = model.first()
    came_by: dict[int, tuple[int, str]] = {hash(first): (0, "")}
    stack = [first]
    while stack:
        state = stack.pop()
        here = hash(state)
        for what, after in model.steps(state):
            key = hash(after)
            if key in came_by:
                continue
            came_by[key] = (here, what)
            if two_writers(after):
                return Found(_events(came_by, key), len(came_by))
            stack.append(after)
    return Found([], len(came_by))


def _events(came_by: Mapping[int, tuple[int, str]], key: int) -> list[str]:
    events: list[str] = []
    while key:
        key, what = came_by[key]
        events.append(what)
    return events[-2::-1]


def wander(world: World, walks: int, seed: int, length: int = 80) -> list[str]:
    """Take random ways through a larger world; the events that led to two writers, if any did."""
    chance = random.Random(seed)
    model = Model(world)
    for _ in range(walks):
        state, events = model.first(), list[str]()
        for _ in range(length):
            steps = list(model.steps(state))
            if not steps:
                break
            what, state = chance.choice(steps)
            events.append(what)
            if two_writers(state):
                return events
    return []
