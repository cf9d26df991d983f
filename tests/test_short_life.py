"""A Pod that ends within a second of its start keeps its rows: real Litestream, S3 and containers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from injector import GROUP
from tests import reviews
from tests.podrunner import Node
from tests.podrunner.images import application
from tests.podrunner.s3 import S3

pytestmark = [pytest.mark.slow, pytest.mark.containers]
ROWS = 20


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with S3() as server:
        yield server


def job_pod(s3: S3, image: str) -> dict[str, Any]:
    """The Pod of a Job whose application commits its rows in a fifth of a second and is done."""
    databases = "/data/a.db,/data/b.db"
    asked = {"inject": "true", "path": databases, "endpoint": s3.endpoint, "image": image}
    arguments = ["--rate", "100", "--rows", str(ROWS), "--database", "/data/a.db", "--database", "/data/b.db"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": f"import-{image.rpartition(':')[2]}", "controller": True}
    return reviews.injected(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "generateName": "import-",
                "annotations": {f"{GROUP}/{key}": text for key, text in asked.items()},
                "ownerReferences": [{**owner, "uid": "1"}],
            },
            "spec": {
                "restartPolicy": "Never",
                "securityContext": {"runAsUser": 1000, "runAsGroup": 1000},
                "containers": [{"name": "app", "image": "writer", "args": arguments}],
            },
        }
    )


@pytest.mark.parametrize("tag", ["0.5.17", "0.5.17-scratch", "0.3.13"])
def test_a_job_that_is_done_at_once_loses_no_row(s3: S3, tag: str) -> None:
    pod = job_pod(s3, f"litestream/litestream:{tag}")
    with Node(images={"writer": application()}, secrets={"litestream-hook-secret": s3.secret}) as node:
        for life in range(3):
            run = node.start(pod)
            result = run.wait_ended()
            assert result.phase == "Succeeded"
            assert f"starting after {life * ROWS}\n" in run.logs("app")
