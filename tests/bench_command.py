"""Speed of the command line as a user waits for it, the start of Python included: a part of `make bench`."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
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


def main() -> None:
    """Print the table."""
    print(f"\nthe command line, the start of Python included; medians of {ROUNDS} interleaved rounds\n")
    print(f"{'':<30} {'time':>8} {'CPU':>8} {'from':>8} {'to':>8} {'mark':>8}")
    with tempfile.TemporaryDirectory() as folder:
        many = Path(folder) / "many.yaml"
        many.write_text(manifests())
        runs: dict[str, tuple[float, list[str | Path]]] = {
            "--help": (0.15, ["--help"]),
            f"check of {MANY} StatefulSets": (2, ["check", many]),
            f"inject of {MANY} StatefulSets": (5, ["inject", many]),
        }
        rounds = [[seconds(*arguments) for _, arguments in runs.values()] for _ in range(ROUNDS)]
    for (what, (mark, _)), times in zip(runs.items(), zip(*rounds, strict=True), strict=True):
        whole, busy = zip(*times, strict=True)
        numbers = (statistics.median(whole), statistics.median(busy), min(busy), max(busy), mark)
        print(f"{what:<30}" + "".join(f"{number:>7.2f} s" for number in numbers))


if __name__ == "__main__":
    main()
