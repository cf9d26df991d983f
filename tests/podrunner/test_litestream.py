"""A Pod as the webhook makes it, written by hand: its rows survive its deletion."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tests.podrunner import BlockedPod, Node
from tests.podrunner.images import application
from tests.podrunner.s3 import S3
from tests.podrunner.writer import acknowledged

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.containers, pytest.mark.slow]

IMAGES = {"0.5": "litestream/litestream:0.5.17", "0.3": "litestream/litestream:0.3.13"}
DATABASE = "/data/app.db"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with S3() as server:
        yield server


def replicated(s3: S3, version: str, path: str) -> dict[str, Any]:
    """A Pod whose writer, as uid 1000, has its database restored and replicated."""
    replica = {
        "type": "s3",
        "bucket": "litestream",
        "path": path,
        "endpoint": s3.endpoint,
        "region": "us-east-1",
        "force-path-style": True,
        "sync-interval": "1s",
    }
    written: dict[str, Any] = {"dbs": [{"path": DATABASE, "replicas": [replica]}]}
    if version == "0.5":
        written["socket"] = {"enabled": True, "path": "/etc/litestream/s.sock"}
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "runAsGroup": 1000,
    }
    mounts = [
        {"name": "config", "mountPath": "/etc/litestream"},
        {"name": "storage", "mountPath": "/data"},
    ]
    keys = [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": "s3", "key": key}}}
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    ]
    common: dict[str, Any] = {
        "image": IMAGES[version],
        "securityContext": security,
        "volumeMounts": mounts,
        "env": keys,
    }
    flags = ["-config", "/etc/litestream/litestream.yml", "-no-expand-env"]
    alive: dict[str, Any] = {"exec": {"command": ["litestream", "info", "-socket", "/etc/litestream/s.sock"]}}
    replicate = {
        **common,
        "name": "replicate",
        "restartPolicy": "Always",
        "args": ["replicate", *flags],
        "resources": {"limits": {"memory": "256Mi"}},
    }
    if version == "0.5":
        replicate["startupProbe"] = {**alive, "periodSeconds": 1, "failureThreshold": 60, "timeoutSeconds": 5}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "app", "namespace": "default"},
        "spec": {
            "terminationGracePeriodSeconds": 30,
            "initContainers": [
                {
                    **common,
                    "name": "init",
                    "image": "busybox:1.37",
                    "command": ["sh", "-ec", 'umask 077; echo "$CONFIG" > /etc/litestream/litestream.yml'],
                    "env": [{"name": "CONFIG", "value": json.dumps(written)}],
                },
                {
                    **common,
                    "name": "restore-0",
                    "args": ["restore", *flags, "-if-db-not-exists", "-if-replica-exists", DATABASE],
                },
                replicate,
            ],
            "containers": [
                {
                    "name": "app",
                    "image": "writer",
                    "args": ["--database", DATABASE, "--rate", "100", "--drain", "1"],
                    "volumeMounts": [{"name": "storage", "mountPath": "/data"}],
                    "securityContext": {"runAsUser": 1000, "runAsGroup": 1000},
                }
            ],
            "volumes": [
                {"name": "config", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "storage", "emptyDir": {"sizeLimit": "1Gi"}},
            ],
        },
    }


@pytest.mark.parametrize("version", ["0.5", "0.3"])
def test_rows_survive_deletion_on_empty_volumes(s3: S3, version: str) -> None:
    promised: list[int] = []
    with Node(images={"writer": application()}, secrets={"s3": s3.secret}) as node:
        for _ in range(2):
            run = node.start(replicated(s3, version, f"survive/{version}"))
            run.wait_started()
            run.wait_log("app", f"committed {max(promised, default=0) + 50}\n")
            result = run.delete()
            assert result.containers["app"].exit_code == 0
            assert result.containers["replicate"].exit_code == 0
            assert f"starting after {max(promised, default=0)}\n" in run.logs("app")
            promised += acknowledged(run.logs("app"))
        run = node.start(replicated(s3, version, f"survive/{version}"))
        run.wait_started()
        database = run.volume("storage") / "app.db"
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as reader:
            rows = {number for (number,) in reader.execute("SELECT number FROM entry")}
        reader.close()
        assert database.stat().st_uid == 1000
    assert promised == list(range(1, len(promised) + 1))
    assert set(promised) <= rows
    assert s3.list_keys("litestream", f"survive/{version}/")


def test_a_killed_node_loses_at_most_what_was_not_synced(s3: S3) -> None:
    with Node(images={"writer": application()}, secrets={"s3": s3.secret}) as node:
        run = node.start(replicated(s3, "0.5", "killed"))
        run.wait_started()
        run.wait_log("app", "committed 300\n")
        result = run.kill_node()
        assert {result.containers[name].exit_code for name in ("app", "replicate")} == {137}
        promised = acknowledged(run.logs("app"))
        again = node.start(replicated(s3, "0.5", "killed"))
        again.wait_started()
        log = again.wait_log("app", "starting after ")
    restored = int(log.split("starting after ")[1].split()[0])
    assert 1 <= restored <= promised[-1]


def test_a_failed_restore_blocks_the_pod_and_its_log_says_why(s3: S3) -> None:
    wrong = {**s3.secret, "AWS_SECRET_ACCESS_KEY": "wrong"}
    with Node(images={"writer": application()}, secrets={"s3": wrong}) as node:
        run = node.start(replicated(s3, "0.5", "blocked"))
        with pytest.raises(BlockedPod, match="restore-0") as blocked:
            run.wait_started()
        assert "SignatureDoesNotMatch" in blocked.value.log
        assert run.containers["app"].lives == 0
