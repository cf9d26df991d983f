"""Every course of events, through the guard's real protocol: never do two Pods live that write one replica.

And that the search is worth something: what the protocol rests on is taken away, and the hole is found.
"""

import os
from datetime import timedelta
from typing import Any

import pytest

from injector.cluster import guard as guarding
from injector.cluster import lease
from injector.cluster.guard import Guard
from injector.cluster.lease import Look
from injector.stores import Place
from tests import writers
from tests.writers import Plan, World

pytestmark = pytest.mark.slow  # a minute of searching
FULL = os.environ.get("WRITERS") == "full"
P, Q = Place("", "backups", "p.db"), Place("", "backups", "q.db")
WEB = Plan()
API = Plan(workload="deployment/api")
POD = Plan(name="web-0", workload="pod/web-0")
REPLAY = Plan(replay=True)
TWICE = Plan(twice=True)
SWEEP = Plan(sweeps=True)
ELSEWHERE = Plan(namespace="elsewhere")
BOTH = Plan(places=(P, Q))
BOTH_TWICE = Plan(places=(P, Q), twice=True)

# Each is searched to its end. The number of states is there so that a model that got smaller unnoticed fails.
WORLDS = {
    "retries of one workload": (World((WEB, WEB, WEB), faults=0), 150_000),
    "a retry, and another workload": (World((WEB, WEB, API)), 100_000),
    "admitted twice": (World((TWICE, TWICE), faults=2), 48_000),
    "pods of one name": (World((POD, Plan(name="web-0", twice=True)), faults=2), 16_000),
    "a name and its copies": (World((POD, REPLAY, REPLAY), faults=0), 5_000),
    "two of one name, and a copy": (World((POD, POD, REPLAY), faults=0), 20_000),
    "a generated name and its copies": (World((WEB, REPLAY, REPLAY), faults=0), 5_000),
    "copies, answers lost": (World((WEB, REPLAY, REPLAY)), 25_000),
    "a name, a copy, and a generated name": (World((POD, REPLAY, WEB), faults=0), 23_000),
    "another namespace": (World((WEB, ELSEWHERE), faults=2), 4_000),
    "two replicas each": (World((BOTH, Plan(places=(P, Q), workload="deployment/api"))), 10_000),
    "two replicas and one": (World((BOTH, Plan(places=(Q,), workload="deployment/api")), faults=2), 12_000),
    "two replicas admitted twice, and one": (
        World((BOTH_TWICE, Plan(places=(Q,), workload="deployment/api"))),
        15_000,
    ),
    "two replicas each, admitted twice": (
        World((BOTH_TWICE, Plan(places=(P, Q), workload="deployment/api", twice=True)), faults=0),
        12_000,
    ),
    "one name, other replicas": (
        World((Plan(name="web-0", places=(Q,)), Plan(name="web-0", places=(P,)), API), faults=0),
        1_000,
    ),
    "sweeping": (World((WEB, API, SWEEP), faults=0), 20_000),
    "sweeping copies": (World((WEB, REPLAY, SWEEP)), 15_000),
    "three of one workload, answers lost": (World((WEB, WEB, WEB)), 580_000),
    "admitted twice, and another workload": (World((TWICE, TWICE, API), faults=0), 450_000),
    "retries and sweeping": (World((WEB, WEB, SWEEP)), 99_000),
}
QUICK = 170_000  # states: some seconds; WRITERS=full searches the larger ones too


@pytest.fixture(autouse=True)
def _sweeping_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is safe after the expiry is safe after a day."""
    monkeypatch.setattr(guarding, "SWEPT_AFTER", lease.EXPIRY)


@pytest.mark.parametrize(
    "name",
    [name for name, (_, states) in WORLDS.items() if FULL or states <= QUICK],
)
def test_never_two_writers(name: str) -> None:
    world, states = WORLDS[name]
    found = writers.search(world)
    assert found.events == []
    assert found.states > states


@pytest.mark.parametrize("seed", range(4))
def test_never_two_writers_in_larger_worlds(seed: int) -> None:
    plans = (TWICE, TWICE, POD, API, ELSEWHERE, BOTH, REPLAY, SWEEP)
    assert writers.wander(World(plans, faults=3), 20_000 if FULL else 300, seed) == []


def hole(world: World) -> list[str]:
    return writers.search(world).events


def test_without_again_there_is_a_hole() -> None:
    assert hole(World((WEB, WEB, WEB), faults=0, forget_again=True))


def test_without_a_mark_of_each_call_there_is_a_hole() -> None:
    assert hole(World((WEB, WEB, WEB), faults=0, one_mark=True))


def test_a_second_call_that_does_not_test_the_mark_is_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    renewal = lease.renewal

    def careless(*what: Any) -> list[dict[str, Any]]:
        return [one for one in renewal(*what) if one["op"] != "test" or not one["path"].endswith("mark")]

    monkeypatch.setattr(lease, "renewal", careless)
    assert hole(World((WEB, REPLAY, REPLAY, WEB), faults=0))


@pytest.mark.parametrize("seconds", [30, 60, 63])
def test_with_less_time_there_is_a_hole(seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "EXPIRY", timedelta(seconds=seconds))
    assert hole(World((WEB, API), faults=0))


def test_clocks_farther_apart_are_a_hole() -> None:
    assert hole(World((WEB, API), faults=0, skews=(0, 45)))


def test_a_clock_read_after_the_holder_is_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    look = Guard._look

    async def late(guard: Guard, name: str) -> Look:
        found = await look(guard, name)
        await guard._api.get_lease(guard._home, name)
        return found._replace(at=guard._now())

    monkeypatch.setattr(Guard, "_look", late)
    assert hole(World((WEB, WEB, API), faults=0))


def test_without_the_look_at_the_holder_there_is_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "lives", lambda _name, _pod: False)
    assert hole(World((WEB, API), faults=0))


def test_a_sweep_that_does_not_look_is_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarding, "SWEPT_AFTER", timedelta(seconds=30))
    assert hole(World((WEB, API, SWEEP), faults=0))
