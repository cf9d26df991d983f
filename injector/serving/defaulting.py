"""What holds in a namespace at this moment: the operator's file, taken anew when it changes, and the Namespace."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from injector.annotations import operator_file
from injector.annotations.defaults import Defaults
from injector.annotations.operator_file import InvalidDefaults
from injector.cluster.client import ClusterError
from injector.options import Options
from injector.pod.claim import Refusal

logger = logging.getLogger(__name__)

POLL = 10.0  # seconds between looks at the file


class Namespaces(Protocol):
    """Whoever knows the annotations of Namespaces."""

    async def annotations(self, name: str) -> Mapping[str, Any]:
        """Our annotations of a Namespace, by their key below the group. Raises ClusterError."""


class Defaulting:
    """The operator's file as it was last sound, and the Namespaces' annotations.

    Args:
        options: with the file's path, and what becomes of a Pod when the API can't be asked (GUARD_ON_ERROR).
        namespaces: knows their annotations; None where they do not count.
        observe: is told at each change of the file whether it could be used.

    Raises:
        InvalidDefaults: where there is a file, and it can't be used: there is no last sound one to go on with.
    """

    def __init__(
        self,
        options: Options,
        namespaces: Namespaces | None = None,
        observe: Callable[[bool], None] = lambda _sound: None,
    ) -> None:
        self._options = options
        self._namespaces = namespaces
        self._observe = observe
        self._seen = self._content()
        self._file = operator_file.load(options.defaults_file, options)

    async def of(self, namespace: str) -> Defaults | Refusal:
        """What holds in a namespace, or why that can't be determined; never raises for the API's faults."""
        if self._namespaces is None:
            return self._file.of(namespace)
        try:
            return self._file.of(namespace, await self._namespaces.annotations(namespace))
        except ClusterError as error:
            why = f"the webhook can't determine the defaults that Namespace {namespace} has for its Pods: {error}"
        if self._options.guard_on_error == "allow":
            logger.warning("%s: they are left out", why)
            return self._file.of(namespace)
        return Refusal(
            f"{why}. The Pod's controller tries again; GUARD_ON_ERROR=allow of the webhook leaves them out, at the "
            "risk that a Pod starts with another replica than it has."
        )

    async def run(self) -> None:
        """Look at the file now and then, until cancelled. A broken one is logged, and the last sound one goes on."""
        while True:
            await asyncio.sleep(POLL)
            self.look()

    def look(self) -> None:
        """Take the file anew if it is another than at the last look."""
        content = self._content()
        if content == self._seen:
            return
        self._seen = content
        try:
            self._file = operator_file.load(self._options.defaults_file, self._options)
        except InvalidDefaults as invalid:
            why = "the operator's file has changed and can't be used, what it said before goes on: %s"
            logger.error(why, invalid)  # noqa: TRY400 (the operator's mistake, not ours)
            self._observe(False)
        else:
            logger.info("the operator's file has changed: it holds from now on")
            self._observe(True)

    def _content(self) -> bytes | None:
        try:
            return Path(self._options.defaults_file).read_bytes() if self._options.defaults_file else None
        except OSError:
            return None
