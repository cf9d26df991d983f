"""A node that dies takes with it what `sync-interval` allows, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.durability.stage import (
    FULL,
    NATIVE_03,
    NATIVE_05,
    Row,
    Stage,
    Way,
    began,
    committed,
    die,
    end,
    started,
    unbroken,
    ways,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.podrunner.s3 import S3

pytestmark = [pytest.mark.slow, pytest.mark.containers, pytest.mark.timeout(900)]
TIMES = 20 if FULL else 2
# Rows, at 100 a second: an interval, the upload, and what a busy machine is late by. README.md has the exact numbers.
ALLOWED = {"1s": 300, "200ms": 200}


@ways(NATIVE_05, NATIVE_03)
@pytest.mark.parametrize("interval", ALLOWED)
def test_a_dead_node_takes_with_it_what_the_sync_interval_allows(
    s3: S3, way: Way, interval: str, measure: Callable[[str, Way], Row]
) -> None:
    row = measure(f"the node dies, sync-interval {interval}", way)
    with Stage(way, s3, annotations={"sync-interval": interval}) as stage:
        promised: list[int] = []
        for life in range(TIMES):
            run = stage.start()
            first = write(run, row, 310 + 13 * life)  # at another moment of the interval each time
            if life:
                row.count(promised, range(1, first + 1))
            promised = [number for number in die(run, row) if number > first]
        row.count(promised, unbroken(stage.restored(row)))
    assert row.restored > 0
    assert max(row.losses) <= ALLOWED[interval], row


LARGE = 200  # MiB


@ways(NATIVE_05)
@pytest.mark.parametrize("first_sync", ["wait", "background"] if FULL else ["wait"])
def test_a_large_database_is_restored_within_the_default_limits_and_survives_a_node_that_dies_at_once(
    s3: S3, way: Way, first_sync: str, measure: Callable[[str, Way], Row]
) -> None:
    """Only `first-sync: wait` keeps rows that are written while the restored database is uploaded."""
    row = measure(f"{LARGE} MiB: deleted, restored, and the node dies 3 s later, first-sync {first_sync}", way)
    with Stage(way, s3, annotations={"first-sync": first_sync}) as stage:
        run = stage.start(arguments=["--fill", str(LARGE)])
        write(run, row, 100)
        promised = end(run, row)
        run = stage.start()
        started(run, row)
        first = began(run)
        row.count(promised, range(1, first + 1))
        committed(run, first + 300)
        promised = [number for number in die(run, row) if number > first]
        row.count(promised, unbroken(stage.restored(row)))
    assert row.losses[0] == 0, row
    if first_sync == "wait" and way == NATIVE_05:
        assert row.losses[1] <= ALLOWED["1s"], row
