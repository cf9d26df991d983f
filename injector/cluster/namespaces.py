"""The annotations of Namespaces, asked for as metadata alone, and kept for some seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from injector.annotations.settings import ours
from injector.cluster.client import ClusterError
from injector.values import Object

KEPT = 5.0  # seconds
MOST_KEPT = 1000
PATIENCE = 1.5  # seconds for an answer: with the guard's it stays within the API server's own for ours


class Api(Protocol):
    """The one call that is made. Raises ClusterError."""

    async def get_namespace(self, name: str) -> Object | None:
        """The Namespace's metadata; None where there is none."""


class _Kept(NamedTuple):
    annotations: Mapping[str, Any]
    until: float


class Namespaces:
    """Asks the API for each Namespace once in KEPT seconds, however many Pods want to know.

    Args:
        api: the cluster's.
        group: of the annotations.
        now: seconds, of a clock that only goes on.
    """

    def __init__(self, api: Api, group: str, now: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._group = group
        self._now = now
        self._kept: dict[str, _Kept] = {}
        self._asking: dict[str, asyncio.Task[Mapping[str, Any]]] = {}

    async def annotations(self, name: str) -> Mapping[str, Any]:
        """Our annotations of a Namespace, by their key below the group. Raises ClusterError."""
        kept = self._kept.get(name)
        if kept is not None and self._now() < kept.until:
            return kept.annotations
        asking = self._asking.get(name)
        if asking is None:
            asking = self._asking[name] = asyncio.create_task(self._ask(name))
            asking.add_done_callback(lambda done: self._end(name, done))
        return await asyncio.shield(asking)

    def _end(self, name: str, done: asyncio.Task[Mapping[str, Any]]) -> None:
        del self._asking[name]
        if not done.cancelled():
            done.exception()  # those who asked have it, unless all of them have left

    async def _ask(self, name: str) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(PATIENCE):
                found = await self._api.get_namespace(name)
        except TimeoutError:
            raise ClusterError(f"the Kubernetes API did not answer within {PATIENCE:g} s") from None
        annotations = ours((found or {}).get("metadata"), self._group)
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[name] = _Kept(annotations, self._now() + KEPT)
        return annotations
