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
    NATIVE_05,
    SCENARIO,
    SECRET,
    Row,
    Stage,
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
BUCKET, PATH = "litestream", "backups/shop"


def without_us(pod: Object) -> Object:
    """The Pod of somebody who does not know us."""
    keys = pod["metadata"]["annotations"]
    return {**pod, "metadata": {**pod["metadata"], "annotations": {k: v for k, v in keys.items() if GROUP not in k}}}


def own_litestream(s3: S3) -> Object:
    """A sidecar as people write it, which replicates to a path of its author's choice."""
    replica = f"type: s3, bucket: {BUCKET}, path: {PATH}, endpoint: '{s3.endpoint}', force-path-style: true"
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    secrets = [{"name": key, "valueFrom": {"secretKeyRef": {"name": SECRET, "key": key}}} for key in keys]
    config = f"dbs: [{{path: {DATABASE}, replica: {{{replica}}}}}]"
    return {
        "name": "litestream",
        "image": f"litestream/litestream:{NATIVE_05.litestream}",
        "restartPolicy": "Always",
        "command": ["/bin/sh", "-c", OWN],
        "env": [*secrets, {"name": "CONFIG", "value": config}],
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


@pytest.mark.parametrize("lasting", [True, False], ids=["on its volume", "on a new volume"])
def test_the_replica_of_ones_own_litestream_goes_on(s3: S3, tmp_path: Path, *, lasting: bool) -> None:
    row = Row("moved in from a Litestream of one's own", NATIVE_05)
    annotations = {"bucket": BUCKET, "replica-path": f"{PATH}-{lasting}"}
    with Stage(NATIVE_05, s3, claim=volume(tmp_path), annotations=annotations) as stage:
        sidecar = own_litestream(s3)
        sidecar["env"][-1]["value"] = sidecar["env"][-1]["value"].replace(PATH, annotations["replica-path"])
        old = stage.pod(spec={"initContainers": [sidecar], "terminationGracePeriodSeconds": GRACE_SECONDS + 30})
        assert "runs a Litestream of its own" in str(reviews.denied(old))
        run = stage.run(without_us(old))
        run.wait_started()
        committed(run, 20)
        run.delete()
        before = acknowledged(run.logs(APPLICATION))
        assert "level=ERROR" not in run.logs("litestream")
        if not lasting:
            stage.claim = None
        run = stage.start(annotations={} if lasting else {"restore": "required"})
        assert write(run, row, 20) == before[-1]
        promised = end(run, row)
        assert unbroken(stage.restored(row)) >= {*before, *promised}
