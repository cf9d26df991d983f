"""What the first init container says before anything is restored, with a real Litestream and a real S3 server."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from injector.pod.containers import INIT, REPLICATE
from tests.durability.stage import (
    NATIVE_05,
    SCENARIO,
    USER,
    Row,
    Stage,
    Way,
    away,
    committed,
    end,
    started,
    volume,
    ways,
    write,
)
from tests.podrunner import BlockedPod
from tests.podrunner.images import BEYOND_COREUTILS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.podrunner.s3 import S3

pytestmark = SCENARIO
MANY = 1000  # failures of an init container that a test bears with


@ways(NATIVE_05, every=[NATIVE_05])
def test_whoever_waits_for_s3_is_told_whom_it_waits_for_and_why(
    s3: S3, way: Way, measure: Callable[[str, Way], Row]
) -> None:
    row = measure("S3 is away when the Pod starts, and comes back", way)
    with Stage(way, s3) as stage:
        with away(s3):
            run = stage.start()
            log = run.wait_log(INIT, "Still asking", seconds=30)
            assert f"what bucket litestream at {s3.endpoint} holds: dial tcp" in log
            assert "connection refused" in log
        started(run, row, failures=MANY)  # the server may refuse while it starts
        committed(run, 20)
        promised = end(run, row)
        row.count(promised, stage.restored(row))
    assert row.lost == 0, row


@ways(NATIVE_05, every=[NATIVE_05])
def test_a_volume_of_root_does_not_hold_up_the_init_container_that_gives_it_away(
    s3: S3, way: Way, tmp_path: Path, measure: Callable[[str, Way], Row]
) -> None:
    row = measure("a volume that root made, and an init container of the Pod's own that gives it to uid 1000", way)
    chown = {
        "name": "chown",
        "image": "busybox:1.37",
        "command": ["chown", "-R", f"{USER}:{USER}", "/data"],
        "securityContext": {"runAsUser": 0},
        "volumeMounts": [{"name": "claim", "mountPath": "/data"}],
    }
    claim = volume(tmp_path, user=0)
    claim.chmod(0o755)
    with Stage(way, s3, claim=claim) as stage:
        run = stage.start(spec={"initContainers": [chown]})
        write(run, row, 20)
        assert "so the Pod goes on" in run.logs(INIT)
        promised = end(run, row)
        # Another fresh volume: now there is something to restore, which can't be written yet.
        for left in claim.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        shutil.chown(claim, 0, 0)
        run = stage.start(spec={"initContainers": [chown]})
        with pytest.raises(BlockedPod, match="fsGroup"):
            run.wait_started()
        run.delete()
        run = stage.start(spec={"initContainers": [chown]}, annotations={"init-first": "false"})
        first = write(run, row, 20)
        row.count(promised, range(1, first + 1))
        end(run, row)
    assert row.lost == 0, row


@ways(NATIVE_05, every=[NATIVE_05])
def test_an_image_with_nothing_but_a_shell_and_coreutils_will_do(
    s3: S3, way: Way, tmp_path: Path, measure: Callable[[str, Way], Row]
) -> None:
    """Without sqlite3 a death of Litestream ends the container, and the kubelet starts it."""
    row = measure("Litestream's image has a shell and coreutils only; it dies once, then a PersistentVolumeClaim", way)
    with Stage(way, s3, without=BEYOND_COREUTILS, claim=volume(tmp_path)) as stage:
        run = stage.start()
        write(run, row, 100)
        run.kill(REPLICATE, "litestream")
        run.wait_event(REPLICATE, "restarts in")
        run.wait_ready()
        promised = end(run, row)
        run = stage.start()
        first = write(run, row, 20)
        row.count(promised, range(1, first + 1))
        assert "continues its replica" in run.logs(INIT)
        promised = end(run, row)
        row.count(promised, stage.restored(row))
        said = "\n".join(run.logs(name) for run in stage.runs for name in run.containers)
        assert "not found" not in said
    assert row.lost == 0, row


@pytest.mark.parametrize("tool", ["stat", "timeout"])
def test_a_tool_that_is_missing_in_the_image_holds_up_the_pod_and_is_named(s3: S3, tool: str) -> None:
    with Stage(NATIVE_05, s3, without=(tool,)) as stage:
        run = stage.start()
        with pytest.raises(BlockedPod, match=INIT) as caught:
            run.wait_started()
        assert caught.value.log == f"The image has no {tool}: use one with coreutils or busybox.\n"
        run.delete()


@ways(NATIVE_05, every=[NATIVE_05])
def test_storage_that_is_too_small_for_the_database_is_told_before_the_restore(
    s3: S3, way: Way, measure: Callable[[str, Way], Row]
) -> None:
    row = measure("storage below twice the database: the Pod waits, then storage as the log says", way)
    with Stage(way, s3, annotations={"storage": "1Gi"}) as stage:
        run = stage.start(arguments=["--fill", "30"])
        write(run, row, 20)
        promised = end(run, row)
        run = stage.start(annotations={"storage": "40Mi"})
        with pytest.raises(BlockedPod, match='write storage: "1Gi"'):
            run.wait_started()
        run.delete()
        run = stage.start()
        row.count(promised, range(1, write(run, row, 20) + 1))
        end(run, row)
    assert row.lost == 0, row
