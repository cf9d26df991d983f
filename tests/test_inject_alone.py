"""One annotation is enough: the example's Pod, a running webhook with the operator's file, real Litestream and S3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonpatch
import pytest
import yaml

from injector import GROUP
from tests import reviews, running
from tests.podrunner import Node, Run
from tests.podrunner.images import application
from tests.podrunner.s3 import S3
from tests.test_defaulting import ask, status

Object = dict[str, Any]
EXAMPLE = Path(__file__).parents[1] / "examples" / "11-defaults"
NAMESPACE = "litestream-examples"


def rows(run: Run) -> int:
    """How many rows the application had by its first word."""
    return int(run.wait_log("ticker", " rows").split()[0])


@pytest.mark.slow
@pytest.mark.containers
def test_a_pod_with_inject_alone_keeps_its_rows(tmp_path: Path) -> None:
    pod: Object = yaml.safe_load((EXAMPLE / "pod.yaml").read_text())
    assert pod["metadata"]["annotations"] == {f"{GROUP}/inject": "true"}
    with S3() as s3:
        file = tmp_path / "defaults.yaml"
        file.write_text((EXAMPLE / "defaults.yaml").read_text().replace("http://minio:9000", s3.endpoint))
        with running.running(tmp_path, DEFAULTS_FILE=str(file)) as webhook:
            reply = ask(webhook, pod, NAMESPACE)
            tenant = {**pod, "metadata": {**pod["metadata"], "annotations": {f"{GROUP}/inject": "true"}}}
            tenant["metadata"]["annotations"][f"{GROUP}/replica-path"] = "others/pod/theirs/{database}"
            assert "is not what the operator allows" in ask(webhook, tenant, NAMESPACE)["status"]["message"]
        assert status(reply)["endpoint"] == s3.endpoint
        injected = jsonpatch.apply_patch(pod, reviews.operations(reply))
        image = pod["spec"]["containers"][0]["image"]
        secrets = {"litestream-hook-secret": s3.secret}
        with Node(images={image: application()}, secrets=secrets) as node:
            first = node.start(injected, namespace=NAMESPACE)
            first.wait_started()
            assert rows(first) == 1
            first.wait_log("ticker", "\n3 rows")
            first.delete()
            written = int(first.logs("ticker").split()[-2])
            second = node.start(injected, namespace=NAMESPACE)
            second.wait_started()
            assert rows(second) > written
            second.delete()
