"""A Pod that is deleted while it writes, and made again on empty volumes, loses no row."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.durability.stage import (
    CONTAINER_05,
    DATABASE,
    FULL,
    NATIVE_03,
    NATIVE_05,
    SCENARIO,
    Row,
    Stage,
    Way,
    began,
    end,
    file,
    lives,
    unbroken,
    volume,
    ways,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.podrunner.s3 import S3

pytestmark = SCENARIO
TIMES = 10 if FULL else 2


@ways(NATIVE_05, NATIVE_03, CONTAINER_05)
def test_no_row_is_lost_by_deleting_a_pod_that_writes(s3: S3, way: Way, measure: Callable[[str, Way], Row]) -> None:
    row = measure("deleted and made again on empty volumes, writing 100 rows/s until 2 s after SIGTERM", way)
    with Stage(way, s3) as stage:
        promised = lives(stage, row, TIMES)
        row.count(promised, unbroken(stage.restored(row)))
    assert len(row.losses) == TIMES
    assert row.lost == 0, row


USERS: dict[str, tuple[dict[str, Any], int, int]] = {  # what of the Pod says so, uid and gid
    "the Pod's uid 65532": ({"spec": {"securityContext": {"runAsUser": 65532, "runAsGroup": 65532}}}, 65532, 65532),
    "the Pod's uid 1000 and gid 3000": (
        {"spec": {"securityContext": {"runAsUser": 1000, "runAsGroup": 3000}}},
        1000,
        3000,
    ),
    "the Pod is root": ({"spec": {"securityContext": {"runAsUser": 0}}}, 0, 0),
    "the container's uid 1234 in a Pod of uid 1000": (
        {"container": {"securityContext": {"runAsUser": 1234, "runAsGroup": 4321, "runAsNonRoot": True}}},
        1234,
        4321,
    ),
}


@ways(NATIVE_05)
@pytest.mark.parametrize("user", USERS)
def test_litestream_runs_as_the_user_and_group_of_the_application_and_loses_no_row(
    s3: S3, way: Way, user: str, measure: Callable[[str, Way], Row]
) -> None:
    row = measure(f"deleted while writing, {user}", way)
    asked, uid, gid = USERS[user]
    with Stage(way, s3) as stage:
        promised = lives(stage, row, **asked)
        run = stage.start(**asked)
        write(run, row, 150)  # so that Litestream's own files are there
        assert owners(file(run, DATABASE).parent) == {(uid, gid)}
        first = began(run)
        row.count(promised, range(1, first + 1))
        promised = [number for number in end(run, row) if number > first]
        row.count(promised, unbroken(stage.restored(row, **asked)))
    assert row.lost == 0, row


DROP = """
import os, pathlib, sys
uid, gid = int(os.environ["PUID"]), int(os.environ["PGID"])
for path in [pathlib.Path("/data"), *pathlib.Path("/data").rglob("*")]:
    os.chown(path, uid, gid, follow_symlinks=False)
