"""`status`: whether each injected Pod is replicated, and which Pods should be injected and are not."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import msgspec

from injector.command import FOUND, UNREADABLE, health, pods, sidecar
from injector.command.health import Answer, Measure, Problem, Row
from injector.command.kubectl import Kubectl, KubectlError
from injector.command.pods import Injected, Missing
from injector.command.progress import Progress
from injector.errors import escaped
from injector.options import Options
from injector.values import Object

SCHEMA = 1  # of JSON and YAML; it changes when a field goes or means something else, not when one is added
AT_ONCE = 8  # sidecars that are asked at the same time
NAMED = 3  # Pods that are named where one sentence is true of many
RED, GREEN, YELLOW = 31, 32, 33
COLOURS = {"ok": GREEN, "waiting": YELLOW, "unknown": YELLOW, "failing": RED, "missing": RED, "refused": RED}
HEADINGS = ("NAMESPACE", "POD", "DATABASE", "SIZE", "POSITION", "SYNCED", "STATE")
WIDE = (*HEADINGS, "LITESTREAM", "WORKLOAD", "IN REPLICA", "REPLICA")
NOTHING = "-"


def run(
    kubectl: Kubectl,
    chosen: Options,
    *,
    namespace: str | None = None,
    everywhere: bool = False,
    workload: str = "",
    output: str = "text",
    max_age: float = 300,
) -> int:
    """Print the state of each database; the exit code is 1 if something is wrong, and 2 if that could not be asked.

    Args:
        kubectl: of the user.
        chosen: the operator's options, of which the variant and the default image count.
        namespace: that is looked at; None: the one of the user's context.
        everywhere: all namespaces instead.
        workload: NAME or KIND/NAME; empty: all of them.
        output: `text`, `wide`, `json` or `yaml`.
        max_age: seconds that what was written may wait for its upload.

    Raises InvalidOptions where the workload is not written as one.
    """
    measure = Measure(max_age, chosen.default_image, datetime.now(UTC))
    pods.wanted(workload)
    try:
        living = [pod for pod in kubectl.find("pods", namespace=namespace, everywhere=everywhere) if pods.lives(pod)]
    except KubectlError as error:
        print(error, file=sys.stderr)
        return UNREADABLE
    problems: list[Problem] = []
    events: list[Object] = []
    try:
        events = kubectl.find("events", namespace=namespace, everywhere=everywhere, fields="type=Warning")
    except KubectlError as error:
        problems.append(Problem("unknown", f"Pods that are refused are not shown: {error}"))
    mine = pods.chosen(living, workload)
    lacking = [each for pod in mine if (each := pods.missing(pod, chosen.variant)) is not None]
    refused = pods.refused(events, living, workload, chosen.variant)
    rows = [Row(each.namespace, each.kind, each.name, "missing") for each in lacking]
    rows += [Row(each.namespace, each.kind, each.name, "refused") for each in refused]
    problems += [_problem(each) for each in [*lacking, *refused]]
    injected = [
        pods.injected(pod, chosen.variant, measure.now, events) for pod in mine if pods.container(pod) is not None
    ]
    for pod, answer in zip(injected, _answers(kubectl, injected), strict=True):
        databases, wrong = health.judged(pod, answer, measure)
        rows += databases
        problems += wrong
    if not rows:
        place = " in any namespace" if everywhere else f" in namespace {namespace}" if namespace else ""
        text = f"there is no Pod{f' of {workload}' if workload else ''} that asks for injection{place}"
        problems.append(Problem("error" if workload else "warning", text))
    _print(sorted(rows, key=lambda row: (row.namespace, row.name, row.database or "")), problems, output)
    severities = {problem.severity for problem in problems}
    return FOUND if "error" in severities else UNREADABLE if "unknown" in severities else 0


def _problem(missing: Missing) -> Problem:
    return Problem("error", missing.why, missing.namespace, missing.kind, missing.name)


def _answers(kubectl: Kubectl, injected: Sequence[Injected]) -> list[Answer]:
    """What the sidecars say, asked a few at a time."""

    def answer(pod: Injected) -> Answer:
        if not pod.running or pod.way == "none" or not pod.marks.databases:
            return None
        try:
            return sidecar.ask(kubectl, pod.name, pod.namespace, list(pod.marks.databases), pod.way)
        except KubectlError as error:
            return error

    with Progress() as progress, ThreadPoolExecutor(AT_ONCE) as pool:
        futures = [pool.submit(answer, pod) for pod in injected]
        progress.until_done(futures, "Pods")
        return [future.result() for future in futures]


def _print(rows: Sequence[Row], problems: Sequence[Problem], output: str) -> None:
    totals = {
        "pods": len({(row.namespace, row.name) for row in rows if row.database is not None}),
        "databases": sum(row.database is not None for row in rows),
        "missing": sum(row.state in ("missing", "refused") for row in rows),
        "errors": sum(problem.severity == "error" for problem in problems),
        "warnings": sum(problem.severity == "warning" for problem in problems),
        "unknown": sum(problem.severity == "unknown" for problem in problems),
    }
    if output in ("json", "yaml"):
        whole = {"version": SCHEMA, "databases": rows, "problems": problems, "totals": totals}
        _print_document(msgspec.to_builtins(whole), output)
        return
    colours = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
    for line in _table(rows, wide=output == "wide", colours=colours) if rows else []:
        print(line)
    if rows and problems:
        print()
    for line in _sentences(problems):
        print(line)
    sys.stdout.flush()
    counts = ", ".join(_counted(totals[f"{noun}s"], noun) for noun in ("pod", "database")).replace("pod", "Pod")
    lacking = f", {totals['missing']} without Litestream" if totals["missing"] else ""
    unasked = f", {totals['unknown']} not asked" if totals["unknown"] else ""
    wrong = ", ".join(_counted(totals[f"{noun}s"], noun) for noun in ("error", "warning"))
    print(f"{counts}{lacking}: {wrong}{unasked}", file=sys.stderr)


def _print_document(whole: Any, output: str) -> None:  # noqa: ANN401 (what becomes JSON)
    if output == "json":
        print(json.dumps(whole, indent=2))
        return
    import yaml

    print(yaml.safe_dump(whole, sort_keys=False), end="")


def _table(rows: Sequence[Row], *, wide: bool, colours: bool) -> Iterable[str]:
    """The rows below their headings, each column as wide as its longest text."""
    headings = WIDE if wide else HEADINGS
    cells = [headings, *(tuple(map(escaped, _cells(row)[: len(headings)])) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    at = HEADINGS.index("STATE")
    for number, line in enumerate(cells):
        padded = [text.ljust(width) for text, width in zip(line, widths, strict=True)]
        if colours and number:
            padded[at] = f"\x1b[{COLOURS[line[at]]}m{padded[at]}\x1b[0m"
        yield "  ".join(padded).rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.namespace,
        row.name if row.kind == "Pod" else f"{row.kind}/{row.name}",
        row.database or NOTHING,
        NOTHING if row.size is None else _size(row.size),
        row.position or NOTHING,
        NOTHING if row.database is None else health.ago(row.age_seconds) if row.litestream else NOTHING,
        row.state,
        row.litestream or NOTHING,
        row.workload or NOTHING,
        row.replica_position or NOTHING,
        (row.replica or NOTHING) + (f" at {row.endpoint}" if row.endpoint else ""),
    )


def _size(amount: float) -> str:
    """An amount of bytes in a unit that people read."""
    unit, *larger = "B", "KiB", "MiB", "GiB", "TiB"
    while amount >= 1024 and larger:
        unit, *larger = larger
        amount /= 1024
    return f"{amount:.1f} {unit}" if amount < 10 and unit != "B" else f"{amount:.0f} {unit}"


def _sentences(problems: Sequence[Problem]) -> Iterable[str]:
    """Errors first; one sentence for all that it is true of."""
    alike: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        place = [] if problem.name is None else [f"{problem.kind} {problem.namespace}/{problem.name}"]
        database = "" if problem.database is None else f"{problem.database}: "
        alike.setdefault((problem.severity, f"{database}{problem.message}"), []).extend(place)
    for severity in ("error", "unknown", "warning"):
        for (its, message), places in alike.items():
            if its == severity:
                more = f" and {len(places) - NAMED} more" if len(places) > NAMED else ""
                about = f"{', '.join(places[:NAMED])}{more}: " if places else ""
                yield escaped(f"{severity}: {about}{message}")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
