"""Large requests, which need much memory or time: few are read at a time, and they are answered one after another.

Their answers, which a client may never read, share a bounded memory. How soon a Pod is answered does not depend on
them: nearly all Pods are a hundred times smaller.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from injector.admission import review

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

SMALL_BYTES: Final = 16 * 1024
SMALL_NODES: Final = 1_000  # objects and lists
BYTES: Final = 128 * 1024
NODES: Final = 2_000
MIDDLING_AT_ONCE: Final = 32
TURN_BYTES: Final = 4 * BYTES  # begin in one turn of the event loop: some milliseconds
READ_AT_ONCE: Final = 4
UNSENT_BYTES: Final = 24 * 2**20  # of large answers
WAIT_SECONDS: Final = 8.0  # for one's turn: the API server waits 10 for an answer
SMALL: Final = contextlib.nullcontext()  # what takes no turns


class Busy(Exception):
    """Others took too long."""


class Large:
    """The large requests of one server."""

    def __init__(self) -> None:
        self._reading = asyncio.Semaphore(READ_AT_ONCE)
        self._answering = asyncio.Lock()
        self._middling = asyncio.Semaphore(MIDDLING_AT_ONCE)
        self._turns = _Turns()
        self._sending: dict[asyncio.Timeout, int] = {}  # the oldest first

    def reading(self, length: int) -> AbstractAsyncContextManager[None]:
        """While a body of so many bytes is read and answered: of those above BYTES few are at a time.

        Raises:
            Busy: on entering, if there was no room within WAIT_SECONDS.
        """
        return _held(self._reading) if length > BYTES else SMALL

    def answering(self, body: bytes) -> AbstractAsyncContextManager[None]:
        """While a request is decoded and answered.

        Small ones don't wait. Of those in between few are in memory, and in each turn of the event loop TURN_BYTES of
        them begin, so that small ones come between them. After a large one, others have the processor to themselves for
        as long as it took.

        Raises:
            Busy: on entering, if its turn did not come within WAIT_SECONDS.
        """
        count = review.nodes(body)
        if len(body) <= SMALL_BYTES and count <= SMALL_NODES:
            return SMALL
        return self._middling_one(len(body)) if len(body) <= BYTES and count <= NODES else self._large_one()

    @contextlib.asynccontextmanager
    async def _middling_one(self, size: int) -> AsyncIterator[None]:
        async with _held(self._middling):
            await self._turns.take(size)
            yield

    @contextlib.asynccontextmanager
    async def _large_one(self) -> AsyncIterator[None]:
        async with _held(self._answering):
            start = time.process_time()
            yield
            await asyncio.sleep(time.process_time() - start)

    @contextlib.asynccontextmanager
    async def sending(self, count: int) -> AsyncIterator[None]:
        """While an answer of so many bytes is sent; where all together are too many, the oldest are given up.

        Raises:
            TimeoutError: in the one that is given up.
        """
        async with asyncio.timeout(None) as mine:
            self._sending[mine] = count
            try:
                total = sum(self._sending.values())
                for other in list(self._sending):
                    if total <= UNSENT_BYTES:
                        break
                    other.reschedule(0)
                    total -= self._sending.pop(other)
                yield
            finally:
                self._sending.pop(mine, None)


class _Turns:
    """Turns of the event loop, in each of which TURN_BYTES of requests begin, in the order in which they came.

    One a turn would cost a tenth more: clients have to be woken for each answer then.
    """

    def __init__(self) -> None:
        self._left = TURN_BYTES
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size: int) -> None:
        """Wait for a turn with so many bytes left."""
        loop = asyncio.get_running_loop()
        if self._left == TURN_BYTES:
            loop.call_soon(self._next, loop)
        if size <= self._left and not self._waiting:
            self._left -= size
            return
        self._waiting.append((size, loop.create_future()))
        await self._waiting[-1][1]

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._left = TURN_BYTES
        while self._waiting and self._waiting[0][0] <= self._left:
            size, begin = self._waiting.popleft()
            if not begin.done():  # done are those that were cancelled
                self._left -= size
                begin.set_result(None)
        if self._left < TURN_BYTES:
            loop.call_soon(self._next, loop)


@contextlib.asynccontextmanager
async def _held(lock: asyncio.Lock | asyncio.Semaphore) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await lock.acquire()
    except TimeoutError:
        raise Busy from None
    try:
        yield
    finally:
        lock.release()
