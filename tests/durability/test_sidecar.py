"""Litestream dies alone, or its database is replaced under it: the sidecar's shell keeps every row."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from injector.pod.containers import REPLICATE
from tests.durability.stage import (
    FULL,
    NATIVE_05,
    SCENARIO,
    Row,
    Stage,
    Way,
    committed,
    die,
    end,
    lives,
    started,
    unbroken,
    volume,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.podrunner import Run
    from tests.podrunner.s3 import S3

pytestmark = SCENARIO
WAY = NATIVE_05  # the only one whose sidecar is watched, together with the ordinary sidecar
MOMENTS = 20 if FULL else 4
IN_A_ROW = 20 if FULL else 5
# About five frames a row: SQLite would begin its WAL anew every two seconds, if Litestream let it.
BUSY = ["--rate", "100", "--bytes", "12000"]
CYCLE = 200  # rows


def kill(run: Run, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to Litestream, as soon as there is one, and wait for its end: the next is another one."""
    deadline = time.monotonic() + 120
    while not (killed := run.kill(REPLICATE, "litestream", number)):
        assert time.monotonic() < deadline, "Litestream was not started again"
        time.sleep(0.01)
    while any(Path(f"/proc/{process}").exists() for process in killed):
        assert time.monotonic() < deadline, "Litestream did not end"
        time.sleep(0.01)


def passed(run: Run, rows: int) -> None:
    """Wait until the application has committed so many more rows."""
    text = run.logs("app")
    committed(run, int(text.rsplit("committed ", 1)[1].split()[0]) + rows)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("shell", ["dash", "busybox", "bash"] if FULL else ["dash"])
def test_litestream_that_ends_alone_loses_no_row(
    s3: S3, number: signal.Signals, shell: str, measure: Callable[[str, Way], Row]
) -> None:
    row = measure(f"Litestream alone gets {number.name} at {MOMENTS} moments of the WAL's cycle, {shell}", WAY)
    with Stage(WAY, s3, shell=shell) as stage:
        promised: list[int] = []
        for pod in range(MOMENTS // 4):  # after more deaths in one Pod it pauses for long
            run = stage.start(arguments=BUSY)
            first = write(run, row, 150)
            row.count(promised, range(1, first + 1))
            for moment in range(4):
                passed(run, CYCLE * (1 + moment + 4 * pod) // MOMENTS)
                kill(run, number)
                passed(run, CYCLE)
            assert run.containers[REPLICATE].lives == 1
            promised = [number for number in end(run, row) if number > first]
        row.count(promised, unbroken(stage.restored(row)))
    assert row.lost == 0, row


@pytest.mark.parametrize("shell", ["busybox", "bash"])
def test_other_shells_start_litestream_again_too(s3: S3, shell: str, measure: Callable[[str, Way], Row]) -> None:
    row = measure(f"Litestream alone is killed once, two databases in two directories, {shell}", WAY)
    with Stage(WAY, s3, shell=shell, databases=("/data/a.db", "/other/b.db")) as stage:
        run = stage.start()
        write(run, row, 200)
        kill(run)
        passed(run, 300)
        row.count(end(run, row), unbroken(stage.restored(row)))
    assert row.lost == 0, row


def test_litestream_that_is_killed_whenever_it_runs_loses_no_row(s3: S3, measure: Callable[[str, Way], Row]) -> None:
    row = measure(f"Litestream alone is killed {IN_A_ROW} times in a row, as soon as it runs", WAY)
    with Stage(WAY, s3) as stage:
        run = stage.start()
        write(run, row, 200)
        for _ in range(IN_A_ROW):
            kill(run)
        row.count(end(run, row), unbroken(stage.restored(row)))
    assert row.lost == 0, row


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.5, 1.5] if FULL else [0.0])
def test_litestream_that_dies_right_before_the_deletion_loses_no_row(
    s3: S3, seconds: float, measure: Callable[[str, Way], Row]
) -> None:
    row = measure(f"Litestream alone is killed {seconds} s before the Pod is deleted", WAY)
    with Stage(WAY, s3) as stage:
        run = stage.start()
        write(run, row, 300)
        kill(run)
        time.sleep(seconds)
        row.count(end(run, row), unbroken(stage.restored(row)))
    assert row.lost == 0, row


