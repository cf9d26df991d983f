"""Whether a Pod's databases are in their replicas, as its sidecar and the API server say: states and sentences."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

from injector.command import sidecar
from injector.command.kubectl import KubectlError, NotFound
from injector.command.pods import Injected
from injector.command.sidecar import Database, Report

PROMPT = 15.0  # seconds after a sync in which newer rows are no news
SURELY = 2.0  # seconds after which a sync has certainly seen a transaction
Severity = Literal["error", "warning", "unknown"]
State = Literal["ok", "waiting", "failing", "unknown", "missing", "refused"]
Answer = Report | KubectlError | None  # None: the sidecar can't be asked


class Problem(msgspec.Struct, frozen=True):
    """What is wrong, may be, or could not be asked: one sentence about a Pod, an owner of Pods, or one database."""

    severity: Severity
    message: str
    namespace: str | None = None
    kind: str | None = None
    name: str | None = None
    database: str | None = None


class Row(msgspec.Struct, frozen=True, rename="camel"):
    """One database of a Pod. `database` is None where a Pod has no Litestream, or is not even made."""

    namespace: str
    kind: str
    name: str
    state: State
    workload: str | None = None
    phase: str | None = None
    database: str | None = None
    replica: str | None = None
    endpoint: str | None = None
    size: int | None = None
    position: str | None = None
    replica_position: str | None = None
    last_sync: datetime | None = None
    age_seconds: float | None = None
    image: str | None = None
    litestream: str | None = None


class Measure(NamedTuple):
    """What is measured against: seconds that rows may wait for their upload, the default image, and the moment."""

    max_age: float
    image: str
    now: datetime


def judged(pod: Injected, answer: Answer, measure: Measure) -> tuple[list[Row], list[Problem]]:
    """A row for each database of a Pod, and what is wrong with it."""

    def problem(severity: Severity, message: str, database: str | None = None) -> Problem:
        return Problem(severity, message, pod.namespace, "Pod", pod.name, database)

    problems = [problem("error", each) for each in pod.hindrances] + [problem("warning", each) for each in pod.troubles]
    state: State = "failing" if pod.hindrances else "waiting"
    report = Report(None, [], [Database(each) for each in pod.marks.databases])
    if isinstance(answer, Report):
        report = answer
    else:
        problems += [problem("warning", each) for each in pod.events]
    if isinstance(answer, NotFound):
        problems.append(problem("warning", "has gone while it was asked"))
    elif isinstance(answer, KubectlError):
        state = "unknown"
        problems.append(problem("unknown", str(answer)))
    elif pod.running and pod.way == "none":
        state = "unknown"
        problems.append(problem("warning", "its Litestream says nothing of its state, as releases before 0.5.8 don't"))
    version = report.version or release(pod.image)
    default = release(measure.image)
    if version and default and _numbers(version) < _numbers(default):
        problems.append(problem("warning", f"runs Litestream {version}, which is older than the default {default}"))
    problems += [problem("error", each) for each in report.wrong]
    rows = []
    for database in report.databases:
        mine = state
        if isinstance(answer, Report):
            mine, why = _database(database, pod, measure)
            if why:
                problems.append(problem("error" if mine == "failing" else "warning", why, database.path))
            if any(database.path in each or "does not answer" in each for each in report.wrong):
                mine = "failing"
        rows.append(_row(pod, database, mine, version))
    return rows, problems


def _database(database: Database, pod: Injected, measure: Measure) -> tuple[State, str]:
    """The state of a database whose sidecar has answered, and what is to be said of it."""
    place = pod.marks.endpoint or ("" if "://" in pod.marks.bucket else "AWS")
    bucket = f"bucket {pod.marks.bucket}{f' at {place}' if place else ''}"
    begun = float("inf") if pod.since is None else (measure.now - pod.since).total_seconds()
    late = (begun if database.age is None else database.age) > measure.max_age
    since = f"its last sync was {ago(database.age)}"
    waiting: tuple[State, str] = ("waiting", "")
    if database.bucket == sidecar.SILENT:
        return "failing", f"{bucket} does not answer; {since}"
    if database.bucket:
        return "failing", f"its replica in {bucket} can't be read: {database.bucket}"
    if pod.way == "binary":
        return ("failing", since) if late else ("ok", "") if database.age is not None else waiting
    if database.size is None:
        return "waiting", "is not there: its application has not made it yet, or elsewhere"
    if database.position is None:
        return ("failing", "Litestream has not opened it: see its log") if late else waiting
    if database.replica_position == database.position:
        return "ok", ""
    if (database.replica_position or "") > database.position:
        return "failing", "its replica is ahead of it: another Pod writes there, or an older database was put in place"
    if database.synced and database.written and database.synced.timestamp() > database.written + SURELY:
        return "failing", f"its replica in {bucket} lacks what Litestream has put there: were files deleted?"
    if late:
        return "failing", f"has rows that are not in its replica; {since}"
    return waiting if database.age is None or database.age > PROMPT else ("ok", "")


def release(image: str) -> str | None:
    """The release of Litestream that an image's tag names: `0.5.17`."""
    found = re.search(r":v?([0-9]{1,4}(\.[0-9]{1,4}){1,2})(-scratch)?(@|$)", image)
    return found[1] if found else None


def ago(seconds: float | None) -> str:
    """`3s ago`, `5m ago`, `never`."""
    return "never" if seconds is None else f"{short(seconds)} ago"


def short(seconds: float) -> str:
    """Seconds as people say them, in one unit: `90s`, `5m`, `30h`, `4d`."""
    for unit, size, most in (("s", 1, 120), ("m", 60, 7200), ("h", 3600, 172800)):
        if seconds < most:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds // 86400)}d"


def _numbers(version: str) -> list[int]:
    return [int(each) for each in re.findall(r"\d+", version)]


def _row(pod: Injected, database: Database, state: State, version: str | None) -> Row:
    marks = pod.marks
    return Row(
        namespace=pod.namespace,
        kind="Pod",
        name=pod.name,
        state=state,
        workload=pod.workload,
        phase=pod.phase,
        database=database.path,
        replica=marks.url(database.path),
        endpoint=marks.endpoint,
        size=database.size,
        position=database.position,
        replica_position=database.replica_position,
        last_sync=database.synced,
        age_seconds=None if database.age is None else round(database.age, 1),
        image=pod.image,
        litestream=version,
    )
