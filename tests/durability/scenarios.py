"""The scenarios: each plays on a stage of its own and returns what it measured."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.durability.stage import Row, Stage, Way, end, write
from tests.podrunner.writer import acknowledged

if TYPE_CHECKING:
    from tests.podrunner.s3 import S3

FULL = os.environ.get("DURABILITY") == "full"


def recreation(way: Way, s3: S3) -> Row:
    """Deletes the Pod while it writes, and makes it again on empty volumes."""
    row = Row("deleted and made again on empty volumes, writing 100 rows/s until 2 s after SIGTERM", way)
    with Stage(way, s3=s3) as stage:
        promised: list[int] = []
        for life in range(10 if FULL else 2):
            run = stage.start()
            first = write(run, row, 100)
            if life:
                row.count(promised, range(1, first + 1))
            promised = [number for number in end(run, row) if number > first]
        row.count(promised, _unbroken(stage.restored(row)))
    return row


def dead_node(way: Way, s3: S3, interval: str = "1s") -> Row:
    """Kills every process of the Pod at once, and makes it again on empty volumes."""
    row = Row(f"the node dies, sync-interval {interval}", way)
    annotations = {"sync-interval": interval}
    with Stage(way, s3=s3) as stage:
        promised: list[int] = []
        for life in range(20 if FULL else 2):
            run = stage.start(annotations=annotations)
            first = write(run, row, 150 + 13 * life)  # at another moment of the interval each time
            if life:
                row.count(promised, range(1, first + 1))
            run.kill_node()
            promised = [number for number in acknowledged(run.logs("app")) if number > first]
        row.count(promised, _unbroken(stage.restored(row, annotations=annotations)))
    return row


def several_databases(way: Way, s3: S3) -> Row:
    """Deletes a Pod with two databases in one directory and one in another, and makes it again on empty volumes."""
    row = Row("three databases in two directories, deleted while writing", way)
    databases = ("/data/a.db", "/data/b.db", "/srv/c.db")
    with Stage(way, s3=s3) as stage:
        run = stage.start(databases=databases)
        write(run, row, 100)
        row.count(end(run, row), stage.restored(row, databases=databases))
    return row


def other_user(way: Way, s3: S3, user: int) -> Row:
    """Deletes a Pod whose application runs as `user`, and makes it again on empty volumes."""
    row = Row(f"the application is uid {user}, deleted while writing", way)
    spec = {"securityContext": {"runAsUser": user, "runAsGroup": user}}
    with Stage(way, s3=s3) as stage:
        run = stage.start(spec=spec)
        write(run, row, 100)
        row.count(end(run, row), stage.restored(row, spec=spec))
    return row


def _unbroken(found: set[int]) -> set[int]:
    """The rows, which must have no hole: only then does the last one stand for all those before it."""
    if found != set(range(1, len(found) + 1)):
        raise AssertionError(f"rows are missing in the middle: {sorted(found)}")
    return found
