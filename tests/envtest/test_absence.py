"""What the cluster does while the webhook is away, not trusted, or another variant."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from injector import GROUP
from tests.envtest import keys, pods
from tests.envtest.webhook import Webhook, configuration, registered, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.envtest.cluster import Cluster

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]

POD_WEBHOOK = f"pods.{GROUP}"


def assert_only_annotated_pods_are_held_up(cluster: Cluster, namespace: str, why: str) -> None:
    refused = cluster.try_create(pods.pod("annotated"), namespace)
    assert refused.code == 1
    assert f'failed calling webhook "{POD_WEBHOOK}"' in refused.error
    assert why in refused.error
    assert not pods.injected(cluster.create(pods.pod("plain", {}), namespace))
    two_writers = pods.workload("Deployment", "shop", replicas=2)
    assert cluster.create(two_writers, namespace)["spec"]["replicas"] == 2


def test_a_webhook_that_is_down_holds_up_annotated_pods_only(cluster: Cluster, empty: str, tmp_path: Path) -> None:
    with serving(tmp_path) as webhook, registered(cluster, empty, webhook.url, webhook.ca):
        assert pods.injected(cluster.create(pods.pod("before"), empty))
        webhook.process.terminate()
        webhook.process.wait(30)
        assert_only_annotated_pods_are_held_up(cluster, empty, "connection refused")


def test_a_wrong_ca_holds_up_annotated_pods_only(cluster: Cluster, webhook: Webhook, empty: str) -> None:
    with registered(cluster, empty, webhook.url, keys.authority("somebody else")):
        assert_only_annotated_pods_are_held_up(cluster, empty, "x509")


def test_a_webhook_that_nobody_reaches_holds_up_annotated_pods_only(
    cluster: Cluster, webhook: Webhook, empty: str
) -> None:
    """As behind a firewall: the connection is never taken up. One second instead of ten."""
    manifest = configuration(cluster)
    for one in manifest["webhooks"]:
        one["timeoutSeconds"] = 1
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/mutate"
        with registered(cluster, empty, url, webhook.ca, manifest):
            assert_only_annotated_pods_are_held_up(cluster, empty, "context deadline exceeded")


def test_a_variant_acts_on_its_own_keys_only(cluster: Cluster, empty: str, tmp_path: Path) -> None:
    group = f"skaffold.{GROUP}"
    manifest = configuration(cluster, "skaffold")
    with (
        serving(tmp_path, {"VARIANT": "skaffold"}) as variant,
        registered(cluster, empty, variant.url, variant.ca, manifest, group),
    ):
        stored = cluster.create(pods.pod("skaffold", pods.asking(group)), empty)
        assert pods.injected(stored)
        assert f"{group}/status" in stored["metadata"]["annotations"]
        assert not pods.injected(cluster.create(pods.pod("plain"), empty))
        asked = pods.asking(group)
        refused = cluster.try_create(pods.workload("Deployment", "shop", asked, replicas=2), empty)
        assert refused.code == 1
        assert cluster.try_create(pods.workload("Deployment", "shop", replicas=2), empty).code == 0


def test_a_gated_pod_runs_where_the_webhook_is_and_waits_where_it_is_not(
    cluster: Cluster, webhook: Webhook, empty: str
) -> None:
    """Without a controller of Pods nothing runs here; a Pod without gates is the scheduler's."""
    gates = [{"name": f"{GROUP}/injected"}]
    waiting = cluster.create(pods.pod("waiting", schedulingGates=gates), empty)
    assert waiting["spec"]["schedulingGates"] == gates
    assert not pods.injected(waiting)
    (condition,) = waiting["status"]["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("PodScheduled", "False", "SchedulingGated")
    named = cluster.try_create(pods.pod("named", schedulingGates=gates, nodeName="a"), empty)
    assert named.code == 1
    assert "schedulingGates" in named.error
    with registered(cluster, empty, webhook.url, webhook.ca):
        stored = cluster.create(pods.pod("running", schedulingGates=gates), empty)
        assert pods.injected(stored)
        assert "schedulingGates" not in stored["spec"]
        assert "conditions" not in stored["status"]
        applied = cluster.create(pods.workload("StatefulSet", "shop"), empty)
        applied["spec"]["template"]["spec"]["schedulingGates"] = gates
        changed = cluster.kubectl("replace", "-o", "json", "-f", "-", stdin=applied, namespace=empty).json
        assert changed["spec"]["template"]["spec"]["schedulingGates"] == gates
        useless = cluster.try_create(pods.pod("useless", {f"{GROUP}/inject": "false"}, schedulingGates=gates), empty)
        assert useless.code == 1
        assert "keeps the Pod from ever starting" in useless.error
