"""Numbers as they are printed and written: a table's cells, and the page that holds the tables."""

from __future__ import annotations

import os
import platform
import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from injector import __version__

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
Item = TypeVar("Item")


class Table(NamedTuple):
    """What one part has measured; the first column says what, the others hold numbers."""

    title: str
    note: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        lines = [self.head, ["---", *["---:"] * (len(self.head) - 1)], *self.rows]
        drawn = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return f"### {self.title}\n\n{self.note}\n\n{drawn}"


def spread(numbers: Sequence[float], digits: int = 0) -> str:
    """The median, and from where to where the rounds went."""
    least, most = min(numbers), max(numbers)
    return f"{statistics.median(numbers):,.{digits}f} ({least:,.{digits}f} to {most:,.{digits}f})"


def percentile(numbers: Sequence[float], share: float) -> float:
    """The least number that so many of 100 don't exceed."""
    ordered = sorted(numbers)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))]


def machine() -> str:
    """What was measured on, without a name that anyone gave it."""
    model = re.search(r"^model name\s*: (.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    memory = re.search(r"^MemTotal: *(\d+) kB$", _read("/proc/meminfo"), re.MULTILINE)
    parts = [
        f"{len(os.sched_getaffinity(0))} cores",
        *([" ".join(model[1].split())] if model else [platform.machine()]),
        *([f"{int(memory[1]) / 2**20:.0f} GiB"] if memory else []),
        f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        f"Python {platform.python_version()}",
        f"litestream-hook {__version__}",
    ]
    return ", ".join(parts)


def written(text: str, made: str) -> str:
    """The page with this between its marks; ValueError if they are not there."""
    before, begin, rest = text.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} has no {BEGIN} ... {END}")
    return f"{before}{begin}\n{made}\n\n{end}{after}"


def told(items: Sequence[Item], what: str) -> Iterator[Item]:
    """The items one after the other, with a word on how far it is: on a terminal in one line that goes away."""
    terminal = sys.stderr.isatty()
    for number, item in enumerate(items, 1):
        if terminal or number == 1:
            text = f"{what}, {number} of {len(items)}" if terminal else f"{what} ({len(items)})\n"
            sys.stderr.write(f"\r\x1b[K{text}" if terminal else text)
            sys.stderr.flush()
        yield item
    if terminal:
        sys.stderr.write("\r\x1b[K")


def _read(file: str) -> str:
    try:
        return Path(file).read_text()
    except OSError:
        return ""
