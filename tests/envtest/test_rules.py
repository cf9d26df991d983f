"""What the API server's own admission, kubectl and a restore ask of injected Pods."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from injector import GROUP
from injector.pod.claim import carried
from tests import velero
from tests.envtest import pods
from tests.envtest.cluster import Answer, Cluster
from tests.envtest.installation import Installation, installed
from tests.envtest.webhook import configuration, registered, serving

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]


def limits(**rules: dict[str, str]) -> pods.Object:
    """A LimitRange of containers."""
    spec = {"limits": [{"type": "Container", **rules}]}
    return {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "limits"}, "spec": spec}


def asking_for(resources: pods.Object, **annotations: str) -> pods.Object:
    """A Pod whose application asks for these resources."""
    manifest = pods.pod("app", pods.asking(**annotations))
    manifest["spec"]["containers"][0]["resources"] = resources
    return manifest


AMOUNTS = {"cpu": "100m", "memory": "128Mi"}


@pytest.mark.parametrize("path", ["/data/app.db", "/a/a.db,/b/b.db"])
@pytest.mark.parametrize(
    ("rules", "annotations"),
    [
        ({"min": {"cpu": "50m", "memory": "64Mi"}}, {"cpu_request": "50m"}),
        (
            {"maxLimitRequestRatio": {"cpu": "1", "memory": "1"}},
            {"cpu_request": "50m", "cpu_limit": "50m", "memory_request": "256Mi", "memory_limit": "256Mi"},
        ),
        ({"max": {"cpu": "1", "memory": "192Mi"}}, {"cpu_limit": "1", "memory_limit": "192Mi"}),
    ],
    ids=lambda value: next(iter(value)),
)
def test_annotations_can_meet_a_limit_range_that_the_defaults_do_not(
    cluster: Cluster, namespace: str, rules: dict[str, dict[str, str]], annotations: dict[str, str], path: str
) -> None:
    cluster.apply(limits(**rules), namespace=namespace)
    resources = {"requests": AMOUNTS, "limits": AMOUNTS}
    refused = cluster.try_create(asking_for(resources, path=path), namespace)
    assert "per Container is" in refused.error or "limit to request ratio per Container" in refused.error
    stored = cluster.create(asking_for(resources, path=path, **annotations), namespace)
    assert len(pods.injected(stored)) == 3 + path.count(",")


def copied(cluster: Cluster, namespace: str, *options: str) -> Answer:
    """What `kubectl debug` says to a copy of the Pod `app`."""
    return cluster.kubectl("debug", "app", "--copy-to=copy", "--image=debug:1", *options, namespace=namespace)


def test_a_copy_of_a_variants_pod_is_refused_by_its_variant(cluster: Cluster, empty: str, tmp_path: Path) -> None:
    group = f"skaffold.{GROUP}"
    manifest = configuration(cluster, "skaffold")
    with (
        serving(tmp_path, {"VARIANT": "skaffold"}) as variant,
        registered(cluster, empty, variant.url, variant.ca, manifest, group),
    ):
        assert pods.injected(cluster.create(pods.pod("app", pods.asking(group)), empty))
        assert pods.injected(cluster.create(pods.pod("other"), empty)) == []
        assert "it would be a second writer" in copied(cluster, empty).error


def test_two_variants_leave_each_others_pods_alone(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    """Each is asked about all Pods with containers of such names, and denies only copies."""
    group = f"skaffold.{GROUP}"
    manifest = configuration(cluster, "skaffold")
    with (
        serving(tmp_path, {"VARIANT": "skaffold"}) as variant,
        registered(cluster, namespace, variant.url, variant.ca, manifest, group),
    ):
        for name, asked in (("app", pods.asking()), ("variant", pods.asking(group))):
            assert len(pods.injected(cluster.create(pods.pod(name, asked), namespace))) == 3


# From here on the webhook is installed, and sees the Pods of all namespaces.
@pytest.fixture(scope="module")
def installation(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The webhook as it is installed, so with the guard."""
    with installed(cluster, tmp_path_factory.mktemp("rules")) as one, one.replica():
        yield one


@pytest.mark.parametrize("sidecar", ["native", "container"])
@pytest.mark.usefixtures("installation")
def test_a_copy_for_debugging_is_refused_and_can_be_made_without_our_containers(cluster: Cluster, sidecar: str) -> None:
    namespace = cluster.namespace()
    explicit = pods.asking(sidecar=sidecar, replica_path="{namespace}/shop/{database}")
    cluster.create(pods.pod("app", explicit), namespace)
    refused = copied(cluster, namespace)
    assert refused.code == 1
    assert "it would be a second writer of that Pod's replica" in refused.error
    assert "still writes the replica" in copied(cluster, namespace, "--keep-annotations").error
    without = copied(cluster, namespace, "--keep-init-containers=false")
    assert (without.code == 0) == (sidecar == "native"), without.error
    stored = cluster.kubectl("get", "pods", "-o", "json", namespace=namespace).json["items"]
    assert [pod["metadata"]["name"] for pod in stored if pods.injected(pod)] == ["app"]


@pytest.mark.usefixtures("installation")
def test_a_drain_wants_the_flag_for_local_data_and_no_other(cluster: Cluster) -> None:
    namespace, node = cluster.namespace(), f"node-of-{cluster.namespace()}"
    cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
    stored = cluster.create(pods.owned("shop", None, nodeName=node), namespace)
    drain = ("drain", node, "--dry-run=server")
    refused = cluster.kubectl(*drain)
    assert refused.code == 1
    assert "use --delete-emptydir-data to override" in refused.error
    assert "--force" not in refused.error
    drained = cluster.kubectl(*drain, "--delete-emptydir-data")
    assert drained.code == 0, drained.error
    assert stored["metadata"]["name"] in drained.output


@pytest.mark.usefixtures("installation")
def test_a_pod_that_velero_restores_is_stored_as_it_was_and_only_where_nobody_writes(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    first = cluster.create(pods.owned("shop"), namespace)
    name = first["metadata"]["name"]
    backup = velero.restored(first)
    assert f'Pod "{name}" in namespace "{namespace}" still writes' in cluster.try_create(backup, namespace).error
    assert cluster.kubectl("delete", "pod", name, "--force", "--grace-period=0", namespace=namespace).code == 0
    stored = cluster.create(backup, namespace)
    assert [(item["image"], item.get("command"), item.get("args")) for item in pods.injected(stored)] == [
        (item["image"], item.get("command"), item.get("args")) for item in pods.injected(first)
    ]
    assert stored["metadata"]["annotations"] == first["metadata"]["annotations"]
    assert carried(stored).leases == carried(first).leases
    assert carried(stored).mark != carried(first).mark
    refused = cluster.try_create(pods.owned("shop"), namespace)
    assert f'Pod "{name}" in namespace "{namespace}" still writes' in refused.error
