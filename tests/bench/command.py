"""Speed of the command line as a user waits for it, the start of Python included: a part of `make bench`."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.page import Table, spread, told

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = (ROOT / "examples" / "02-statefulset.yaml").read_text().split("---\n")[0]
NAME = "counter"
MANY = 1000
ROUNDS = 5


def manifests() -> str:
    """Many StatefulSets as one stream, no two of one name."""
    return "---\n".join(EXAMPLE.replace(NAME, f"{NAME}-{number}") for number in range(MANY))


def seconds(*arguments: str | Path) -> tuple[float, float]:
    """How long one command takes, and how much of that on a processor: the machine may have others to serve."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "injector", *arguments]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, busy


def measured() -> Iterator[Table]:
    """The table."""
    with tempfile.TemporaryDirectory() as folder:
        many = Path(folder) / "many.yaml"
        many.write_text(manifests())
        runs: dict[str, tuple[float, list[str | Path]]] = {
            "`--help`": (0.15, ["--help"]),
            f"`check` of {MANY:,} StatefulSets": (2, ["check", many]),
            f"`inject` of {MANY:,} StatefulSets": (5, ["inject", many]),
        }
        rounds = [
            [seconds(*arguments) for _, arguments in runs.values()] for _ in told(range(ROUNDS), "rounds of commands")
        ]
    rows = []
    for (what, (mark, _)), times in zip(runs.items(), zip(*rounds, strict=True), strict=True):
        whole, busy = zip(*times, strict=True)
        rows.append((what, spread(whole, 2), spread(busy, 2), f"{mark:g}"))
    yield Table(
        "The command line",
        "As a user waits for it, the start of Python included: seconds.",
        ("", "time", "CPU", "at most"),
        rows,
    )
