"""`status` in front of a real API server. Pods run nowhere: there is no kubelet, and no exec; rights are real."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from injector.command import status
from injector.command.kubectl import Kubectl
from injector.pod.containers import REPLICATE
from tests import reviews
from tests.envtest import pods

if TYPE_CHECKING:
    from tests.envtest.cluster import Cluster

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]


@pytest.fixture
def admin(cluster: Cluster) -> Kubectl:
    """With all rights."""
    return Kubectl(kubeconfig=str(cluster.kubeconfig), program=str(cluster.assets / "kubectl"))


def user(cluster: Cluster, namespace: str, *rights: str) -> Kubectl:
    """One who may do only this in the namespace; a right is VERBS RESOURCE."""
    for number, right in enumerate(rights):
        verbs, resource = right.split()
        made = cluster.kubectl(
            "create", "role", f"r{number}", f"--verb={verbs}", f"--resource={resource}", namespace=namespace
        )
        assert made.code == 0, made.error
        bound = cluster.kubectl(
            "create",
            "rolebinding",
            f"r{number}",
            f"--role=r{number}",
            f"--serviceaccount={namespace}:default",
            namespace=namespace,
        )
        assert bound.code == 0, bound.error
    config = cluster.kubeconfig_of(cluster.token(namespace, "default"))
    return Kubectl(kubeconfig=str(config), program=str(cluster.assets / "kubectl"))


def runs(cluster: Cluster, namespace: str, name: str) -> None:
    """Say of a Pod what its kubelet would: that its sidecar runs."""
    state = {"name": REPLICATE, "image": "i", "imageID": "", "ready": True, "restartCount": 0}
    state["state"] = {"running": {"startedAt": "2026-11-29T11:00:00Z"}}
    patch = json.dumps({"status": {"phase": "Running", "initContainerStatuses": [state]}})
    done = cluster.kubectl("patch", "pod", name, "--subresource=status", "-p", patch, namespace=namespace)
    assert done.code == 0, done.error


def said(kubectl: Kubectl, capsys: pytest.CaptureFixture[str], **asked: Any) -> tuple[int, dict[str, Any]]:
    code = status.run(kubectl, reviews.DEFAULTS, output="json", **asked)
    return code, json.loads(capsys.readouterr().out)


def test_pods_are_found_as_the_webhook_has_left_them(
    cluster: Cluster, admin: Kubectl, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.create(pods.pod("web"), namespace)
    cluster.create(pods.pod("plain", {}), namespace)
    _, found = said(admin, capsys, namespace=namespace)
    (database,) = found["databases"]
    assert (database["name"], database["database"], database["state"]) == ("web", pods.DATABASE, "waiting")
    assert database["replica"] == f"s3://litestream/{namespace}/pod/web{pods.DATABASE}"
    _, everywhere = said(admin, capsys, everywhere=True)
    assert {each["namespace"] for each in everywhere["databases"]} >= {namespace}
    assert said(admin, capsys, namespace=namespace, workload="pod/plain")[0] == 1


def test_a_pod_that_was_made_while_the_webhook_was_away_is_told(
    cluster: Cluster, admin: Kubectl, empty: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.create(pods.pod("web"), empty)
    code, found = said(admin, capsys, namespace=empty)
    assert (code, found["totals"]["missing"], found["databases"][0]["state"]) == (1, 1, "missing")


def test_one_who_may_see_pods_and_nothing_else_is_told_what_is_missing(
    cluster: Cluster, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.create(pods.pod("web"), namespace)
    runs(cluster, namespace, "web")
    code, found = said(user(cluster, namespace, "get,list pods"), capsys, namespace=namespace)
    assert (code, found["databases"][0]["state"]) == (2, "unknown")
    assert [each["severity"] for each in found["problems"]] == ["unknown", "unknown"]
    first, second = (each["message"] for each in found["problems"])
    assert re.match(f"Pods that are refused are not shown: you may not list events in namespace {namespace}; ", first)
    assert re.match(f"you may not create pods/exec in namespace {namespace}; with this rule in a Role of yours", second)


def test_one_who_may_not_see_pods_reads_so(
    cluster: Cluster, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = user(cluster, namespace)
    for asked, place in (
        ({"namespace": namespace}, f"in namespace {namespace}"),
        ({"everywhere": True}, "in all namespaces"),
    ):
        assert status.run(nobody, reviews.DEFAULTS, **asked) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith(f"you may not list pods {place}; with this rule in a ")
        assert printed.err.count("\n") == 1


def test_a_pod_whose_kubelet_is_away_is_one_sentence(
    cluster: Cluster, admin: Kubectl, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no node at all here."""
    cluster.create(pods.pod("web"), namespace)
    runs(cluster, namespace, "web")
    code, found = said(admin, capsys, namespace=namespace)
    (problem,) = found["problems"]
    assert (code, problem["severity"]) == (2, "unknown")
    assert problem["message"].startswith(f"kubectl can't run a command in container {REPLICATE} of Pod web")


def test_a_refused_pod_is_told_by_the_event_of_its_controller(
    cluster: Cluster, admin: Kubectl, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The event is written as a controller writes it, with what the API server answered."""
    refused = cluster.try_create(pods.pod("web", pods.asking(bucket="My")), namespace)
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "web.1"},
        "involvedObject": {"kind": "StatefulSet", "name": "web", "namespace": namespace},
        "reason": "FailedCreate",
        "type": "Warning",
        "message": f"create Pod web-0 in StatefulSet web failed error: {refused.error}",
        "lastTimestamp": "2026-11-29T11:00:00Z",
    }
    cluster.create(event, namespace)
    code, found = said(admin, capsys, namespace=namespace, workload="sts/web")
    assert code == 1
    (problem,) = found["problems"]
    assert (problem["kind"], problem["name"]) == ("StatefulSet", "web")
    assert problem["message"].startswith("its Pods are refused: ")
    assert 'litestream-hook.kaidotio.github.io/bucket: "My": write an S3 bucket name' in problem["message"]
    assert "\n" not in problem["message"]
