"""A database on a volume that outlives its Pod, or what is left of one, must not cost rows of a newer replica."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from injector.pod.containers import INIT
from tests.durability.stage import (
    CONTAINER_03,
    CONTAINER_05,
    NATIVE_03,
    NATIVE_05,
    SCENARIO,
    USER,
    Row,
    Stage,
    Way,
    committed,
    die,
    end,
    started,
    unbroken,
    volume,
    ways,
    write,
)
from tests.podrunner import BlockedPod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.podrunner.s3 import S3

pytestmark = SCENARIO
ELSEWHERE = 1_000_000
CAN_TELL, CAN_T_TELL = (NATIVE_05, CONTAINER_05), (NATIVE_03, CONTAINER_03)


@pytest.fixture
def stage(s3: S3, way: Way, tmp_path: Path) -> Iterator[Stage]:
    with Stage(way, s3, claim=volume(tmp_path)) as found:
        yield found


def live(stage: Stage, row: Row, *, kill: bool = False, local_database: str | None = None) -> tuple[int, int]:
    """One life that commits 20 rows; the row it began after, and its last."""
    run = stage.start(annotations={} if local_database is None else {"local-database": local_database})
    first = write(run, row, 20)
    return first, (die if kill else end)(run, row)[-1]


def live_elsewhere(stage: Stage, row: Row, folder: Path) -> list[int]:
    """One life on another volume, with numbers that no other life has; all rows it was promised."""
    own, stage.claim = stage.claim, volume(folder, "elsewhere")
    run = stage.start(arguments=["--first", str(ELSEWHERE)])
    started(run, row)
    committed(run, ELSEWHERE + 20)
    stage.claim = own
    return end(run, row)


def blocked(stage: Stage) -> str:
    """The log of the container that holds up the Pod."""
    run = stage.start()
    with pytest.raises(BlockedPod, match=INIT) as caught:
        run.wait_started()
    assert run.containers["app"].lives == 0
    run.delete()
    return caught.value.log


def left_alone(_: Path) -> None:
    """The database as the earlier life left it."""


def without_metadata(claim: Path) -> None:
    shutil.rmtree(claim / ".app.db-litestream")


def foreign(claim: Path) -> None:
    without_metadata(claim)
    for file in claim.glob("app.db*"):
        file.unlink()
    with closing(sqlite3.connect(claim / "app.db")) as database:
        database.execute("CREATE TABLE entry (number INTEGER PRIMARY KEY, at REAL, bytes BLOB)")


def cut_in_half(claim: Path) -> None:
    with closing(sqlite3.connect(claim / "app.db")) as database:
        database.execute("PRAGMA journal_mode=delete")  # all is in the one file then
    whole = (claim / "app.db").read_bytes()
    (claim / "app.db").write_bytes(whole[: len(whole) // 2])


def garbage(claim: Path) -> None:
    for file in claim.glob("app.db-*"):
        file.unlink()
    (claim / "app.db").write_bytes(b"no database at all" * 300)


def emptied(claim: Path) -> None:
    for file in claim.glob("app.db*"):
        file.unlink()
    (claim / "app.db").touch()


def only_journals(claim: Path) -> None:
    (claim / "app.db").unlink()
    for name in ("app.db-wal", "app.db-shm"):
        (claim / name).write_bytes(b"of another database" * 1000)


def spoilt(stage: Stage, spoil: Callable[[Path], None]) -> Path:
    """The stage's volume after something has happened to it."""
    assert stage.claim is not None
    spoil(stage.claim)
    for file in stage.claim.glob("**/*"):
        shutil.chown(file, USER, USER)
    return stage.claim


SPOILS = {
    "older than its replica": (left_alone, "is older"),
    "older, with its metadata lost": (without_metadata, "shows no sign of having been replicated"),
    "another one": (foreign, "shows no sign of having been replicated"),
    "half written": (cut_in_half, "is cut off"),
    "no SQLite file": (garbage, "is not an SQLite database"),
}


