"""What becomes of Pods that a real API server asks the webhook about."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from injector import GROUP
from tests.envtest import neighbour, pods
from tests.envtest.cluster import running
from tests.envtest.webhook import Webhook, configuration, registered

if TYPE_CHECKING:
    from pathlib import Path

    from tests.envtest.cluster import Cluster

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]

STATUS = f"{GROUP}/status"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def calls(cluster: Cluster, webhook: str) -> int:
    """How often the API server has called a webhook so far, by its own count."""
    metrics = cluster.kubectl("get", "--raw", "/metrics").output
    wanted = "apiserver_admission_webhook_request_total{"
    lines = [line for line in metrics.splitlines() if line.startswith(wanted) and f'name="{webhook}"' in line]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines)


def test_an_annotated_pod_is_stored_injected(cluster: Cluster, namespace: str) -> None:
    stored = cluster.create(pods.pod("app"), namespace)
    assert pods.names(stored, "containers") == ["app"]
    (sidecar,) = (one for one in pods.injected(stored) if one["name"] == "litestream-hook-replicate")
    assert sidecar["restartPolicy"] == "Always"
    assert stored["metadata"]["labels"][f"{GROUP}/replicates"] == "true"
    databases = json.dumps(json.loads(stored["metadata"]["annotations"][STATUS]))
    assert f"{namespace}/pod/app/data/app.db" in databases


def test_injected_containers_get_no_token_and_the_api_server_calls_once(
    assets: Path, webhook: Webhook, tmp_path: Path
) -> None:
    """A cluster of its own: AlwaysPullImages touches each container, and brings a second call."""
    with running(assets, tmp_path) as cluster:
        namespace = cluster.namespace()
        with registered(cluster, namespace, webhook.url, webhook.ca):
            before = calls(cluster, "pods.litestream-hook.kaidotio.github.io")
            stored = cluster.create(pods.pod("app"), namespace)
            assert calls(cluster, "pods.litestream-hook.kaidotio.github.io") == before + 1
    assert len(pods.injected(stored)) == 3
    have_token = [
        container["name"]
        for container in [*stored["spec"]["initContainers"], *stored["spec"]["containers"]]
        for mount in container["volumeMounts"]
        if mount["name"].startswith("kube-api-access-")
    ]
    assert have_token == ["app"]


def test_a_pod_that_does_not_ask_is_stored_as_it_came(cluster: Cluster, namespace: str) -> None:
    before = calls(cluster, "pods.litestream-hook.kaidotio.github.io")
    plain = cluster.create(pods.pod("plain", {}), namespace)
    other = cluster.create(pods.pod("other", {"example.com/litestream-hook.kaidotio.github.io": "x"}), namespace)
    declined = cluster.create(pods.pod("declined", {f"{GROUP}/inject": "false"}), namespace)
    assert [pods.injected(one) for one in (plain, other, declined)] == [[], [], []]
    assert "initContainers" not in plain["spec"]
    after = calls(cluster, "pods.litestream-hook.kaidotio.github.io")
    assert after == before + 1, "only the Pod that carries a key of ours may cost a call"


def test_a_restricted_namespace_accepts_what_was_injected(cluster: Cluster, webhook: Webhook) -> None:
    namespace = cluster.namespace(RESTRICTED)
    loose = pods.pod("loose", {})
    del loose["spec"]["containers"][0]["securityContext"]
    refused = cluster.try_create(loose, namespace)
    assert "violates PodSecurity" in refused.error, "the standard must be enforced for this test to say anything"
    with registered(cluster, namespace, webhook.url, webhook.ca):
        for name, sidecar in (("native", "native"), ("ordinary", "container")):
            stored = cluster.create(pods.pod(name, pods.asking(sidecar=sidecar)), namespace)
            assert "litestream-hook-replicate" in [one["name"] for one in pods.injected(stored)]


def test_a_dry_run_shows_the_injected_pod_and_stores_none(cluster: Cluster, namespace: str) -> None:
    manifest = pods.pod("app")
    shown = cluster.kubectl(
        "create", "--dry-run=server", "-o", "json", "-f", "-", stdin=manifest, namespace=namespace
    ).json
    assert pods.injected(shown)
    assert cluster.kubectl("get", "pods", "-o", "json", namespace=namespace).json["items"] == []


def test_server_side_apply_can_be_repeated_and_keeps_what_was_injected(cluster: Cluster, namespace: str) -> None:
    manifest = pods.pod("app")
    apply = ("apply", "--server-side", "-o", "json", "-f", "-")
    first = cluster.kubectl(*apply, stdin=manifest, namespace=namespace).json
    assert pods.injected(first)
    manifest["metadata"]["labels"] = {"changed": "yes"}
    second = cluster.kubectl(*apply, stdin=manifest, namespace=namespace).json
    assert second["metadata"]["labels"]["changed"] == "yes"
    assert second["spec"] == first["spec"]
    assert second["metadata"]["annotations"][STATUS] == first["metadata"]["annotations"][STATUS]


def test_client_side_apply_can_be_repeated(cluster: Cluster, namespace: str) -> None:
    manifest = pods.pod("app")
    cluster.apply(manifest, namespace=namespace)
    again = cluster.kubectl("apply", "-f", "-", stdin=manifest, namespace=namespace)
    assert (again.code, again.output) == (0, "pod/app unchanged\n")


def test_pods_named_by_the_api_server_take_their_path_from_their_owner(cluster: Cluster, namespace: str) -> None:
    manifest = pods.pod("")
    owner = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": "shop-5d4f8",
        "uid": "1",
        "controller": True,
    }
    manifest["metadata"] |= {
        "generateName": "shop-5d4f8-",
        "labels": {"pod-template-hash": "5d4f8"},
        "ownerReferences": [owner],
    }
    del manifest["metadata"]["name"]
    stored = cluster.create(manifest, namespace)
    assert stored["metadata"]["name"].startswith("shop-5d4f8-")
    assert f"{namespace}/deployment/shop/data/app.db" in stored["metadata"]["annotations"][STATUS]


def test_a_nameless_pod_without_owner_is_told_to_write_a_path(cluster: Cluster, namespace: str) -> None:
    manifest = pods.pod("")
    manifest["metadata"]["generateName"] = "shop-"
    del manifest["metadata"]["name"]
    refused = cluster.try_create(manifest, namespace)
    assert refused.code != 0
    assert f"{GROUP}/replica-path" in refused.error
    manifest["metadata"]["annotations"] |= pods.asking(replica_path="{namespace}/shop/{database}")
    assert pods.injected(cluster.create(manifest, namespace))


def test_the_second_call_keeps_what_admission_put_into_our_containers(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    # LimitRanger sets what is missing, ServiceAccount mounts its token, AlwaysPullImages changes the policy,
    # and a webhook that comes later puts a container in front: the API server calls ours again.
    limits = {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": "limits"},
        "spec": {
            "limits": [
                {
                    "type": "Container",
                    "default": {"cpu": "100m", "memory": "128Mi"},
                    "defaultRequest": {"cpu": "10m", "memory": "16Mi"},
                }
            ]
        },
    }
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "quota"},
        "spec": {"hard": {"limits.cpu": "10", "limits.memory": "10Gi", "requests.cpu": "10"}},
    }
    cluster.apply(limits, quota, namespace=namespace)
    # Nobody counts what is used here, and an uncounted quota refuses everything.
    counted = {"status": {"hard": quota["spec"]["hard"], "used": dict.fromkeys(quota["spec"]["hard"], "0")}}  # type: ignore[index]
    patched = cluster.kubectl(
        "patch", "resourcequota", "quota", "--subresource=status", "--type=merge", "-p", json.dumps(counted),
        namespace=namespace,
    )  # fmt: skip
    assert patched.code == 0, patched.error
    name = "pods.litestream-hook.kaidotio.github.io"
    later = second_webhook(cluster)
    with neighbour.serving(tmp_path) as (url, ca), registered(cluster, namespace, url, ca, later, group=""):
        before = calls(cluster, name)
        stored = cluster.create(pods.pod("app"), namespace)
        assert calls(cluster, name) == before + 2, "the API server must have called twice"
    assert pods.names(stored, "containers") == ["neighbour", "app"]
    ours = pods.injected(stored)
    assert len({one["name"] for one in ours}) == len(ours) >= 3
    for container in ours:
        assert container["imagePullPolicy"] == "Always", container["name"]
        assert container["resources"]["limits"]["cpu"], container["name"]
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert "/var/run/secrets/kubernetes.io/serviceaccount" in mounts, container["name"]
    volumes = pods.names(stored, "volumes")
    assert len(set(volumes)) == len(volumes)


def second_webhook(cluster: Cluster) -> dict[str, Any]:
    """Our configuration's Pod webhook as another team's would be, called after ours by its name."""
    manifest = configuration(cluster)
    pod_webhook = manifest["webhooks"][0] | {"name": "neighbour.example.com", "matchConditions": []}
    return manifest | {"metadata": {"name": "zz-neighbour"}, "webhooks": [pod_webhook]}


def test_every_violation_reaches_whoever_runs_kubectl(cluster: Cluster, namespace: str) -> None:
    wrong = pods.asking(storage="lots", region="Mars!", sync_interval="soon", metrics_port="99999")
    refused = cluster.try_create(pods.pod("app", wrong), namespace)
    assert refused.code == 1
    for key in ("storage", "region", "sync-interval", "metrics-port"):
        assert f"{GROUP}/{key}" in refused.error
        assert wrong[f"{GROUP}/{key}"] in refused.error
    assert cluster.kubectl("get", "pod", "app", namespace=namespace).code != 0


def test_a_denial_is_an_unprocessable_entity_with_each_violation_as_a_cause(cluster: Cluster, namespace: str) -> None:
    wrong = pods.asking(storage="lots", region="Mars!")
    refused = cluster.kubectl("create", "-v=8", "-f", "-", stdin=pods.pod("app", wrong), namespace=namespace)
    body = next(
        json.loads(line[line.index("{") :].strip().rstrip("\\"))
        for line in refused.error.splitlines()
        if '"kind":"Status"' in line and line.find("{") >= 0
    )
    assert body["code"] == 422
    assert {cause["field"] for cause in body["details"]["causes"]} == {f"{GROUP}/storage", f"{GROUP}/region"}


def test_warnings_reach_whoever_runs_kubectl(cluster: Cluster, namespace: str) -> None:
    slip = pods.asking() | {f"{GROUP}/buket": "mine"}
    done = cluster.try_create(pods.pod("app", slip), namespace)
    assert done.code == 0, done.error
    assert "Warning:" in done.error
    assert f"did you mean {GROUP}/bucket" in done.error.replace('"', "") or "did you mean bucket" in done.error
