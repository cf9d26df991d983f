"""`make durability`: plays every scenario, shows how far it is, and ends with the table, also in the README."""

from __future__ import annotations

import re
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.durability import scenarios
from tests.durability.stage import WAYS
from tests.podrunner import missing
from tests.podrunner.s3 import S3

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.durability.stage import Row, Way

README = Path(__file__).resolve().parents[2] / "README.md"
BEGIN, END = "<!-- durability -->", "<!-- /durability -->"
COLUMNS = (
    "scenario", "times", "sidecar", "Litestream", "rows acknowledged", "rows restored", "rows lost",
    "seconds to stop", "seconds to start",
)  # fmt: skip
SCENARIOS: tuple[Callable[[Way, S3], Row], ...] = (
    scenarios.recreation,
    partial(scenarios.dead_node, interval="1s"),
    partial(scenarios.dead_node, interval="200ms"),
    scenarios.several_databases,
    partial(scenarios.other_user, user=65532),
    partial(scenarios.other_user, user=0),
)


def table(measured: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [list(COLUMNS), ["---"] * 2 + ["---"] * 2 + ["---:"] * 5]
    for row in measured:
        lost = f"{row.lost} (at most {max(row.losses)} at once)" if row.lost else "0"
        counts = [str(row.acknowledged), str(row.restored), lost]
        seconds = [f"{row.stop_seconds:.1f}" if row.stop_seconds else "", f"{row.start_seconds:.1f}"]
        lines.append([row.scenario, str(len(row.losses)), *row.way, *counts, *seconds])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def written(text: str, made: str) -> str:
    """The README with this table between its marks; ValueError if they are not there."""
    marks = re.compile(f"({re.escape(BEGIN)}\n).*?(\n*{re.escape(END)})", re.DOTALL)
    if not marks.search(text):
        raise ValueError(f"README.md has no {BEGIN} ... {END}")
    return marks.sub(lambda _: f"{BEGIN}\n\n{made}\n\n{END}", text)


def main() -> int:
    """Measure and write the table; the exit code is 0 unless this machine can't run Pods."""
    if (why := missing()) is not None:
        print(f"this machine can't run Pods: {why}", file=sys.stderr)
        return 1
    measured: list[Row] = []
    began, total = time.monotonic(), len(SCENARIOS) * len(WAYS)
    with S3() as s3:
        for scenario in SCENARIOS:
            for way in WAYS:
                row = scenario(way, s3)
                measured.append(row)
                at = f"{time.monotonic() - began:5.0f} s  {len(measured)}/{total}"
                print(f"{at}  {row.scenario}, {'-'.join(way)}: {row.lost} of {row.acknowledged} lost", flush=True)
    made = table(measured)
    README.write_text(written(README.read_text(), made))
    print(f"\n{made}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
