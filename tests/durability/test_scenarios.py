"""What each scenario promises. `DURABILITY=full` repeats them as often as the README's numbers say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import reviews
from tests.durability import scenarios
from tests.durability.stage import NATIVE_03, NATIVE_05, WAYS, Row, Stage, Way, end, file, rows, started, write
from tests.podrunner import BlockedPod
from tests.podrunner.s3 import S3

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.containers, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with S3() as server:
        yield server


def ways(*lean: Way) -> pytest.MarkDecorator:
    """Every way where all is measured, else only those that the promise rests on."""
    return pytest.mark.parametrize("way", WAYS if scenarios.FULL else lean, ids="-".join)


@ways(NATIVE_05, NATIVE_03)
def test_a_pod_that_is_deleted_while_it_writes_loses_no_row(s3: S3, way: Way) -> None:
    row = scenarios.recreation(way, s3)
    assert row.acknowledged > 0
    if way.sidecar == "native":
        assert row.lost == 0, row
    else:
        assert row.restored > 0, row


@pytest.mark.durability
@ways(NATIVE_05)
@pytest.mark.parametrize("interval", ["1s", "200ms"])
def test_a_dead_node_takes_with_it_only_what_was_written_last(s3: S3, way: Way, interval: str) -> None:
    row = scenarios.dead_node(way, s3, interval)
    assert row.restored > 0
    assert max(row.losses) <= 300, row  # 3 s at 100 rows/s: an interval and an upload on a loaded machine


@ways(NATIVE_05)
def test_every_database_of_a_pod_loses_no_row(s3: S3, way: Way) -> None:
    row = scenarios.several_databases(way, s3)
    assert row.restored > 0
    assert row.lost == 0 or way.sidecar == "container", row


@ways(NATIVE_05)
@pytest.mark.parametrize("user", [0, 65532])
def test_litestream_runs_as_the_user_of_the_application_and_loses_no_row(s3: S3, way: Way, user: int) -> None:
    row = scenarios.other_user(way, s3, user)
    assert row.restored > 0
    assert row.lost == 0 or way.sidecar == "container", row


@pytest.mark.parametrize("way", [NATIVE_05, NATIVE_03], ids="-".join)
def test_a_required_restore_without_a_replica_blocks_the_pod_and_its_log_says_why(s3: S3, way: Way) -> None:
    with Stage(way, s3=s3) as stage:
        run = stage.start(annotations={"restore": "required"})
        with pytest.raises(BlockedPod, match="litestream-hook-restore-0") as blocked:
            run.wait_started()
        assert "no matching backup" in blocked.value.log
        assert run.containers["app"].lives == 0


@pytest.mark.parametrize("way", [NATIVE_05, NATIVE_03], ids="-".join)
def test_wrong_credentials_block_the_pod_instead_of_starting_it_empty(s3: S3, way: Way) -> None:
    with Stage(way, s3=s3, secret={**s3.secret, "AWS_SECRET_ACCESS_KEY": "wrong"}) as stage:
        run = stage.start()
        with pytest.raises(BlockedPod, match="litestream-hook-restore-0") as blocked:
            run.wait_started()
        assert "SignatureDoesNotMatch" in blocked.value.log
        assert run.containers["app"].lives == 0


def test_a_missing_bucket_blocks_the_pod_instead_of_starting_it_empty(s3: S3) -> None:
    with Stage(NATIVE_05, s3=s3) as stage:
        run = stage.start(annotations={"bucket": "absent"})
        with pytest.raises(BlockedPod, match="litestream-hook-restore-0"):
            run.wait_started()
        assert run.containers["app"].lives == 0


@pytest.mark.parametrize("left", ["empty database", "journals of another life"])
def test_what_another_life_left_behind_does_not_defeat_the_restore(s3: S3, tmp_path: Path, left: str) -> None:
    row = Row(left, NATIVE_05)
    tmp_path.chmod(0o777)
    spec = {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "kept"}}]}
    with Stage(NATIVE_05, s3=s3) as stage:
        run = stage.start()
        write(run, row, 100)
        promised = end(run, row)
        for name in ("app.db",) if left == "empty database" else ("app.db-wal", "app.db-shm"):
            (tmp_path / name).write_bytes(b"" if name == "app.db" else b"of another database" * 1000)
            (tmp_path / name).chmod(0o666)
        stage.claims["kept"] = tmp_path
        pod = stage.pod(writes=False, spec=spec)
        pod["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        again = stage.node.start(reviews.injected(pod), claims=stage.claims)
        started(again, row)
        row.count(promised, rows(file(again, "/data/app.db")))
        again.delete()
    assert row.restored > 0
    assert row.lost == 0, row
