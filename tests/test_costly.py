"""No request costs more than its share: lines of code that each costly shape takes are counted; no clock is read."""

from __future__ import annotations

import asyncio
import sys
from types import FrameType
from typing import Any

import pytest

from injector.admission import webhook
from injector.pod.claim import Claim
from injector.pod.inject import Injection
from tests import costly, reviews

SIZE = 3 * 2**20  # the API server takes no larger object
MOST_LINES = 2_000_000  # some 0.3 s of CPU; the largest sane Pods take a few thousand


class Guard:
    """A stand-in that gives every Pod a claim to all of its replicas, as the largest claim costs most."""

    async def ask(self, injection: Injection, *, dry_run: bool) -> Claim:  # noqa: ARG002
        return Claim("web", "0" * 16, tuple(f"replica-{number:064}" for number, _ in enumerate(injection.replicas)))


def lines(body: bytes) -> int:
    """How many lines of Python are run to answer a request."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    loop, before = asyncio.new_event_loop(), sys.gettrace()
    answering = loop.create_task(webhook.answer("POST", "/mutate", body, reviews.DEFAULTS, Guard()))
    sys.settrace(trace)
    try:
        answer = loop.run_until_complete(answering)
    finally:
        sys.settrace(before)
        loop.close()
    assert answer.status in {200, 400}
    assert len(answer.body) < 8 * SIZE, "a small request has a large answer"
    return count


@pytest.mark.parametrize("name", costly.SHAPES)
def test_twice_as_large_costs_twice_as_much(name: str) -> None:
    shape = costly.SHAPES[name]
    number = min(shape.most or 400, 400) // 2
    once, twice = (lines(costly.body(shape, count)) for count in (number, 2 * number))
    assert twice < 2.3 * once + 2000


@pytest.mark.slow
@pytest.mark.parametrize("name", costly.SHAPES)
def test_the_largest_of_a_shape_has_a_bounded_cost(name: str) -> None:
    assert lines(costly.sized(costly.SHAPES[name], SIZE)) < MOST_LINES
