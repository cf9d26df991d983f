"""Rows of another time: of a moment, of another release of Litestream."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from injector.pod.containers import INIT
from tests.durability.stage import (
    APPLICATION,
    CONTAINER_05,
    NATIVE_03,
    NATIVE_05,
    SCENARIO,
    Row,
    Stage,
    Way,
    committed,
    die,
    end,
    lives,
    unbroken,
    volume,
    ways,
    write,
)
from tests.podrunner import BlockedPod
from tests.podrunner.writer import acknowledged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.podrunner.s3 import S3

LATE = {"0.5.17": 1, "0.3.13": 100}  # rows: Litestream 0.3 goes by S3's times, which are whole seconds
ALLOWED = 200  # rows at 100 a second that the newest replicated state before a moment may lack
pytestmark = SCENARIO


def with_a_moment(stage: Stage, row: Row) -> tuple[dict[str, str], int]:
    """One life; annotations that restore a moment in its middle, and the last row that it had seen committed then."""
    run = stage.start()
    write(run, row, 300)
    moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    seen = acknowledged(run.logs(APPLICATION))[-1]
    committed(run, seen + 300)
    end(run, row)
    return {"restore-from": f"default/pod/{stage.name}/{{database}}", "restore-timestamp": moment}, seen


@ways(NATIVE_05, NATIVE_03)
def test_another_workload_starts_from_a_moment_and_keeps_its_own_rows_from_then_on(
    s3: S3, way: Way, measure: Callable[[str, Way], Row]
) -> None:
    row = measure("a copy starts from a moment in another's life, and is made again from its own replica", way)
    with Stage(way, s3) as origin:
        moment, seen = with_a_moment(origin, row)
    with Stage(way, s3, annotations=moment) as stage:
        run = stage.start()
        first = write(run, row, 100)
        assert first <= seen + LATE[way.litestream], "the copy has rows that came after the moment"
        row.count(range(1, 301), range(1, first + 1))
        assert row.lost <= ALLOWED, row
        row.count([number for number in end(run, row) if number > first], unbroken(stage.restored(row)))
    assert row.losses[1] == 0, row


@ways(NATIVE_05, every=(NATIVE_05, CONTAINER_05))
def test_a_moment_is_restored_once_on_a_volume_that_has_the_file(
    s3: S3, way: Way, tmp_path: Path, measure: Callable[[str, Way], Row]
) -> None:
    row = measure("a moment on the PersistentVolumeClaim that has the file: the Pod waits, then replace, twice", way)
    with Stage(way, s3, claim=volume(tmp_path)) as stage:
        moment, seen = with_a_moment(stage, row)
        asked = {**moment, "replica-path": f"moments/{stage.name}/{{database}}"}
        run = stage.start(annotations=asked)
        with pytest.raises(BlockedPod, match=INIT) as caught:
            run.wait_started()
        assert "is there already, and restore-from" in caught.value.log
        run.delete()
        replace = {**asked, "local-database": "replace"}
        run = stage.start(annotations=replace)
        first = write(run, row, 100)
        assert first <= seen + LATE[way.litestream], "the database has rows that came after the moment"
        row.count(range(1, 301), range(1, first + 1))
        promised = die(run, row)
        run = stage.start(annotations=replace)
        again = write(run, row, 100)
        row.count(promised, range(1, again + 1))
        end(run, row)
    assert row.losses[0] <= ALLOWED, row
    assert row.losses[1] == 0, "the moment was restored a second time"


@ways(NATIVE_05, every=(NATIVE_05, CONTAINER_05))
def test_a_replica_of_the_older_litestream_is_restored_by_the_newer(
    s3: S3, way: Way, measure: Callable[[str, Way], Row]
) -> None:
    row = measure("upgraded from Litestream 0.3.13 between two lives", way)
    with Stage(Way(way.sidecar, "0.3.13"), s3) as stage:
        promised = lives(stage, row, 1)
        stage.way = way
        run = stage.start()
        first = write(run, row, 100)
        row.count(promised, range(1, first + 1))
        row.count([number for number in end(run, row) if number > first], unbroken(stage.restored(row)))
    assert row.lost == 0, row