os.setgroups([])
os.setgid(gid)
os.setuid(uid)
os.execv(sys.executable, [sys.executable, "/app/writer.py", *sys.argv[1:]])
"""
DROPS = {
    "command": ["python3", "-c", DROP],
    "env": [{"name": "PUID", "value": "1234"}, {"name": "PGID", "value": "4321"}],
}


@ways(NATIVE_05)
@pytest.mark.parametrize("where", ["empty volumes", "a PersistentVolumeClaim that root made"])
def test_an_image_that_starts_as_root_and_drops_to_another_user_loses_no_row(
    s3: S3, way: Way, where: str, tmp_path: Path, measure: Callable[[str, Way], Row]
) -> None:
    """What Litestream restores as the user that it drops to is its own to write."""
    row = measure(f"deleted while writing, the image starts as root and drops to PUID 1234, on {where}", way)
    claim = volume(tmp_path, user=0) if where != "empty volumes" else None
    asked: dict[str, Any] = {"container": DROPS, "spec": {"securityContext": {}}}
    with Stage(way, s3, claim=claim) as stage:
        promised = lives(stage, row, **asked)
        run = stage.start(**asked)
        first = write(run, row, 150)
        assert owners(file(run, DATABASE).parent) == {(1234, 4321)}
        row.count(promised, range(1, first + 1))
        promised = [number for number in end(run, row) if number > first]
        row.count(promised, unbroken(stage.restored(row, **asked)))
    assert row.lost == 0, row


@ways(NATIVE_05)
def test_a_volume_of_another_user_than_1000_is_replicated_and_goes_on(
    s3: S3, way: Way, tmp_path: Path, measure: Callable[[str, Way], Row]
) -> None:
    row = measure("deleted while writing, on a PersistentVolumeClaim of uid 4711, then on empty volumes", way)
    spec = {"securityContext": {"runAsUser": 4711, "runAsGroup": 4711}}
    claim = volume(tmp_path, user=4711)
    with Stage(way, s3, claim=claim) as stage:
        promised = lives(stage, row, spec=spec)
        assert owners(claim) == {(4711, 4711)}
        row.count(promised, unbroken(stage.restored(row, spec=spec)))
    assert row.lost == 0, row


def owners(directory: Path) -> set[tuple[int, int]]:
    """User and group of everything in a directory, Litestream's own files among them."""
    found = {}
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # Litestream renames files at any moment
            found[path] = path.lstat()
    assert any(path.name.endswith("-litestream") for path in found)
    return {(facts.st_uid, facts.st_gid) for facts in found.values()}


DATABASES = {
    "two databases in one directory": ("/data/a.db", "/data/b.db"),
    "three databases in two directories": ("/data/a.db", "/data/b.db", "/srv/c.db"),
}


@ways(NATIVE_05)
@pytest.mark.parametrize("databases", DATABASES)
def test_every_database_of_a_pod_keeps_its_rows(
    s3: S3, way: Way, databases: str, measure: Callable[[str, Way], Row]
) -> None:
    row = measure(f"deleted while writing, {databases}", way)
    with Stage(way, s3, databases=DATABASES[databases]) as stage:
        promised = lives(stage, row)
        row.count(promised, unbroken(stage.restored(row)))
    assert row.lost == 0, row


@ways(NATIVE_05)
def test_a_database_that_is_made_later_is_replicated_too(s3: S3, way: Way, measure: Callable[[str, Way], Row]) -> None:
    row = measure("deleted while writing, a second database appears after 2 s", way)
    with Stage(way, s3, databases=("/data/a.db", "/srv/b.db")) as stage:
        run = stage.start(arguments=["--late", "2"])
        write(run, row, 300)
        row.count(end(run, row), unbroken(stage.restored(row)))
    assert row.lost == 0, row


@ways(NATIVE_05)
def test_what_a_migration_wrote_before_the_application_is_kept(
    s3: S3, way: Way, measure: Callable[[str, Way], Row]
) -> None:
    row = measure("an init container makes the tables and 50 rows, then the application writes", way)
    migrate = {
        "name": "migrate",
        "image": "application",
        "args": ["--database", "/data/app.db", "--rows", "50", "--rate", "1000"],
    }
    with Stage(way, s3, annotations={"containers": "app,migrate"}) as stage:
        run = stage.start(spec={"initContainers": [migrate]})
        assert write(run, row, 100) == 50, "the migration ran before the restore"
        row.count([*range(1, 51), *end(run, row)], unbroken(stage.restored(row, annotations={"containers": "app"})))
    assert row.lost == 0, row


@ways(NATIVE_05, NATIVE_03)
def test_a_database_is_whole_after_lives_that_turn_the_wal_over_many_times(
    s3: S3, way: Way, measure: Callable[[str, Way], Row]
) -> None:
    """SQLite begins its WAL anew after 1000 pages: Litestream must keep it from doing so before it has read them."""
    row = measure("deleted while writing 24 kB a row, until 2 s after SIGTERM", way)
    with Stage(way, s3) as stage:
        promised: list[int] = []
        for _ in range(2):
            run = stage.start(arguments=["--bytes", "24000"])
            first = write(run, row, 1000)
            row.count(promised, range(1, first + 1))
            promised = [number for number in end(run, row) if number > first]
        row.count(promised, unbroken(stage.restored(row)))
    assert row.lost == 0, row
