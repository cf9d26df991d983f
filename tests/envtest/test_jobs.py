"""The Jobs of `verify` and `restore` in front of a real API server and Job controller. No kubelet runs their Pods."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from injector import cli
from injector.command import UNREADABLE, restore, restoring, verify
from injector.command.kubectl import Kubectl
from injector.command.subject import subjects
from injector.pod import job
from tests import reviews
from tests.envtest import pods
from tests.envtest.cluster import started
from tests.envtest.installation import NAME, Installation, installed
from tests.envtest.test_controllers import eventually, stored

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.envtest.cluster import Cluster

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
CONTROLLERS = ("statefulset-controller", "job-controller")


@pytest.fixture(scope="module")
def installation(assets: Path, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The webhook as it is installed, and the controllers of StatefulSets and Jobs."""
    program = assets / "kube-controller-manager"
    if not os.access(program, os.X_OK):
        pytest.skip("the folder of KUBEBUILDER_ASSETS has no kube-controller-manager")
    folder = tmp_path_factory.mktemp("jobs")
    command = [
        str(program),
        f"--kubeconfig={cluster.kubeconfig}",
        f"--controllers={','.join(CONTROLLERS)}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        "--secure-port=0",
    ]
    with installed(cluster, folder) as one, one.replica(), started(command, folder / "controllers.log"):
        yield one


@pytest.fixture
def admin(cluster: Cluster) -> Kubectl:
    """With all rights."""
    return Kubectl(kubeconfig=str(cluster.kubeconfig), program=str(cluster.assets / "kubectl"))


@pytest.fixture
def shop(cluster: Cluster, installation: Installation) -> str:  # noqa: ARG001
    """A namespace of the standard `restricted` with an injected StatefulSet."""
    namespace = cluster.namespace(RESTRICTED)
    cluster.apply(pods.workload("StatefulSet", "shop", replicas=1, serviceName="shop"), namespace=namespace)
    stored(cluster, namespace)
    return namespace


def leases(cluster: Cluster) -> list[str]:
    found = cluster.kubectl("get", "leases", "-o", "json", namespace=NAME).json["items"]
    return [one["metadata"]["resourceVersion"] for one in found]


def pod_of(cluster: Cluster, namespace: str, name: str) -> dict[str, Any]:
    """The Pod that the controller makes for a Job."""

    def find() -> list[dict[str, Any]]:
        selector = f"--selector=batch.kubernetes.io/job-name={name}"
        found: list[dict[str, Any]] = cluster.kubectl("get", "pods", selector, "-o", "json", namespace=namespace).json[
            "items"
        ]
        return found

    return eventually(find, f"the Pod of Job {name}")[0]


@pytest.mark.parametrize("living", [True, False], ids=["living", "gone"])
@pytest.mark.parametrize("mode", ["verify", "hold", "fill"])
def test_the_job_is_accepted_where_its_workload_is_and_neither_injected_nor_given_a_lease(
    cluster: Cluster, admin: Kubectl, shop: str, mode: job.Mode, living: bool
) -> None:
    if not living:
        cluster.kubectl("scale", "statefulset", "shop", "--replicas=0", namespace=shop)
        cluster.kubectl("delete", "pod", "shop-0", "--force", "--grace-period=0", namespace=shop)
    (subject,) = subjects(admin, "statefulset/shop", shop, reviews.DEFAULTS)
    assert (subject.living, dict(subject.source.databases)) == (
        living,
        {pods.DATABASE: f"{shop}/statefulset/shop-0/data/app.db"},
    )
    before = leases(cluster)
    asked = job.Asked(mode, [pods.DATABASE], claim="data")
    admin.create(job.job(subject.source, asked, "by-hand", shop), "jobs.batch", namespace=shop)
    pod = pod_of(cluster, shop, "by-hand")
    assert pods.injected(pod) == []
    assert pods.names(pod, "containers") == [job.CONTAINER]
    assert "initContainers" not in pod["spec"]
    assert "annotations" not in pod["metadata"]
    assert leases(cluster) == before
    mounts = [mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]]
    assert mounts == [job.DIRECTORY] + ["/data"] * (mode == "fill"), "a ServiceAccount's token, or the database"


