"""Mistakes are told to whoever applies a workload, and lock nobody out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from injector import GROUP
from tests.envtest import pods
from tests.envtest.webhook import Webhook, registered

if TYPE_CHECKING:
    from tests.envtest.cluster import Cluster

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]

RECREATE = {"type": "Recreate"}


def test_a_deployment_of_one_pod_at_a_time_is_stored_unchanged(cluster: Cluster, namespace: str) -> None:
    manifest = pods.workload("Deployment", "shop", replicas=1, strategy=RECREATE)
    done = cluster.try_create(manifest, namespace)
    assert "Warning" not in done.error
    template = done.json["spec"]["template"]
    assert template["metadata"] == manifest["spec"]["template"]["metadata"] | {"creationTimestamp": None} or (
        template["metadata"] == manifest["spec"]["template"]["metadata"]
    )
    assert [one["name"] for one in template["spec"]["containers"]] == ["app"]
    assert "initContainers" not in template["spec"]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"replicas": 2, "strategy": RECREATE}, "spec.replicas"),
        ({"replicas": 1}, "spec.strategy"),
        ({"replicas": 1, "strategy": {"type": "RollingUpdate"}}, "spec.strategy"),
    ],
    ids=["two-replicas", "default-strategy", "rolling-update"],
)
def test_a_deployment_with_two_writers_is_refused(
    cluster: Cluster, namespace: str, spec: pods.Object, field: str
) -> None:
    refused = cluster.try_create(pods.workload("Deployment", "shop", **spec), namespace)
    assert refused.code == 1
    assert field in refused.error


def test_single_writer_warn_lets_it_pass_with_a_warning(cluster: Cluster, namespace: str) -> None:
    manifest = pods.workload("Deployment", "shop", pods.asking(single_writer="warn"), replicas=2)
    done = cluster.try_create(manifest, namespace)
    assert done.code == 0, done.error
    assert "Warning:" in done.error
    assert "spec.replicas" in done.error


def test_wrong_annotations_of_a_template_are_refused_where_they_are_applied(cluster: Cluster, namespace: str) -> None:
    manifest = pods.workload("StatefulSet", "shop", pods.asking(storage="lots"), serviceName="shop")
    refused = cluster.try_create(manifest, namespace)
    assert refused.code == 1
    assert f"{GROUP}/storage" in refused.error
    assert "lots" in refused.error


def test_keys_on_the_workload_instead_of_its_template_are_refused(cluster: Cluster, namespace: str) -> None:
    manifest = pods.workload("StatefulSet", "shop", {}, serviceName="shop")
    manifest["metadata"]["annotations"] = pods.asking()
    refused = cluster.try_create(manifest, namespace)
    assert refused.code == 1
    assert "spec.template.metadata.annotations" in refused.error


@pytest.mark.parametrize("policy", [None, "Allow"])
def test_a_cron_job_whose_runs_may_overlap_is_refused(cluster: Cluster, namespace: str, policy: str | None) -> None:
    asked = pods.asking(replica_path="{namespace}/cron/{database}")
    template = {"metadata": {"annotations": asked}, "spec": pods.pod_spec(restartPolicy="Never")}
    spec = {"schedule": "0 0 * * *", "jobTemplate": {"spec": {"template": template}}}
    manifest = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "shop"}, "spec": spec}
    if policy:
        spec["concurrencyPolicy"] = policy
    refused = cluster.try_create(manifest, namespace)
    assert refused.code == 1
    assert "concurrencyPolicy" in refused.error
    spec["concurrencyPolicy"] = "Forbid"
    done = cluster.try_create(manifest, namespace)
    assert done.code == 0, done.error


def test_what_was_wrong_before_can_still_be_changed_and_deleted(cluster: Cluster, webhook: Webhook, empty: str) -> None:
    manifest = pods.workload("Deployment", "shop", replicas=2)
    manifest["metadata"]["finalizers"] = ["example.com/held"]
    cluster.create(manifest, empty)
    with registered(cluster, empty, webhook.url, webhook.ca):
        labelled = cluster.kubectl("label", "deployment", "shop", "team=a", namespace=empty)
        assert labelled.code == 0, labelled.error
        assert "Warning:" in labelled.error
        worse = {f"{GROUP}/storage": "lots"}
        patch = {"spec": {"template": {"metadata": {"annotations": worse}}}}
        refused = cluster.kubectl(
            "patch", "deployment", "shop", "--patch-file=/dev/stdin", stdin=patch, namespace=empty
        )
        assert refused.code == 1
        assert f"{GROUP}/storage" in refused.error
        gone = cluster.kubectl("delete", "deployment", "shop", "--wait=false", namespace=empty)
        assert gone.code == 0, gone.error
        released = cluster.kubectl(
            "patch",
            "deployment",
            "shop",
            "--type=merge",
            "-p",
            '{"metadata":{"finalizers":null}}',
            namespace=empty,
        )
        assert released.code == 0, released.error
        assert cluster.kubectl("get", "deployment", "shop", namespace=empty).code != 0
