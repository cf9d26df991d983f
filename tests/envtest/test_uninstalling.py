"""What docs/upgrading.md says of versions and of the end, in a cluster of its own that really deletes namespaces."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from helm_python.config import Config

from injector import GROUP, __version__
from tests import dist
from tests.envtest import controllers, pods
from tests.envtest import webhook as webhooks
from tests.envtest.cluster import ENVIRONMENT, Cluster, running
from tests.envtest.installation import CONFIGURATION, NAME, installed
from tests.envtest.test_controllers import eventually
from tests.envtest.test_upgrading import command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]

WAYS = ("self-signed", "install.yaml", "chart")
HISTORY = ("events", "events.events.k8s.io")  # objects that tell of others, and end by themselves
OLD = "ghcr.io/kaidotio/litestream-hook:0.0.1"
NEW = f"ghcr.io/kaidotio/litestream-hook:{__version__}"
READY = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}


@pytest.fixture(scope="module")
def cluster(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An API server with the controllers that make Pods and that empty namespaces."""
    folder = tmp_path_factory.mktemp("whole")
    names = (*controllers.WORKLOADS, "namespace-controller", "garbage-collector-controller")
    with running(assets, folder) as started, controllers.running(started, folder, names):
        yield started


def helm(cluster: Cluster) -> Config:
    """Helm's own engine, as `helm --namespace litestream-hook` has it."""
    return Config(kubeconfig_path=cluster.kubeconfig, namespace=NAME)


def ours(cluster: Cluster, *, apart_from: str = "") -> set[str]:
    """Everything in the API server that names the webhook anywhere, but for what is in one namespace."""
    kinds = cluster.kubectl("api-resources", "--verbs=list", "-o", "name").output.split()
    listed = cluster.kubectl("get", ",".join(kind for kind in kinds if kind not in HISTORY), "-A", "-o", "json").json
    found = [(one, one["metadata"]) for one in listed["items"] if NAME in json.dumps(one)]
    return {
        f"{one['kind']}/{metadata['name']}"
        for one, metadata in found
        if apart_from not in {metadata.get("namespace", ""), metadata["name"]} or not apart_from
    }


def of_page(start: str, folder: Path) -> list[str]:
    """A command of the page, with install.yaml as a release has it."""
    path = folder / "install.yaml"
    if not path.exists():
        path.write_text(dist.manifests(dist.MANIFESTS["install.yaml"], NEW))
    return [str(path) if word == "install.yaml" else word for word in command(start)]


def remove(cluster: Cluster, way: str, folder: Path) -> None:
    """By the commands of the page; helm's is given to Helm's engine."""
    if way != "chart":
        option = {"self-signed": "-k", "install.yaml": "-f"}[way]
        kubectl(cluster, *of_page(f"kubectl delete {option}", folder))
        return
    _, name, *_ = command("helm uninstall")
    with helm(cluster) as engine:
        engine.uninstall(name)
    kubectl(cluster, *command("kubectl delete namespace"))


def kubectl(cluster: Cluster, *arguments: str) -> None:
    answer = cluster.kubectl(*arguments)
    assert answer.code == 0, answer.error


@pytest.mark.parametrize("way", WAYS)
def test_nothing_of_ours_is_left_and_pods_start_as_the_page_says(cluster: Cluster, tmp_path: Path, way: str) -> None:
    shop, gated = cluster.namespace(), pods.pod("gated", schedulingGates=[{"name": f"{GROUP}/injected"}])
    before = ours(cluster)
    with ExitStack() as stack:
        if way == "chart":
            engine = stack.enter_context(helm(cluster))
            engine.install(dist.CHART, NAME, create_namespace=True)
        installation = stack.enter_context(installed(cluster, tmp_path, way))
        stack.enter_context(installation.replica())
        replicated = cluster.create(pods.pod("replicated"), shop)
        assert pods.injected(replicated)
        leases = cluster.kubectl("get", "leases", "-o", "name", namespace=NAME).output.split()
        assert len([name for name in leases if "replica-" in name]) == 1
        assert {f"MutatingWebhookConfiguration/{NAME}", f"Secret/{NAME}-tls"} <= ours(cluster)
        remove(cluster, way, tmp_path)  # while a replica is still there to write something
    assert ours(cluster, apart_from=shop) == before

    for manifest in (pods.pod("unprotected"), gated):
        assert not pods.injected(cluster.create(manifest, shop))
    found = {name: cluster.kubectl("get", "pod", name, "-o", "json", namespace=shop).json for name in
             ("replicated", "unprotected", "gated")}  # fmt: skip
    assert found["replicated"]["spec"] == replicated["spec"]
    assert "conditions" not in found["unprotected"]["status"]
    assert [one["reason"] for one in found["gated"]["status"]["conditions"]] == ["SchedulingGated"]
    cluster.apply(pods.workload("Deployment", "shop", replicas=1, strategy={"type": "Recreate"}), namespace=shop)
    kubectl(cluster, "scale", "deployment", "shop", "--replicas=2", f"--namespace={shop}")


