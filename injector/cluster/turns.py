"""Turns of those who ask at once: each namespace has as many as another, however many of its Pods wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator


class Crowded(Exception):
    """Too many wait, and most of them are of the same namespace."""


class Turns:
    """Lets a few in at a time, one of each namespace after the other.

    Args:
        at_once: how many are inside.
        waiting: how many wait before some are sent away: the last of the namespace of which most wait.
    """

    def __init__(self, at_once: int, waiting: int) -> None:
        self._free = at_once
        self._most = waiting
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}  # never empty; the one whose turn it is stands first

    @contextlib.asynccontextmanager
    async def of(self, namespace: str) -> AsyncIterator[None]:
        """While one of a namespace is inside.

        Raises:
            Crowded: if it is sent away.
        """
        if self._free:
            self._free -= 1
        else:
            await self._wait(namespace)
        try:
            yield
        finally:
            self._next()

    async def _wait(self, namespace: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(namespace, deque()).append(turn)
        if sum(map(len, self._queues.values())) > self._most:
            longest = max(self._queues, key=lambda name: len(self._queues[name]))
            last = self._queues[longest][-1]
            self._leave(longest, last)
            last.set_exception(Crowded())
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(namespace, turn)
            elif turn.exception() is None:  # it came at the same moment
                self._next()
            raise

    def _leave(self, namespace: str, turn: asyncio.Future[None]) -> None:
        queue = self._queues.get(namespace, deque())
        with contextlib.suppress(ValueError):  # passed over already
            queue.remove(turn)
        if not queue:
            self._queues.pop(namespace, None)

    def _next(self) -> None:
        """The first of the namespace whose turn it is goes in, and the namespace to the end of the line."""
        while self._queues:
            namespace = next(iter(self._queues))
            queue = self._queues.pop(namespace)
            turn = queue.popleft()
            if queue:
                self._queues[namespace] = queue
            if not turn.done():  # else its owner is leaving
                turn.set_result(None)
                return
        self._free += 1
