"""Large requests take turns, small ones never wait, and answers that nobody reads share a bounded memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from injector.serving import large
from injector.serving.large import (
    BYTES,
    NODES,
    READ_AT_ONCE,
    SMALL_BYTES,
    TURN_BYTES,
    UNSENT_BYTES,
    Busy,
    Large,
)

SMALL, MIDDLING, LARGE = b"x" * SMALL_BYTES, b"x" * BYTES, b"x" * (BYTES + 1)


async def until(condition: Callable[[], bool]) -> None:
    """Let others go on until something is so."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (there is nothing that would set an event)
            await asyncio.sleep(0)


def answer(turns: Large, body: bytes, end: asyncio.Event, seen: list[str], name: str) -> asyncio.Task[None]:
    async def run() -> None:
        async with turns.answering(body):
            seen.append(name)
            await end.wait()
        seen.append(f"{name} is answered")

    return asyncio.create_task(run())


def test_large_requests_are_answered_one_after_another_and_no_small_one_waits() -> None:
    async def run() -> None:
        turns, end, seen = Large(), asyncio.Event(), list[str]()
        tasks = [
            answer(turns, LARGE, end, seen, "first"),
            answer(turns, b"[" * (NODES + 1) + LARGE, end, seen, "second"),
        ]
        await until(lambda: bool(seen))
        tasks += [answer(turns, body, end, seen, "another") for body in (SMALL, MIDDLING)]
        await until(lambda: len(seen) == 3)
        assert seen == ["first", "another", "another"]
        end.set()
        await asyncio.gather(*tasks)
        assert seen.index("second") > seen.index("first is answered") or seen.index("second") > 2

    asyncio.run(run())


def test_many_objects_make_a_request_large() -> None:
    async def run() -> None:
        turns, end, seen = Large(), asyncio.Event(), list[str]()
        dense = b"{" * (NODES + 1) + SMALL
        tasks = [answer(turns, dense, end, seen, name) for name in ("first", "second")]
        tasks.append(answer(turns, SMALL, end, seen, "small"))
        await until(lambda: len(seen) == 2)
        assert sorted(seen) == ["first", "small"]
        end.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())


def test_in_each_turn_of_the_event_loop_few_of_middling_size_begin_and_small_ones_come_between() -> None:
    async def run() -> None:
        turns, seen = Large(), list[str]()

        def begin(name: str, body: bytes) -> asyncio.Task[None]:
            async def run() -> None:
                async with turns.answering(body):
                    seen.append(name)

            return asyncio.create_task(run())

        each = TURN_BYTES // BYTES
        tasks = [begin("middling", MIDDLING) for _ in range(2 * each + 2)]
        await asyncio.sleep(0)
        assert seen == ["middling"] * each
        tasks[each].cancel()  # while it waits
        tasks.append(begin("small", SMALL))
        await asyncio.gather(*tasks, return_exceptions=True)
        assert seen == ["middling"] * each + ["small"] + ["middling"] * (each + 1)
        assert [task.cancelled() for task in tasks].count(True) == 1
        for _ in range(2):
            await begin("later", MIDDLING)
        assert seen[-2:] == ["later", "later"]

    asyncio.run(run())


def test_few_large_bodies_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        turns, end, inside = Large(), asyncio.Event(), list[int]()

        async def read(number: int) -> None:
            async with turns.reading(BYTES + 1):
                inside.append(number)
                await end.wait()

        tasks = [asyncio.create_task(read(number)) for number in range(READ_AT_ONCE + 1)]
        await until(lambda: len(inside) == READ_AT_ONCE)
        monkeypatch.setattr(large, "WAIT_SECONDS", 0)
        with pytest.raises(Busy):
            await read(READ_AT_ONCE + 1)
        end.set()
        await asyncio.gather(*tasks)
        assert len(inside) == READ_AT_ONCE + 1

    asyncio.run(run())


def test_a_large_request_whose_turn_does_not_come_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "WAIT_SECONDS", 0)

    async def run() -> None:
        turns = Large()
        async with turns.answering(LARGE):
            with pytest.raises(Busy):
                await turns.answering(LARGE).__aenter__()
        async with turns.answering(LARGE):
            pass

    asyncio.run(run())


def test_a_turn_that_fails_is_given_on() -> None:
    async def run() -> None:
        turns = Large()
        for body in (LARGE, MIDDLING, SMALL):
            with pytest.raises(ZeroDivisionError):
                async with turns.answering(body):
                    raise ZeroDivisionError
            async with turns.answering(body):
                pass

    asyncio.run(run())


def test_of_too_many_answers_those_sent_for_longest_are_given_up() -> None:
    async def run() -> None:
        turns, end, given_up = Large(), asyncio.Event(), list[int]()

        async def send(number: int) -> None:
            try:
                async with turns.sending(UNSENT_BYTES // 3):
                    await end.wait()
            except TimeoutError:
                given_up.append(number)

        tasks: list[Awaitable[None]] = [asyncio.create_task(send(number)) for number in range(5)]
        await until(lambda: len(given_up) == 2)
        end.set()
        await asyncio.gather(*tasks)
        assert sorted(given_up) == [0, 1]

    asyncio.run(run())
