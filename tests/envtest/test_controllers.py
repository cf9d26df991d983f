"""What the real controllers make of workloads whose Pods are injected."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from injector import GROUP
from tests import velero
from tests.envtest import controllers, pods
from tests.envtest.cluster import Cluster
from tests.envtest.installation import Installation, installed

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]

T = TypeVar("T")


@pytest.fixture(scope="module")
def installation(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The webhook as it is installed, and the controllers of workloads."""
    folder = tmp_path_factory.mktemp("controllers")
    with installed(cluster, folder) as one, one.replica(), controllers.running(cluster, folder):
        yield one


def eventually(find: Callable[[], T], what: str) -> T:
    """What `find` gives as soon as that is something."""
    deadline = time.monotonic() + 90
    while not (found := find()):
        assert time.monotonic() < deadline, f"never seen: {what}"
        time.sleep(0.2)
    return found


def stored(cluster: Cluster, namespace: str, count: int = 1) -> list[dict[str, Any]]:
    """The namespace's Pods, once there are so many."""

    def find() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = cluster.kubectl("get", "pods", "-o", "json", namespace=namespace).json["items"]
        return found if len(found) == count else []

    return eventually(find, f"{count} Pods in {namespace}")


def replicas(pod: dict[str, Any]) -> list[str]:
    """The replica paths of a Pod, by its status."""
    return list(json.loads(pod["metadata"]["annotations"][f"{GROUP}/status"])["databases"].values())


@pytest.mark.usefixtures("installation")
def test_the_pods_of_every_controller_replicate_to_their_workloads_path(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}
    by_node = pods.asking(replica_path="{namespace}/{kind}/{workload}/{node}/{database}")
    daemon = pods.workload("DaemonSet", "shop", by_node)
    daemon["spec"]["template"]["spec"]["tolerations"] = [{"operator": "Exists"}]  # no kubelet makes the node ready
    job = pods.workload("Job", "once")
    job["apiVersion"] = "batch/v1"
    del job["spec"]["selector"]
    job["spec"]["template"]["spec"]["restartPolicy"] = "Never"
    cluster.apply(
        node,
        pods.workload("Deployment", "shop", replicas=1, strategy={"type": "Recreate"}),
        pods.workload("StatefulSet", "shop", replicas=2, serviceName="shop", podManagementPolicy="Parallel"),
        daemon,
        job,
        namespace=namespace,
    )
    found = stored(cluster, namespace, 5)
    assert all(pods.injected(pod) for pod in found)
    assert sorted(path for pod in found for path in replicas(pod)) == [
        f"{namespace}/daemonset/shop/node-1/data/app.db",
        f"{namespace}/deployment/shop/data/app.db",
        f"{namespace}/job/once/data/app.db",
        f"{namespace}/statefulset/shop-0/data/app.db",
        f"{namespace}/statefulset/shop-1/data/app.db",
    ]


@pytest.mark.usefixtures("installation")
def test_a_daemon_with_the_gate_runs_if_it_is_injected_and_waits_if_no_webhook_sees_it(cluster: Cluster) -> None:
    gate = {"name": f"{GROUP}/injected"}
    cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}})

    def daemon(asked: dict[str, str]) -> dict[str, Any]:
        manifest = pods.workload("DaemonSet", "shop", asked)
        manifest["spec"]["template"]["spec"] |= {"tolerations": [{"operator": "Exists"}], "schedulingGates": [gate]}
        namespace = cluster.namespace()
        cluster.apply(manifest, namespace=namespace)
        (found,) = stored(cluster, namespace)
        return found

    by_node = pods.asking(replica_path="{namespace}/{kind}/{workload}/{node}/{database}")
    assert "schedulingGates" not in daemon(by_node)["spec"]
    unseen = daemon({})
    assert unseen["spec"]["schedulingGates"] == [gate]
    assert [each["reason"] for each in unseen["status"]["conditions"]] == ["SchedulingGated"]


@pytest.mark.usefixtures("installation")
def test_a_replacement_waits_for_the_pod_that_still_writes_and_comes_when_it_is_gone(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    manifest = pods.workload("Deployment", "shop", replicas=1, strategy={"type": "Recreate"})
    # On a node, so that a deletion waits for a kubelet as in a cluster.
    manifest["spec"]["template"]["spec"]["nodeName"] = "node-of-nobody"
    cluster.apply(manifest, namespace=namespace)
    (first,) = stored(cluster, namespace)
    name = first["metadata"]["name"]
    cluster.kubectl("delete", "pod", name, "--wait=false", namespace=namespace)

    def refusals() -> list[str]:
        answer = cluster.kubectl(
            "get", "events", "--field-selector=reason=FailedCreate", "-o", "json", namespace=namespace
        )
        return [event["message"] for event in answer.json["items"]]

    (message, *_) = eventually(refusals, "the ReplicaSet's FailedCreate")
    assert f'Pod "{name}" in namespace "{namespace}" still writes the replica' in message
    (only,) = stored(cluster, namespace)
    assert only["metadata"]["uid"] == first["metadata"]["uid"]

    cluster.kubectl("delete", "pod", name, "--force", "--grace-period=0", namespace=namespace)

    def successor() -> list[dict[str, Any]]:
        return [pod for pod in stored(cluster, namespace) if pod["metadata"]["uid"] != first["metadata"]["uid"]]

    (second,) = eventually(successor, "the ReplicaSet's new Pod")
    assert pods.injected(second)
    assert replicas(second) == replicas(first)


@pytest.mark.usefixtures("installation")
def test_a_pod_that_velero_restores_is_taken_back_by_its_workload(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    cluster.apply(pods.workload("Deployment", "shop", replicas=1, strategy={"type": "Recreate"}), namespace=namespace)
    (first,) = stored(cluster, namespace)
    kinds = ("deployment", "replicaset", "pod")  # nobody collects garbage here
    backup = [cluster.kubectl("get", kind, "-o", "json", namespace=namespace).json["items"][0] for kind in kinds]
    for kind in kinds:
        deleted = cluster.kubectl("delete", kind, "--all", "--force", "--grace-period=0", namespace=namespace)
        assert deleted.code == 0, deleted.error
    for one in reversed(backup):  # as Velero does: Pods first
        cluster.create(velero.restored(one), namespace)

    def owned() -> list[dict[str, Any]]:
        return [pod for pod in stored(cluster, namespace) if pod["metadata"].get("ownerReferences")]

    (again,) = eventually(owned, "the restored Pod with an owner")
    assert again["metadata"]["name"] == first["metadata"]["name"]
    assert replicas(again) == replicas(first) == [f"{namespace}/deployment/shop/data/app.db"]
    assert again["spec"]["containers"] == first["spec"]["containers"]