def test_litestream_that_is_killed_until_the_application_has_ended_loses_no_row(
    s3: S3, measure: Callable[[str, Way], Row]
) -> None:
    row = measure(
        "Litestream alone is killed every 50 ms, from the deletion until 1 s after the application's end", WAY
    )
    with Stage(WAY, s3) as stage:
        run = stage.start()
        write(run, row, 300)
        over = threading.Event()

        def kills() -> None:
            while not over.wait(0.05):
                run.kill(REPLICATE, "litestream")

        killer = threading.Thread(target=kills)
        killer.start()

        def ends() -> None:
            run._await_quietly(lambda: bool(run.containers["app"].past), 60)
            time.sleep(1)
            over.set()

        ender = threading.Thread(target=ends)
        ender.start()
        promised = end(run, row)
        ender.join()
        killer.join()
        row.count(promised, unbroken(stage.restored(row)))
    assert row.lost == 0, row


@pytest.mark.parametrize("how", ["vacuum", "move", "delete"])
def test_a_database_that_is_replaced_is_replicated_from_then_on(
    s3: S3, how: str, measure: Callable[[str, Way], Row]
) -> None:
    ways = {
        "vacuum": "its database is replaced by VACUUM INTO and mv",
        "move": "everything in its folder is moved away, a copy put there",
        "delete": "its database is deleted and made anew",
    }
    row = measure(f"{ways[how]} after 3 s", WAY)
    with Stage(WAY, s3) as stage:
        run = stage.start(arguments=["--replace", how, "--after", "300"])
        started(run, row)
        run.wait_log("app", "replaced", seconds=60)
        passed(run, 600)
        promised = end(run, row)
        if how == "delete":
            promised = promised[300:]
        row.count(promised, stage.restored(row))
    assert row.lost == 0, row


def test_a_volume_that_stays_is_uploaded_anew_after_a_death_only(
    s3: S3, tmp_path: Path, measure: Callable[[str, Way], Row]
) -> None:
    row = measure("on a PersistentVolumeClaim: two ends in order, two dead nodes, then empty volumes", WAY)
    emptied = "WAL emptied"
    with Stage(WAY, s3, claim=volume(tmp_path)) as stage:
        lives(stage, row, 2)
        run = stage.start()
        write(run, row, 100)
        assert emptied not in run.logs(REPLICATE)
        die(run, row)
        for _ in range(2):
            run = stage.start()
            write(run, row, 100)
            assert run.logs(REPLICATE).count(emptied) == 1
            promised = die(run, row)
        run = stage.start()
        first = write(run, row, 100)
        assert first >= promised[-1]
        promised = end(run, row)
        row.count(range(1, promised[-1] + 1), unbroken(stage.restored(row)))
    assert row.lost == 0, row


def test_a_sidecar_without_memory_dies_as_a_whole(s3: S3, measure: Callable[[str, Way], Row]) -> None:
    """Nothing is left in the container that could start Litestream: what is written meanwhile is lost with the Pod."""
    row = measure("the sidecar is out of memory three times, and the Pod deleted before the kubelet restarts it", WAY)
    with Stage(WAY, s3) as stage:
        run = stage.start()
        write(run, row, 300)
        for lives in (1, 2, 3):
            run._await(lambda lives=lives: run.containers[REPLICATE].lives == lives, 60)  # type: ignore[misc]
            passed(run, 200)
            run.exec(REPLICATE, ["dd", "if=/dev/zero", "of=/dev/null", "bs=400M", "count=1"])
        run._await(lambda: len(run.containers[REPLICATE].past) == 3, 30)
        assert {ended.reason for ended in run.containers[REPLICATE].past} == {"OOMKilled"}
        row.count(end(run, row, starved=True), unbroken(stage.restored(row)))
    assert 0 < row.lost < row.acknowledged, row