def test_annotated_pods_are_refused_until_the_rest_goes(cluster: Cluster, tmp_path: Path) -> None:
    shop = cluster.namespace()
    before = ours(cluster)
    with installed(cluster, tmp_path) as installation:
        with installation.replica():
            kubectl(cluster, *command("kubectl delete namespace"))
        refused = cluster.try_create(pods.pod("annotated"), shop)
        assert refused.code == 1
        assert "failed calling webhook" in refused.error
        assert f'service "{NAME}" not found' in refused.error
        assert not pods.injected(cluster.create(pods.pod("plain", {}), shop))
        kubectl(cluster, *command("kubectl delete --ignore-not-found -k"))
        assert ours(cluster, apart_from=shop) == before
    assert not pods.injected(cluster.create(pods.pod("annotated"), shop))


def rolled_out(cluster: Cluster) -> str:
    """The image that all of the webhook's Pods have, once the page's `rollout status` has ended."""
    arguments = [str(cluster.assets / "kubectl"), f"--kubeconfig={cluster.kubeconfig}"]
    status = [*arguments, *command("kubectl -n litestream-hook rollout status"), "--timeout=60s"]
    with subprocess.Popen(status, env=ENVIRONMENT | {"HOME": str(cluster.folder)}) as waiting:
        while waiting.poll() is None:
            run(cluster, NAME)
        assert waiting.returncode == 0
    (image,) = {one["spec"]["containers"][0]["image"] for one in pods_of(cluster, NAME)}
    assert isinstance(image, str)
    return image


def run(cluster: Cluster, namespace: str) -> None:
    """Nobody runs Pods here: what a kubelet would say of those in a namespace, that they are ready, is said for it."""
    for one in pods_of(cluster, namespace):
        if one["status"]["phase"] == "Pending":
            patch = ("patch", "pod", one["metadata"]["name"], "--subresource=status", "-p", json.dumps(READY))
            cluster.kubectl(*patch, namespace=namespace)  # it may have been deleted meanwhile


def pods_of(cluster: Cluster, namespace: str) -> list[pods.Object]:
    found: list[pods.Object] = cluster.kubectl("get", "pods", "-o", "json", namespace=namespace).json["items"]
    return found


@pytest.mark.parametrize("option", ["-k", "-f"])
def test_a_new_version_takes_the_place_of_the_old_and_goes_back(cluster: Cluster, tmp_path: Path, option: str) -> None:
    apply = of_page(f"kubectl apply {option}", tmp_path)
    kubectl(cluster, *apply)
    kubectl(cluster, "set", "image", f"deployment/{NAME}", f"webhook={OLD}", f"--namespace={NAME}")
    trusted = with_ca_bundle(cluster)
    assert rolled_out(cluster) == OLD
    kubectl(cluster, *apply)
    assert rolled_out(cluster) == NEW
    kubectl(cluster, *command("kubectl -n litestream-hook rollout undo"))
    assert rolled_out(cluster) == OLD
    assert ca_bundles(cluster) == trusted
    kubectl(cluster, *of_page(f"kubectl delete {option}", tmp_path))


def test_a_new_version_of_the_chart_takes_the_place_of_the_old_and_goes_back(cluster: Cluster, tmp_path: Path) -> None:
    """By Helm's own engine, with what the page's commands name."""
    _, name, chart, *_ = command("helm upgrade")
    assert command("helm rollback")[1] == name
    old = tmp_path / "old"
    shutil.copytree(chart, old)
    (old / "Chart.yaml").write_text((old / "Chart.yaml").read_text().replace(__version__, "0.0.1"))
    with helm(cluster) as engine:
        engine.install(old, name, create_namespace=True)
        trusted = with_ca_bundle(cluster)
        assert rolled_out(cluster) == OLD
        engine.upgrade(chart, name)
        assert rolled_out(cluster) == NEW
        engine.rollback(name)
        assert rolled_out(cluster) == OLD
        assert ca_bundles(cluster) == trusted
    remove(cluster, "chart", tmp_path)


def test_a_pod_gets_the_new_litestream_at_its_next_start_and_not_before(cluster: Cluster, tmp_path: Path) -> None:
    shop, restart = cluster.namespace(), command("kubectl rollout restart")

    def have(image: str) -> bool:
        """Whether this is the image of Litestream in all of the namespace's Pods; not while there is none."""
        run(cluster, shop)
        found = {each["image"] for one in pods_of(cluster, shop) for each in pods.injected(one)}
        return found & {old, new} == {image}

    old, new = "registry.example/litestream:0.5.1", "registry.example/litestream:0.5.2"
    for image in (old, new):
        with (
            webhooks.serving(tmp_path / image[-1], {"DEFAULT_IMAGE": image}) as serving,
            webhooks.registered(cluster, shop, serving.url, serving.ca),
        ):
            if image == old:
                cluster.apply(pods.workload("StatefulSet", "shop", replicas=1), namespace=shop)
            else:
                assert have(old)
                kubectl(cluster, *(word.replace("NAME", "shop") for word in restart), f"--namespace={shop}")
            eventually(functools.partial(have, image), image)


def with_ca_bundle(cluster: Cluster) -> list[str]:
    """What the webhook writes into its configuration; no version may take it out."""
    patch = [{"op": "add", "path": f"/webhooks/{number}/clientConfig/caBundle", "value": "Cg=="} for number in (0, 1)]
    kubectl(cluster, "patch", *CONFIGURATION, "--type=json", "-p", json.dumps(patch))
    return ca_bundles(cluster)


def ca_bundles(cluster: Cluster) -> list[str]:
    found = cluster.kubectl("get", *CONFIGURATION, "-o", "json").json["webhooks"]
    return [one["clientConfig"].get("caBundle", "") for one in found]
