"""Whoever asks much waits for itself: turns go from namespace to namespace."""

from __future__ import annotations

import asyncio

import pytest

from injector import options
from injector.cluster import lease as rules
from injector.cluster.client import Cluster, ClusterError
from injector.cluster.guard import IN_FLIGHT, WAITING, Guard
from injector.cluster.turns import Crowded, Turns
from injector.pod import replica
from injector.pod.claim import Refusal
from injector.pod.inject import Injection, inject
from injector.stores import Place
from injector.values import Object
from tests import reviews


class Crowd:
    """Askers of namespaces, and who was inside, in order."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.end = asyncio.Event()
        self.inside: list[str] = []
        self.away: list[str] = []

    async def ask(self, namespace: str) -> None:
        try:
            async with self.turns.of(namespace):
                self.inside.append(namespace)
                await self.end.wait()
        except Crowded:
            self.away.append(namespace)

    async def come(self, *namespaces: str) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self.ask(namespace)) for namespace in namespaces]
        for _ in range(3):
            await asyncio.sleep(0)
        return tasks


def test_a_namespace_waits_for_one_of_another_not_for_all_of_them() -> None:
    async def run() -> None:
        crowd = Crowd(Turns(1, 100))
        tasks = await crowd.come(*["loud"] * 50, "quiet", "other")
        crowd.end.set()
        await asyncio.gather(*tasks)
        assert crowd.inside[:4] == ["loud", "loud", "quiet", "other"]
        assert len(crowd.inside) == 52

    asyncio.run(run())


def test_so_many_are_inside_at_once() -> None:
    async def run() -> None:
        crowd = Crowd(Turns(3, 100))
        tasks = await crowd.come(*"abcde")
        assert crowd.inside == ["a", "b", "c"]
        crowd.end.set()
        await asyncio.gather(*tasks)
        tasks = await crowd.come(*"abc")
        await asyncio.gather(*tasks)
        assert len(crowd.inside) == 8

    asyncio.run(run())


def test_of_too_many_the_last_of_the_loudest_namespace_is_sent_away() -> None:
    async def run() -> None:
        crowd = Crowd(Turns(1, 4))
        tasks = await crowd.come("loud", "loud", "loud", "quiet", "loud", "other", "loud")
        assert crowd.away == ["loud", "loud"]
        crowd.end.set()
        await asyncio.gather(*tasks)
        assert sorted(crowd.inside) == ["loud", "loud", "loud", "other", "quiet"]

    asyncio.run(run())


@pytest.mark.parametrize("which", [1, 2])
def test_who_waits_no_longer_takes_nobodys_turn(which: int) -> None:
    async def run() -> None:
        crowd = Crowd(Turns(1, 100))
        tasks = await crowd.come("a", "b", "c")
        tasks[which].cancel()
        await asyncio.gather(*tasks[which : which + 1], return_exceptions=True)
        crowd.end.set()
        others = [task for task in tasks if not task.cancelled()]
        await asyncio.gather(*others)
        assert crowd.inside == [name for name in "abc" if name != "abc"[which]]
        await asyncio.gather(*await crowd.come("d"))

    asyncio.run(run())


def test_a_turn_that_comes_as_its_owner_leaves_is_given_on() -> None:
    async def run() -> None:
        crowd = Crowd(Turns(1, 100))
        async with crowd.turns.of("a"):
            second, third = await crowd.come("b", "c")
        second.cancel()  # its turn has come, and it has not run yet
        crowd.end.set()
        await asyncio.gather(second, third, return_exceptions=True)
        await asyncio.gather(*await crowd.come("d"))
        assert crowd.inside == ["c", "d"]

    asyncio.run(run())


def test_all_who_leave_at_once_are_passed_over() -> None:
    async def run() -> None:
        crowd = Crowd(Turns(1, 100))
        async with crowd.turns.of("a"):
            leaving = await crowd.come("b", "b", "c")
            for task in leaving:
                task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        assert crowd.inside == []
        crowd.end.set()
        await asyncio.gather(*await crowd.come("d", "e"))
        assert crowd.inside == ["d", "e"]

    asyncio.run(run())


def test_who_is_sent_away_while_it_leaves_takes_nobodys_turn() -> None:
    async def run() -> None:
        crowd = Crowd(Turns(1, 1))
        first, second = await crowd.come("a", "b")
        third = asyncio.create_task(crowd.ask("b"))
        await asyncio.sleep(0)
        second.cancel()
        third.cancel()
        crowd.end.set()
        await asyncio.gather(first, second, third, return_exceptions=True)
        await asyncio.gather(*await crowd.come("d"))
        assert crowd.inside == ["a", "d"]

    asyncio.run(run())


class Slow(Cluster):
    """A Kubernetes API that does not answer until it is told to; no other part of it is asked."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.asked: list[str] = []

    async def get_lease(self, namespace: str, name: str) -> Object | None:  # noqa: ARG002
        self.asked.append(name)
        await self.answers.wait()
        raise ClusterError("nothing is there")


@pytest.mark.parametrize("on_error", ["deny", "allow"])
def test_a_namespace_that_creates_very_many_pods_takes_no_other_ones_turn(on_error: str) -> None:
    def injection(namespace: str, number: int) -> Injection:
        pod = reviews.pod(None, {"name": f"web-{number}"})
        return inject(pod, replica.of_pod(pod, namespace), options.read({}))

    async def run() -> None:
        api = Slow()
        guard = Guard(api, "home", on_error)
        count = IN_FLIGHT + WAITING + 50
        loud = [asyncio.create_task(guard.ask(injection("loud", number))) for number in range(count)]
        await asyncio.sleep(0)
        quiet = asyncio.create_task(guard.ask(injection("quiet", 0)))
        for _ in range(3):
            await asyncio.sleep(0)
        sent_away = [task.result() for task in loud if task.done()]
        assert len(sent_away) == 51
        assert all(isinstance(one, Refusal) and 'Pods of namespace "loud"' in one.message for one in sent_away)
        api.answers.set()
        await asyncio.gather(quiet, *loud)
        (own,) = (rules.name_of(Place("", "litestream", path)) for path in injection("quiet", 0).replicas.values())
        assert api.asked.index(own) <= IN_FLIGHT + 1

    asyncio.run(run())
