"""The table of what was measured, in docs/durability.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.durability.stage import Row

PAGE = Path(__file__).resolve().parents[2] / "docs/durability.md"
BEGIN, END = "<!-- durability -->", "<!-- /durability -->"
COLUMNS = (
    "scenario", "times", "sidecar", "Litestream", "rows acknowledged", "rows restored", "rows lost",
    "seconds to stop", "seconds to start", "MiB of Litestream",
)  # fmt: skip


def table(measured: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [list(COLUMNS), ["---"] * 4 + ["---:"] * 6]
    for row in measured:
        lost = str(row.lost)
        if row.lost and len(row.losses) > 1:
            lost += f" ({row.lost / len(row.losses):.0f} at a time, at most {max(row.losses)})"
        counts = [str(row.acknowledged), str(row.restored), lost]
        seconds = [f"{row.stop_seconds:.1f}" if row.stop_seconds else "", f"{row.start_seconds:.1f}"]
        lines.append([row.scenario, str(len(row.losses)), *row.way, *counts, *seconds, f"{row.mebibytes:.0f}"])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def written(text: str, made: str) -> str:
    """The page with this table between its marks; ValueError if they are not there."""
    marks = re.compile(f"({re.escape(BEGIN)}\n).*?(\n*{re.escape(END)})", re.DOTALL)
    if not marks.search(text):
        raise ValueError(f"{PAGE.name} has no {BEGIN} ... {END}")
    return marks.sub(lambda _: f"{BEGIN}\n\n{made}\n\n{END}", text)
