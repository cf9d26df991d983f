"""Moving in, as docs/moving.md has it: from a volume with rows, and from a Litestream of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from injector import GROUP
from tests import reviews
from tests.durability.stage import (
    APPLICATION,
    DATABASE,
    GRACE_SECONDS,
    NATIVE_03,
    NATIVE_05,
    SCENARIO,
    SECRET,
    Row,
    Stage,
    Way,
    began,
    committed,
    end,
    unbroken,
    volume,
    write,
)
from tests.podrunner.writer import acknowledged

if TYPE_CHECKING:
    from pathlib import Path

    from tests.podrunner.s3 import S3

Object = dict[str, Any]
pytestmark = SCENARIO

OWN = "printf '%s' \"$CONFIG\" > /tmp/own.yml; exec litestream replicate -config /tmp/own.yml"
BUCKET = "litestream"


def without_us(pod: Object) -> Object:
    """The Pod of somebody who does not know us."""
    keys = pod["metadata"]["annotations"]
    return {**pod, "metadata": {**pod["metadata"], "annotations": {k: v for k, v in keys.items() if GROUP not in k}}}


def own_litestream(s3: S3, release: str, path: str) -> Object:
    """A sidecar as people write it, which replicates to a path of its author's choice."""
    replica = f"{{type: s3, bucket: {BUCKET}, path: {path}, endpoint: '{s3.endpoint}', force-path-style: true}}"
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    secrets = [{"name": key, "valueFrom": {"secretKeyRef": {"name": SECRET, "key": key}}} for key in keys]
    return {
        "name": "litestream",
        "image": f"litestream/litestream:{release}",
        "restartPolicy": "Always",
        "command": ["/bin/sh", "-c", OWN],
        "env": [*secrets, {"name": "CONFIG", "value": f"dbs: [{{path: {DATABASE}, replicas: [{replica}]}}]"}],
        "volumeMounts": [{"name": "claim", "mountPath": "/data"}],
    }


def test_the_rows_of_a_volume_are_in_the_replica_afterwards(s3: S3, tmp_path: Path) -> None:
    row = Row("moved in from a volume", NATIVE_05)
    with Stage(NATIVE_05, s3, claim=volume(tmp_path)) as stage:
        run = stage.run(without_us(stage.pod()))
        run.wait_started()
        committed(run, 20)
        run.delete()
        before = acknowledged(run.logs(APPLICATION))
        run = stage.start()
        assert write(run, row, 20) == before[-1]
        promised = end(run, row)
        assert unbroken(stage.restored(row)) >= {*before, *promised}


def written(stage: Stage, s3: S3, release: str, path: str) -> list[int]:
    """The rows that a Pod with a Litestream of its own has written and replicated."""
    sidecar = own_litestream(s3, release, path)
    old = stage.pod(spec={"initContainers": [sidecar], "terminationGracePeriodSeconds": GRACE_SECONDS + 30})
    assert "runs a Litestream of its own" in str(reviews.denied(old))
    run = stage.run(without_us(old))
    run.wait_started()
    committed(run, 20)
    run.delete()
    assert "ERROR" not in run.logs("litestream")
    return acknowledged(run.logs(APPLICATION))


@pytest.mark.parametrize("lasting", [True, False], ids=["on its volume", "on a new volume"])
@pytest.mark.parametrize("way", [NATIVE_05, NATIVE_03], ids="-".join)
def test_the_replica_of_ones_own_litestream_goes_on(s3: S3, tmp_path: Path, way: Way, *, lasting: bool) -> None:
    row = Row("moved in from a Litestream of one's own", way)
    path = f"backups/{way.litestream}-{lasting}"
    with Stage(way, s3, claim=volume(tmp_path), annotations={"bucket": BUCKET, "replica-path": path}) as stage:
        before = written(stage, s3, way.litestream, path)
        if not lasting:
            stage.claim = None
        run = stage.start(annotations={} if lasting else {"restore": "required"})
        assert write(run, row, 20) == before[-1]
        promised = end(run, row)
        assert unbroken(stage.restored(row)) >= {*before, *promised}


@pytest.mark.parametrize("lasting", [True, False], ids=["on its volume", "on a new volume"])
@pytest.mark.parametrize("elsewhere", [True, False], ids=["to a new place", "at the old place"])
def test_a_replica_of_litestream_0_3_becomes_one_of_0_5(
    s3: S3, tmp_path: Path, *, lasting: bool, elsewhere: bool
) -> None:
    row = Row("moved in from a Litestream 0.3 of one's own", NATIVE_05)
    old = f"backups/0.3-{lasting}-{elsewhere}"
    place = {"bucket": BUCKET} if elsewhere else {"bucket": BUCKET, "replica-path": old}
    once = {} if lasting else {"restore": "required"} | ({"restore-from": old} if elsewhere else {})
    with Stage(NATIVE_05, s3, claim=volume(tmp_path), annotations=place) as stage:
        before = written(stage, s3, NATIVE_03.litestream, old)
        generations = s3.list_keys(BUCKET, f"{old}/generations/")
        assert generations == s3.list_keys(BUCKET, old)
        if not lasting:
            stage.claim = None
        run = stage.start(annotations=once)
        assert write(run, row, 20) == before[-1]
        promised = end(run, row)
        assert unbroken(stage.restored(row)) >= {*before, *promised}
        for key in generations:  # as the page says, when that is seen
            s3.delete(BUCKET, key)
        assert unbroken(stage.restored(row)) >= {*before, *promised}


def test_the_rows_are_on_a_volume_of_ones_own_when_litestream_goes(s3: S3, tmp_path: Path) -> None:
    """The way out, as docs/upgrading.md has it."""
    row = Row("moved out to a volume", NATIVE_05)
    with Stage(NATIVE_05, s3) as stage:
        run = stage.start()
        write(run, row, 20)
        before = end(run, row)
        stage.claim = volume(tmp_path)
        run = stage.start()
        assert write(run, row, 20) == before[-1]
        promised = end(run, row)
        run = stage.run(without_us(stage.pod()))
        run.wait_started()
        assert began(run) == promised[-1]
        run.delete()
