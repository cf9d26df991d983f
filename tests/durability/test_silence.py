"""What can't be replicated is an event of the Pod, with a sentence that says what to write instead; the Pod goes on."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

from injector.pod.containers import REPLICATE
from tests.durability.stage import (
    APPLICATION,
    DATABASE,
    FULL,
    NATIVE_05,
    SCENARIO,
    Row,
    Stage,
    Way,
    end,
    rows,
    started,
)
from tests.durability.stage import file as database_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.podrunner import Run
    from tests.podrunner.s3 import S3

pytestmark = SCENARIO
TOLD_SECONDS = 120 if FULL else 60
GOOD = "/data/good.db"
MAKE = """
import os, sqlite3, sys, time
path, mode = sys.argv[1:]
if mode == "barred":
    open(os.path.join(os.path.dirname(path), ".app.db-litestream"), "w").close()
if mode == "dropped":
    os.chown(os.path.dirname(path), 1234, 1234)
    os.setgid(1234)
    os.setuid(1234)
database = sqlite3.connect(path, isolation_level=None)
if mode == "exclusive":
    database.execute("PRAGMA locking_mode=EXCLUSIVE")
database.execute("PRAGMA journal_mode=wal")
database.execute("CREATE TABLE entry (number INTEGER PRIMARY KEY)")
for number in range(1, 11):
    database.execute("INSERT INTO entry VALUES (?)", (number,))
print("made", flush=True)
if mode != "brief":
    time.sleep(1000)
"""


class Fault(NamedTuple):
    """What the application makes where its database should be, and what is said of that."""

    made: str
    path: str
    said: str
    uid: int | None = None


FAULTS = [
    Fault("dropped", DATABASE, '/data/app.db belongs to uid 1234, Litestream runs as 0: write run-as-user: "1234"', 0),
    Fault("brief", "/data/typo.db", "/data/app.db is missing, but /data/typo.db is there: if that is the database"),
    Fault("garbage", DATABASE, "/data/app.db is encrypted or no SQLite database"),
    Fault("exclusive", DATABASE, "/data/app.db is locked by its application: take out locking_mode=EXCLUSIVE"),
    # It is told after a minute only, as Litestream may still be about to open it.
    *([Fault("barred", DATABASE, "/data/app.db is not opened by Litestream: its log says why")] if FULL else []),
]


def make(run: Run, path: str, how: str) -> None:
    """Let the application make a file in the background."""
    python = 'python3 -c "$0" "$1" "$2" > /tmp/made 2>&1 & until grep -q made /tmp/made; do sleep 0.1; done'
    garbage = 'head -c 9000 /dev/urandom > "$1"'
    script = garbage if how == "garbage" else python
    done = run.exec(APPLICATION, ["sh", "-c", script, MAKE, path, how])
    assert done.exit_code == 0, done.text


def test_what_can_t_be_replicated_is_said_and_holds_up_nothing(s3: S3, measure: Callable[[str, Way], Row]) -> None:
    row = measure(f"beside a database that can't be replicated, for {len(FAULTS)} reasons", NATIVE_05)
    with contextlib.ExitStack() as stages:
        played: list[tuple[Fault, Stage, Run]] = []
        for fault in FAULTS:  # at the same time, as each takes most of a minute
            healthy = () if fault.uid == 0 else (GOOD,)
            stage = stages.enter_context(Stage(NATIVE_05, s3, databases=(DATABASE, *healthy)))
            spec: dict[str, Any] = {} if fault.uid is None else {"securityContext": {"runAsUser": fault.uid}}
            run = stage.start(writes=False, spec=spec)
            started(run, row)
            run.wait_log(APPLICATION, "idle")
            make(run, fault.path, fault.made)
            if healthy:
                make(run, GOOD, "brief")
            played.append((fault, stage, run))
        for fault, stage, run in played:
            run.wait_event(
                REPLICATE,
                f"readinessProbe failed (1 of 1000000): exit code 1: litestream-hook: {fault.said}",
                TOLD_SECONDS,
            )
            assert fault.said in run.logs(REPLICATE)
            run.wait_ready(1)  # the Pod stays in its Service
            assert run.containers[REPLICATE].lives == 1
            end(run, row)
            if GOOD in stage.databases:
                stage.databases = (GOOD,)
                again = stage.start(writes=False)
                started(again, row)
                again.wait_log(APPLICATION, "idle")  # before that a shell ignores SIGTERM
                row.count(range(1, 11), rows(database_file(again, GOOD)))
                end(again, row)
    assert row.lost == 0, row
