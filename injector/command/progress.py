"""How far a long command is, in one line of a terminal that is gone when it is done."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from types import TracebackType
from typing import Any, Self, TypeVar

from injector.errors import cut

PATIENCE = 2.0  # seconds that need no word
PAUSE = 0.1  # seconds between two words
_CLEAR = "\r\x1b[K"
_USUAL_COLUMNS = 80
Item = TypeVar("Item")


class Progress:
    """Says on standard error how many of a command's items are done, if that is a terminal and the wait gets long."""

    def __init__(self) -> None:
        self._shows = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._next = time.monotonic() + PATIENCE
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._say(_CLEAR)

    def each(self, items: Sequence[Item], noun: str) -> Iterator[Item]:
        """The items, one after the other.

        Args:
            items: all of them.
            noun: what they are, more than one of them.
        """
        for done, item in enumerate(items):
            self._tell(done, len(items), noun)
            yield item

    def until_done(self, futures: Collection[Future[Any]], noun: str) -> None:
        """Wait for work that other threads do.

        Args:
            futures: all of it.
            noun: what is done, more than one of them.
        """
        left: Collection[Future[Any]] = futures
        while left:
            self._tell(len(futures) - len(left), len(futures), noun)
            left = wait(left, timeout=PAUSE, return_when=FIRST_COMPLETED).not_done

    def show(self, text: str) -> None:
        """What is going on, in a few words, in place of the words before."""
        if self._shows and time.monotonic() >= self._next:
            self._next = time.monotonic() + PAUSE
            self._shown = True
            self._say(f"{_CLEAR}{cut(text, max(1, _columns() - 1))}")

    def _tell(self, done: int, all_of_them: int, noun: str) -> None:
        self.show(f"{done} of {all_of_them} {noun}")

    @staticmethod
    def _say(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def _columns() -> int:
    """How wide the terminal is: of a line that wraps only the end could be taken back."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL_COLUMNS
    except OSError:
        return _USUAL_COLUMNS
