"""A node that dies takes with it what `sync-interval` allows, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.durability.stage import (
    FULL,
    NATIVE_03,
    NATIVE_05,
    SCENARIO,
    UNSENT,
    WAYS,
    Row,
    Stage,
    Way,
    die,
    end,
    unbroken,
    ways,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.podrunner.s3 import S3

pytestmark = SCENARIO
TIMES = 20 if FULL else 3
# Rows, at 100 a second, that one kill may take and that kills may take on average: the ticks of Litestream's two
# intervals (it looks, then it sends), the upload, and what a busy machine is late by.
AT_MOST = {"1s": UNSENT, "200ms": 120}
ON_AVERAGE = {"1s": 120, "200ms": 45}


@ways(NATIVE_05, NATIVE_03)
@pytest.mark.parametrize("interval", AT_MOST)
def test_a_dead_node_takes_with_it_what_the_sync_interval_allows(
    s3: S3, way: Way, interval: str, measure: Callable[[str, Way], Row]
) -> None:
    row = measure(f"the node dies, sync-interval {interval}", way)
    with Stage(way, s3, annotations={"sync-interval": interval}) as stage:
        promised: list[int] = []
        for life in range(TIMES):
            run = stage.start()
            # At another moment of the interval each time, and more rows than may be lost: never may it be all.
            first = write(run, row, AT_MOST["1s"] + 1 + 13 * life)
            if life:
                row.count(promised, range(1, first + 1))
            promised = [number for number in die(run, row) if number > first]
        row.count(promised, unbroken(stage.restored(row)))
    assert max(row.losses) <= AT_MOST[interval], row
    if FULL:  # a few kills have no average
        assert row.lost / TIMES <= ON_AVERAGE[interval], row


LARGE = 200  # MiB
LIMIT = 256  # MiB, the default memory-limit
PAGE_CACHE = 1 << 30
WAITING = [(NATIVE_05, "wait")]  # no other way can
NOT_WAITING = [(way, "background") for way in WAYS]


@pytest.mark.parametrize(("way", "first_sync"), WAITING + NOT_WAITING if FULL else WAITING)
def test_a_large_database_is_restored_within_the_default_limits_and_waits_for_its_first_sync(
    s3: S3, way: Way, first_sync: str, measure: Callable[[str, Way], Row]
) -> None:
    waits = f"first-sync {first_sync}"
    row = measure(f"{LARGE} MiB: deleted, restored, and the node dies 3 s after the application is back, {waits}", way)
    with Stage(way, s3, annotations={"first-sync": first_sync}, page_cache=PAGE_CACHE) as stage:
        run = stage.start(arguments=["--fill", str(LARGE)])
        write(run, row, 100)
        promised = end(run, row)
        run = stage.start()
        first = write(run, row, 300)
        row.count(promised, range(1, first + 1))
        promised = [number for number in die(run, row) if number > first]
        row.count(promised, unbroken(stage.restored(row)))
    assert row.losses[0] == 0, row
    assert row.mebibytes < LIMIT, row
    if first_sync == "wait":
        assert row.losses[1] <= AT_MOST["1s"], row
    elif way == NATIVE_05:
        assert row.losses[1] > AT_MOST["1s"], "nothing has to wait for the first sync"
