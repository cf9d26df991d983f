"""The commands' kubectl in front of a real API server, with rights and without. There is no kubelet: nothing is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from injector.command.kubectl import Kubectl, KubectlError, MissingRight, NotFound
from tests.envtest import pods

if TYPE_CHECKING:
    from tests.envtest.cluster import Cluster

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]


@pytest.fixture
def admin(cluster: Cluster) -> Kubectl:
    """With all rights."""
    return Kubectl(kubeconfig=str(cluster.kubeconfig), program=str(cluster.assets / "kubectl"))


@pytest.fixture
def nobody(cluster: Cluster, empty: str) -> Kubectl:
    """With the rights of a ServiceAccount that nobody gave any."""
    config = cluster.kubeconfig_of(cluster.token(empty, "default"))
    return Kubectl(kubeconfig=str(config), program=str(cluster.assets / "kubectl"))


def test_objects_are_made_found_changed_and_deleted(admin: Kubectl, empty: str) -> None:
    stored = admin.create(pods.pod("web", {}), "pods", namespace=empty)
    assert stored["metadata"]["uid"]
    with pytest.raises(KubectlError, match=f"the API server refuses to create Pod in namespace {empty}") as raised:
        admin.create(pods.pod("web", {}), "pods", namespace=empty)
    assert raised.value.reason == "AlreadyExists"
    changed = pods.pod("web", {}) | {"metadata": {"name": "web", "labels": {"a": "b"}}}
    assert admin.apply(changed, "pods", namespace=empty)["metadata"]["labels"] == {"a": "b"}
    assert admin.get("pods", "web", namespace=empty)["metadata"]["uid"] == stored["metadata"]["uid"]
    found = [admin.find("pods", namespace=empty, labels=f"a={value}") for value in "bc"]
    assert [[pod["metadata"]["name"] for pod in each] for each in found] == [["web"], []]
    assert empty in {pod["metadata"]["namespace"] for pod in admin.find("pods", everywhere=True)}
    admin.delete("pods", "web", namespace=empty)
    with pytest.raises(NotFound, match=f"^there is no Pod web in namespace {empty}, or no longer$"):
        admin.get("pods", "web", namespace=empty)
    admin.delete("pods", "web", namespace=empty)


def test_a_pod_that_is_gone_is_named(admin: Kubectl, empty: str) -> None:
    with pytest.raises(NotFound, match=f"^there is no Pod gone in namespace {empty}, or no longer$"):
        admin.execute("gone", "app", ["true"], namespace=empty)
    with pytest.raises(NotFound, match=f"^there is no Pod gone in namespace {empty}, or no longer$"):
        admin.logs("gone", "app", namespace=empty)


def test_a_pod_that_runs_nowhere_is_one_sentence(admin: Kubectl, empty: str) -> None:
    admin.create(pods.pod("web", {}), "pods", namespace=empty)
    with pytest.raises(KubectlError, match=f"run a command in container app of Pod web in namespace {empty}") as raised:
        admin.execute("web", "app", ["true"], namespace=empty)
    assert "\n" not in str(raised.value)


def test_each_missing_right_is_named(nobody: Kubectl, empty: str) -> None:
    with pytest.raises(MissingRight, match=f"^you may not list pods in namespace {empty}; .*Role"):
        nobody.find("pods", namespace=empty)
    with pytest.raises(MissingRight, match=r"^you may not list pods in all namespaces; .*ClusterRole"):
        nobody.find("pods", everywhere=True)
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}}
    with pytest.raises(MissingRight, match=r"^you may not create jobs\.batch in namespace"):
        nobody.create(job, "jobs.batch", namespace=empty)


def test_one_who_sees_pods_but_may_not_exec_reads_so(cluster: Cluster, nobody: Kubectl, empty: str) -> None:
    cluster.kubectl("create", "role", "viewer", "--verb=get,list", "--resource=pods", namespace=empty)
    cluster.kubectl(
        "create", "rolebinding", "viewer", "--role=viewer", f"--serviceaccount={empty}:default", namespace=empty
    )
    cluster.create(pods.pod("web", {}), empty)
    with pytest.raises(
        MissingRight, match=r'^you may not create pods/exec .*resources: \["pods/exec"\], verbs: \["create"\]'
    ):
        nobody.execute("web", "app", ["true"], namespace=empty)
    with pytest.raises(MissingRight, match=r"^you may not create pods/exec "):
        nobody.require("create", "pods/exec", namespace=empty)
    nobody.require("list", "pods", namespace=empty)
