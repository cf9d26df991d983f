"""A Pod that is deleted while it writes, and made again on empty volumes, loses no row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.durability.stage import (
    FULL,
    NATIVE_03,
    NATIVE_05,
    Row,
    Stage,
    Way,
    end,
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

pytestmark = [pytest.mark.slow, pytest.mark.containers, pytest.mark.timeout(900)]
CONTAINER_05 = Way("container", "0.5.17")
TIMES = 10 if FULL else 2


@ways(NATIVE_05, NATIVE_03, CONTAINER_05)
def test_no_row_is_lost_by_deleting_a_pod_that_writes(s3: S3, way: Way, measure: Callable[[str, Way], Row]) -> None:
    row = measure("deleted and made again on empty volumes, writing 100 rows/s until 2 s after SIGTERM", way)
    with Stage(way, s3) as stage:
        promised = lives(stage, row, TIMES)
        row.count(promised, unbroken(stage.restored(row)))
    assert len(row.losses) == TIMES
    assert row.lost == 0, row


USERS = {
    "the Pod's uid 65532": {"securityContext": {"runAsUser": 65532}},
    "the Pod's uid 1000 and gid 3000": {"securityContext": {"runAsUser": 1000, "runAsGroup": 3000}},
    "the Pod is root": {"securityContext": {"runAsUser": 0}},
}
OF_CONTAINER = {"runAsUser": 1234, "runAsGroup": 1234, "runAsNonRoot": True}


@ways(NATIVE_05)
@pytest.mark.parametrize("user", USERS)
def test_litestream_runs_as_the_user_of_the_pod_and_loses_no_row(
    s3: S3, way: Way, user: str, measure: Callable[[str, Way], Row]
) -> None:
    row = measure(f"deleted while writing, {user}", way)
    with Stage(way, s3) as stage:
        promised = lives(stage, row, spec=USERS[user])
        row.count(promised, unbroken(stage.restored(row, spec=USERS[user])))
    assert row.lost == 0, row


@ways(NATIVE_05)
def test_litestream_runs_as_the_user_of_the_container_rather_than_the_pod_and_loses_no_row(
    s3: S3, way: Way, measure: Callable[[str, Way], Row]
) -> None:
    row = measure("deleted while writing, the container's uid 1234 in a Pod of uid 1000", way)

    class OfContainer(Stage):
        def pod(self, **asked: Any) -> dict[str, Any]:
            pod = super().pod(**asked)
            pod["spec"]["containers"][0]["securityContext"] = OF_CONTAINER
            return pod

    with OfContainer(way, s3) as stage:
        promised = lives(stage, row)
        row.count(promised, unbroken(stage.restored(row)))
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
        assert {path.stat().st_uid for path in claim.rglob("*")} == {4711}
        row.count(promised, unbroken(stage.restored(row, spec=spec)))
    assert row.lost == 0, row


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
