"""Two Pods that write one replica lose rows: what the guard and the checks of workloads protect from."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import jsonpatch

from injector.admission import webhook
from injector.serving import server as serving
from tests import reviews, standin
from tests.durability.stage import (
    CONTAINER_05,
    FIRST_RESTORE,
    NATIVE_05,
    SCENARIO,
    CorruptDatabase,
    Row,
    Stage,
    Way,
    committed,
    end,
    started,
    ways,
)
from tests.podrunner import BlockedPod
from tests.podrunner.writer import acknowledged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.podrunner.s3 import S3
    from tests.standin import Server

pytestmark = SCENARIO
NAMESPACE = "default"
SECOND = 1_000_000  # the first row of the second writer: nobody else's number
TOGETHER_SECONDS = 4


def replacement(pod: dict[str, Any]) -> dict[str, Any]:
    """The Pod as a ReplicaSet of its Deployment makes it: it has no name yet."""
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-6d4cf56db6", "uid": "1", "controller": True}
    labels = {"pod-template-hash": "6d4cf56db6"}
    metadata = {**pod["metadata"], "name": "", "labels": labels, "ownerReferences": [owner]}
    return {**pod, "metadata": metadata}


def deployment(pod: dict[str, Any]) -> dict[str, Any]:
    """A Deployment of such Pods, with Kubernetes' default strategy."""
    template = {"metadata": {"annotations": pod["metadata"]["annotations"]}, "spec": pod["spec"]}
    spec = {"selector": {"matchLabels": {}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


def verdict(server: Server, pod: dict[str, Any]) -> dict[str, Any]:
    """The webhook's response to a Pod in a cluster whose API knows the Pods of `server`."""

    async def ask() -> webhook.Answer:
        cluster = server.cluster()
        try:
            body = json.dumps(reviews.review(pod, namespace=NAMESPACE)).encode()
            guard = serving._guard(reviews.DEFAULTS, cluster)
            return await webhook.answer("POST", "/mutate", body, reviews.DEFAULTS, guard)
        finally:
            await cluster.close()

    response: dict[str, Any] = json.loads(asyncio.run(ask()).body)["response"]
    return response


@ways(NATIVE_05, every=(NATIVE_05, CONTAINER_05))
def test_the_guard_refuses_the_very_pod_that_would_cost_rows(
    s3: S3, way: Way, tmp_path: Path, measure: Callable[[str, Way], Row]
) -> None:
    """The API server is a stand-in here: what counts is the webhook's verdict on the very Pods that are run.

    Each writer has a database of its own, so a replica can keep the rows of one at best; the row tells how many.
    """
    row = measure(f"two writers of one replica for {TOGETHER_SECONDS} s, which the guard refuses", way)
    with Stage(way, s3, annotations={"replica-path": "{namespace}/two-writers/" + way.sidecar}) as stage:
        one = replacement(stage.pod())
        two = replacement(stage.pod(arguments=["--first", str(SECOND)]))
        with standin.serving(tmp_path) as server:
            assert "spec.strategy.type" in reviews.denied(deployment(stage.pod()))
            let_in = jsonpatch.apply_patch(one, reviews.operations(verdict(server, one)))
            name = let_in["metadata"]["name"]
            let_in["metadata"]["namespace"] = NAMESPACE
            server.api.put("pods", NAMESPACE, let_in | {"status": {"phase": "Running"}})
            refused = verdict(server, two)
            assert (refused["allowed"], refused["status"]["code"]) == (False, 403)
            assert f'Pod "{name}" in namespace "{NAMESPACE}" still writes the replica' in refused["status"]["message"]
            del server.api.objects["pods", NAMESPACE, name]
            assert verdict(server, two)["allowed"]

        first = stage.run(reviews.injected(one | {"metadata": {**one["metadata"], "name": "web-old"}}))
        started(first, row)
        committed(first, 100)
        second = stage.run(reviews.injected(two | {"metadata": {**two["metadata"], "name": "web-new"}}))
        started(second, row)
        committed(second, SECOND)
        time.sleep(TOGETHER_SECONDS)
        promised = {*end(first, row), *end(second, row)}
        assert all(len(acknowledged(writer.logs("app"))) > 100 for writer in (first, second))
        try:
            found = stage.restored(row)
        except CorruptDatabase:
            found = set()
        except BlockedPod as blocked:  # the replica can't be read any more: all is lost
            if blocked.container != FIRST_RESTORE:
                raise
            found = set()
        row.count(promised, found)