def test_a_job_that_does_not_end_in_time_is_deleted_and_one_sentence(
    shop: str, cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(cluster.assets), prepend=":")
    where = ["--namespace", shop, "--kubeconfig", str(cluster.kubeconfig)]
    assert cli.main(["verify", "sts/shop", "--timeout", "2s", *where]) == UNREADABLE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("the Pod of Job litestream-verify-shop-")
    assert line.endswith(" is gone: Job was active longer than specified deadline; write a longer --timeout")
    jobs = cluster.kubectl("get", "jobs", "-o", "json", namespace=shop).json["items"]
    assert all(one["metadata"].get("deletionTimestamp") for one in jobs)


def test_a_job_whose_pod_the_standard_refuses_says_so(
    cluster: Cluster, admin: Kubectl, shop: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever changes the namespace's standard later leaves Pods that live as they are."""
    monkeypatch.setattr(restoring, "UNMADE_SECONDS", 5)
    root = pods.pod_spec(securityContext={"runAsUser": 0})
    root["containers"][0]["securityContext"] = {}
    cluster.kubectl("label", "namespace", shop, "pod-security.kubernetes.io/enforce=privileged", "--overwrite")
    manifest = {**pods.pod("root"), "spec": root}
    cluster.create(manifest, shop)
    cluster.kubectl("label", "namespace", shop, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    assert verify.run(verify.Choice("pod/root", shop), admin, reviews.DEFAULTS) == UNREADABLE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("no Pod is made for Job litestream-verify-root-")
    assert "violates PodSecurity" in line


def test_each_missing_right_and_each_missing_object_is_one_sentence(
    cluster: Cluster, admin: Kubectl, shop: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def said(choice: Any, kubectl: Kubectl) -> str:
        run = verify.run if isinstance(choice, verify.Choice) else restore.run
        assert run(choice, kubectl, reviews.DEFAULTS) == UNREADABLE
        output = capsys.readouterr()
        (line,) = output.err.splitlines()
        assert not output.out
        return line

    cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "viewer"}}, namespace=shop)
    config = cluster.kubeconfig_of(cluster.token(shop, "viewer"))
    viewer = Kubectl(kubeconfig=str(config), program=admin.program)
    choice = verify.Choice("sts/shop", shop)
    assert said(choice, viewer).startswith(f"you may not get statefulsets.apps in namespace {shop}; with this rule")
    role = ("create", "role", "viewer", "--verb=get,list", "--resource=statefulsets.apps,pods")
    assert cluster.kubectl(*role, namespace=shop).code == 0
    cluster.kubectl(
        "create", "rolebinding", "viewer", "--role=viewer", f"--serviceaccount={shop}:viewer", namespace=shop
    )
    assert said(choice, viewer).startswith(f"you may not create jobs.batch in namespace {shop}; with this rule")
    assert "there is no StatefulSet gone in namespace" in said(verify.Choice("sts/gone", shop), admin)
    assert "name its workload, such as statefulset/NAME" in said(verify.Choice("pod/gone", shop), admin)
    gone = restore.Choice("sts/shop", shop, claim="gone")
    assert said(gone, admin) == f"there is no PersistentVolumeClaim gone in namespace {shop}, or no longer"
    assert list(tmp_path.iterdir()) == []


def test_a_schedule_is_accepted(cluster: Cluster, admin: Kubectl, shop: str) -> None:
    (subject,) = subjects(admin, "statefulset/shop", shop, reviews.DEFAULTS)
    cron_job, _ = verify.scheduled(subject, job.Asked("verify", [pods.DATABASE]), "0 3 * * *")
    cluster.apply(cron_job, namespace=shop)
    wrong, _ = verify.scheduled(subject, job.Asked("verify", [pods.DATABASE]), "at night")
    wrong["metadata"]["name"] = "other"
    assert "spec.schedule: Invalid value" in cluster.try_create(wrong, shop).error
