"""`verify` with a real Litestream and S3: what it says of good replicas, and of those that are not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from injector.command import FOUND, verify
from injector.command.verify import Choice
from tests import reviews
from tests.durability.stage import APPLICATION, DATABASE, NATIVE_05, Row, Stage, committed, die, end, write
from tests.jobs import Cluster
from tests.podrunner.s3 import S3

if TYPE_CHECKING:
    from collections.abc import Iterator

slow = [pytest.mark.slow, pytest.mark.containers]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with S3() as server:
        yield server


def verified(cluster: Cluster, capsys: pytest.CaptureFixture[str], **choice: Any) -> tuple[int, dict[str, Any]]:
    """The exit code of a `verify` of the one workload that is there, and what it says of its one database."""
    ((_, name),) = [key for key in cluster.objects if key[0] == "pods"]
    code = verify.run(Choice(f"pod/{name}", output="json", **choice), cluster, reviews.DEFAULTS)
    printed = capsys.readouterr()
    assert printed.out, printed.err
    (found,) = json.loads(printed.out)["databases"]
    return code, found


@pytest.mark.slow
@pytest.mark.containers
def test_a_replica_is_good_beside_its_writer(s3: S3, capsys: pytest.CaptureFixture[str]) -> None:
    row = Row("", NATIVE_05)
    with Stage(NATIVE_05, s3) as stage:
        cluster = Cluster(stage.node)
        run = stage.start()
        write(run, row, 300)
        cluster.put("pods", run.pod)
        before = s3.list_keys("litestream")
        code, found = verified(cluster, capsys)
        print(found)
        assert code == 0
        assert cluster.deleted == list(cluster.runs)