@ways(NATIVE_05, every=CAN_TELL)
@pytest.mark.parametrize("what", SPOILS)
def test_what_would_overwrite_a_newer_replica_holds_up_the_pod_until_its_owner_decides(
    stage: Stage, way: Way, tmp_path: Path, what: str, measure: Callable[[str, Way], Row]
) -> None:
    row = measure(f"the database on the PersistentVolumeClaim is {what}: the Pod waits, then replace", way)
    spoil, why = SPOILS[what]
    _, last = live(stage, row)
    newer = live_elsewhere(stage, row, tmp_path)
    claim = spoilt(stage, spoil)
    before = (claim / "app.db").read_bytes()
    log = blocked(stage)
    assert why in log
    assert 'Set the annotation local-database to "replace"' in log
    assert (claim / "app.db").read_bytes() == before
    first, newest = live(stage, row, local_database="replace")
    assert first == newer[-1]
    assert [file.read_bytes() for file in claim.glob("app.db.2*")] == [before]
    row.count([*range(1, last + 1), *newer, *range(first + 1, newest + 1)], stage.restored(row))
    assert row.lost == 0, row


@ways(NATIVE_05, every=CAN_TELL)
@pytest.mark.parametrize("what", ["older than its replica", "another one"])
def test_a_database_that_is_kept_becomes_the_newest_state_and_nothing_is_mixed_into_it(
    stage: Stage, way: Way, tmp_path: Path, what: str, measure: Callable[[str, Way], Row]
) -> None:
    row = measure(f"the database on the PersistentVolumeClaim is {what}: keep, then empty volumes", way)
    _, kept = live(stage, row)
    live_elsewhere(stage, row, tmp_path)
    spoilt(stage, SPOILS[what][0])
    first, _ = live(stage, row, local_database="keep")
    assert first == (0 if what == "another one" else kept)
    _, last = live(stage, row)
    row.count(range(1, last + 1), unbroken(stage.restored(row)))
    assert row.lost == 0, row


@ways(NATIVE_03, every=CAN_T_TELL)
def test_litestream_0_3_lets_an_older_database_overwrite_its_replica(
    stage: Stage, way: Way, tmp_path: Path, measure: Callable[[str, Way], Row]
) -> None:
    """A limit that the webhook warns of, measured so that docs/durability.md is true."""
    row = measure("the database on the PersistentVolumeClaim is older than its replica: nobody can tell", way)
    live(stage, row)
    promised = live_elsewhere(stage, row, tmp_path)
    live(stage, row)
    row.count(promised, stage.restored(row))
    assert row.lost > 0, "Litestream 0.3 keeps them now: tell it in docs/, and check its databases too"


@ways(NATIVE_05)
@pytest.mark.parametrize("kill", [False, True], ids=["ended", "killed"])
def test_a_database_as_new_as_its_replica_or_newer_goes_on(
    stage: Stage, way: Way, kill: bool, measure: Callable[[str, Way], Row]
) -> None:
    row = measure(f"made again on the same PersistentVolumeClaim after it {'was killed' if kill else 'ended'}", way)
    _, last = live(stage, row, kill=kill)
    first, newest = live(stage, row)
    # A row that was committed when the node died may not have been acknowledged any more.
    assert first in (last, last + kill)
    row.count(range(1, newest + 1), unbroken(stage.restored(row)))
    assert row.lost == 0, row


@ways(NATIVE_05, NATIVE_03)
@pytest.mark.parametrize("left", ["an empty database", "journals of another database"])
def test_what_another_life_left_behind_does_not_defeat_the_restore(
    stage: Stage, way: Way, left: str, measure: Callable[[str, Way], Row]
) -> None:
    row = measure(f"the PersistentVolumeClaim holds {left}", way)
    _, last = live(stage, row)
    claim = spoilt(stage, emptied if left == "an empty database" else only_journals)
    first, newest = live(stage, row)
    assert first == last
    row.count(range(1, newest + 1), unbroken(stage.restored(row)))
    aside = {file.name.partition(".2")[0] for file in claim.iterdir() if ".2" in file.name}
    assert aside >= {".app.db-litestream"}
    assert {"app.db-wal", "app.db-shm"} <= aside or left == "an empty database"
    assert row.lost == 0, row
