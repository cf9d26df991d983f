"""The manifests as they are applied, and two replicas with the rights that these give them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from injector import GROUP
from tests.envtest import pods
from tests.envtest.cluster import Answer, Cluster
from tests.envtest.installation import CONFIGURATION, NAME, Installation, Replica, installed
from tests.envtest.webhook import ROOT, rendered

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]

TROUBLESHOOTING = (ROOT / "docs" / "troubleshooting.md").read_text()
ACCOUNT = f"system:serviceaccount:{NAME}:{NAME}"


@pytest.fixture(scope="module", params=["self-signed", "install.yaml", "chart"])
def installation(
    request: pytest.FixtureRequest, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with installed(cluster, tmp_path_factory.mktemp("installation"), request.param) as one:
        yield one


@pytest.fixture(scope="module")
def replicas(installation: Installation) -> Iterator[tuple[Replica, Replica]]:
    with installation.replica() as first, installation.replica() as second:
        yield first, second


@pytest.mark.parametrize("overlay", ["self-signed", "skaffold", "install.yaml", "chart"])
def test_an_overlay_is_accepted_without_a_warning(cluster: Cluster, overlay: str) -> None:
    objects = rendered(cluster, overlay)
    named = {"apiVersion": "v1", "kind": "List", "items": objects}
    namespaces = [one for one in objects if one["kind"] == "Namespace"]
    cluster.apply(*namespaces)
    answer = cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=named)
    assert answer.code == 0, answer.error
    # The namespace warns of Pods that break its standard.
    assert "Warning" not in answer.error


def test_the_webhooks_own_pod_fits_its_restricted_namespace(installation: Installation) -> None:
    (deployment,) = (one for one in rendered(installation.cluster, "self-signed") if one["kind"] == "Deployment")
    pod = {"apiVersion": "v1", "kind": "Pod", **deployment["spec"]["template"]}
    pod["metadata"] = pod["metadata"] | {"name": "itself"}
    dry_run = ("create", "--dry-run=server", "-f", "-")
    answer = installation.cluster.kubectl(*dry_run, stdin=pod, namespace=NAME)
    assert answer.code == 0, answer.error


def test_two_replicas_share_one_certificate_that_the_api_server_trusts(
    installation: Installation, replicas: tuple[Replica, Replica]
) -> None:
    bundles = installation.ca_bundles()
    assert len(bundles) == 2
    assert len(set(bundles)) == 1
    served = {replica.certificate(bundles[0]) for replica in replicas}
    assert len(served) == 1
    assert installation.secret() is not None


@pytest.mark.usefixtures("replicas")
def test_the_api_server_reaches_the_webhook_through_its_service(cluster: Cluster, installation: Installation) -> None:
    namespace = cluster.namespace()
    assert pods.injected(cluster.create(pods.pod("app"), namespace))
    assert installation.service.backends


@pytest.mark.usefixtures("replicas")
def test_the_guard_refuses_a_second_writer_until_the_first_is_gone(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    # On a node, so that a deletion waits for a kubelet as in a cluster.
    first = cluster.create(pods.owned("shop", nodeName="node"), namespace)["metadata"]["name"]
    refused = cluster.try_create(pods.owned("shop"), namespace)
    assert refused.code == 1
    assert f'"{first}"' in refused.error
    assert "nobody has asked it to end" in refused.error
    dry_run = ("create", "--dry-run=server", "-f", "-")
    assert cluster.kubectl(*dry_run, stdin=pods.owned("shop"), namespace=namespace).code == 1

    assert cluster.kubectl("delete", "pod", first, "--wait=false", namespace=namespace).code == 0
    still = cluster.try_create(pods.owned("shop"), namespace)
    assert still.code == 1
    assert "it has been terminating since" in still.error
    force = f"kubectl delete pod {first} -n {namespace} --force --grace-period=0"
    assert force in still.error

    assert cluster.kubectl(*force.split()[1:]).code == 0
    second = cluster.create(pods.owned("shop"), namespace)
    assert pods.injected(second)
    assert second["metadata"]["name"] == first


@pytest.mark.usefixtures("replicas")
def test_the_preview_of_the_documentation_shows_what_would_be_stored_and_takes_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    (line,) = set(re.findall(r"^ *kubectl (apply --dry-run.*)$", TROUBLESHOOTING, re.MULTILINE))
    file, namespace = tmp_path / "app.yaml", cluster.namespace()

    def previewed(manifest: pods.Object) -> Answer:
        file.write_text(yaml.safe_dump(manifest))
        words = [str(file) if word == file.name else word for word in line.split()]
        return cluster.kubectl(*words, namespace=namespace)

    leases = cluster.kubectl("get", "leases", "-o", "name", namespace=NAME).output
    shown = previewed(pods.pod("app"))
    assert shown.code == 0, shown.error
    assert pods.injected(yaml.safe_load(shown.output))
    old = pods.workload("StatefulSet", "old", pods.asking(image="docker.io/litestream/litestream:0.3.13"))
    warned = previewed(old)
    assert warned.code == 0, warned.error
    assert "Warning: " in warned.error
    assert yaml.safe_load(warned.output)["spec"]["template"]["metadata"] == old["spec"]["template"]["metadata"]
    assert len(yaml.safe_load(warned.output)["spec"]["template"]["spec"]["containers"]) == 1
    denied = previewed(pods.workload("Deployment", "shop", replicas=2))
    assert denied.code == 1
    assert "spec.replicas" in denied.error
    assert cluster.kubectl("get", "all", "-o", "name", namespace=namespace).output == ""
    assert cluster.kubectl("get", "leases", "-o", "name", namespace=NAME).output == leases


@pytest.mark.usefixtures("replicas")
def test_the_guard_lets_pods_with_other_replicas_and_ended_pods_be(cluster: Cluster) -> None:
    namespace, elsewhere = cluster.namespace(), cluster.namespace()
    first = cluster.create(pods.owned("shop", nodeName="node"), namespace)["metadata"]["name"]
    assert pods.injected(cluster.create(pods.pod("stable"), namespace))
    assert pods.injected(cluster.create(pods.owned("shop"), elsewhere))
    ended = cluster.kubectl(
        "patch", "pod", first, "--subresource=status", "--type=merge", "-p", '{"status":{"phase":"Failed"}}',
        namespace=namespace,
    )  # fmt: skip
    assert ended.code == 0, ended.error
    second = cluster.create(pods.owned("shop"), namespace)
    assert pods.injected(second)
    assert second["metadata"]["name"] != first


@pytest.mark.usefixtures("replicas")
def test_a_deployment_of_ours_is_not_scaled_to_two_pods_and_others_are(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    recreate: pods.Object = {"replicas": 1, "strategy": {"type": "Recreate"}}
    cluster.apply(
        pods.workload("Deployment", "shop", **recreate),
        pods.workload("Deployment", "lenient", pods.asking(single_writer="off"), **recreate),
        pods.workload("Deployment", "plain", {}, **recreate),
        namespace=namespace,
    )

    def scaled(name: str, count: int) -> Answer:
        return cluster.kubectl("scale", "deployment", name, f"--replicas={count}", namespace=namespace)

    deadline = time.monotonic() + 60
    while scaled("shop", 2).code == 0:  # until the API server has compiled the policy
        assert time.monotonic() < deadline
        assert scaled("shop", 1).code == 0
        time.sleep(0.1)
    refused = scaled("shop", 3)
    assert refused.code == 1
    assert "all Pods of a Deployment would write one replica" in refused.error
    for name, count in (("shop", 0), ("shop", 1), ("lenient", 2), ("plain", 2)):
        assert scaled(name, count).code == 0


@pytest.mark.usefixtures("replicas")
def test_binding_and_eviction_of_an_injected_pod_are_not_in_the_way(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    cluster.create(pods.pod("app"), namespace)
    target = {"apiVersion": "v1", "kind": "Node", "name": "node"}
    for subresource, body in (
        ("binding", {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "app"}, "target": target}),
        ("eviction", {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "app"}}),
    ):
        path = f"/api/v1/namespaces/{namespace}/pods/app/{subresource}"
        answer = cluster.kubectl("create", "--raw", path, "-f", "-", stdin=body)
        assert answer.code == 0, answer.error


@pytest.mark.usefixtures("replicas")
def test_every_example_is_accepted_without_a_warning(cluster: Cluster) -> None:
    folder = ROOT / "examples"
    restricted = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
    cluster.namespace(restricted, "litestream-examples")
    for path in [*sorted(folder.glob("[0-9]*.yaml")), *sorted(folder.glob("apps/*.yaml"))]:
        applied = cluster.kubectl("create", "--dry-run=server", "-f", str(path))
        expected = "0.3" in path.name  # it warns of what 0.3 can't do
        assert applied.code == 0, f"{path.name}: {applied.error}"
        assert ("Warning" in applied.error) == expected, f"{path.name}: {applied.error}"


def rights(cluster: Cluster, namespace: str) -> set[tuple[str, str, str, str]]:
    """What the webhook may do in a namespace, beyond what every authenticated user may: verb, group, resource, name."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    account = ("--as", ACCOUNT, "--as-group", "system:serviceaccounts", "--as-group", "system:authenticated")
    answer = cluster.kubectl("create", "--validate=false", *account, "-f", "-", "-o", "json", stdin=review)
    return {
        (verb, group, resource, name)
        for rule in answer.json["status"]["resourceRules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames") or ["*"]
        if group not in {"authorization.k8s.io", "authentication.k8s.io"}
    }


@pytest.mark.usefixtures("installation")
def test_the_webhook_has_the_rights_that_it_uses_and_no_other(cluster: Cluster) -> None:
    webhooks = ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", NAME)
    everywhere = {*((verb, *webhooks) for verb in ("get", "watch", "patch")), ("list", "", "pods", "*")}
    secret, leases = ("", "secrets", f"{NAME}-tls"), ("coordination.k8s.io", "leases", "*")
    at_home = {("get", *secret), ("update", *secret), ("create", "", "secrets", "*")}
    at_home |= {(verb, *leases) for verb in ("get", "list", "create", "update", "patch", "delete")}
    assert rights(cluster, NAME) == everywhere | at_home
    assert rights(cluster, cluster.namespace()) == everywhere


def test_forbidden_requests_with_the_webhooks_token_are_refused(cluster: Cluster, installation: Installation) -> None:
    token = (installation.folder / "token" / "token").read_text()
    other = cluster.namespace()
    for arguments in (
        ("get", "secrets", "-n", NAME),
        ("get", "secret", "somebody-elses", "-n", NAME),
        ("create", "secret", "generic", "x", "-n", other),
        ("delete", "mutatingwebhookconfiguration", NAME),
        ("get", "mutatingwebhookconfigurations"),
        ("delete", "pod", "x", "-n", other),
        ("get", "nodes"),
        ("get", "leases", "-n", other),
    ):
        answer = cluster.kubectl(*arguments, token=token)
        assert answer.code == 1, arguments
        assert "orbidden" in answer.error, (arguments, answer.error)
    allowed = cluster.kubectl("get", "mutatingwebhookconfiguration", NAME, token=token)
    assert allowed.code == 0, allowed.error


@pytest.mark.usefixtures("replicas")
def test_a_pod_with_a_made_up_status_keeps_nobody_away(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    writer = cluster.create(pods.owned("shop"), namespace)
    marks = {key: writer["metadata"][key] for key in ("annotations", "labels")}
    assert cluster.kubectl("delete", "pod", writer["metadata"]["name"], namespace=namespace).code == 0
    squatter = pods.pod("squatter")
    squatter["metadata"] |= marks
    squatter["metadata"]["annotations"][f"{GROUP}/inject"] = "false"
    cluster.create(squatter, namespace)
    cluster.create(pods.pod("plain", {}), namespace)
    patch = ("patch", "pod", "plain", "--type=merge", "--patch-file=/dev/stdin")
    assert cluster.kubectl(*patch, stdin={"metadata": marks}, namespace=namespace).code == 0
    assert pods.injected(cluster.create(pods.owned("shop"), namespace))


@pytest.mark.usefixtures("replicas")
def test_who_asks_from_another_namespace_learns_no_pods_name(cluster: Cluster) -> None:
    one, other = cluster.namespace(), cluster.namespace()
    shared = pods.asking(replica_path=f"{one}/shared/{{database}}")
    stored = cluster.create(pods.owned("shop", shared), one)
    refused = cluster.try_create(pods.owned("shop", shared), other)
    assert refused.code == 1
    assert "a Pod in another namespace still writes the replica" in refused.error
    assert stored["metadata"]["name"] not in refused.error
    found = cluster.kubectl(*refused.error.strip().partition("with: kubectl ")[2].split())
    assert found.code == 0, found.error
    assert f"{one}/{stored['metadata']['name']}" in found.output


EVERYTHING = [{"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "operations": ["*"]}]
TAKEN_OVER: dict[str, list[pods.Object]] = {
    "every object": [{"op": "replace", "path": "/webhooks/0/rules", "value": EVERYTHING}],
    "no condition": [{"op": "remove", "path": "/webhooks/0/matchConditions"}],
    "another address": [
        {"op": "remove", "path": "/webhooks/1/clientConfig/service"},
        {"op": "add", "path": "/webhooks/1/clientConfig/url", "value": "https://example.com/"},
    ],
    "nobody depends on it": [{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}],
    "a webhook less": [{"op": "remove", "path": "/webhooks/1"}],
    "a name of its own": [{"op": "replace", "path": "/webhooks/0/name", "value": "pods.example.com"}],
    "gone with its owner": [
        {
            "op": "add",
            "path": "/metadata/ownerReferences",
            "value": [{"apiVersion": "v1", "kind": "Namespace", "name": "gone", "uid": "gone"}],
        }
    ],
    "never gone": [{"op": "add", "path": "/metadata/finalizers", "value": ["example.com/mine"]}],
}


@pytest.mark.parametrize("change", TAKEN_OVER)
def test_a_webhook_that_was_taken_over_changes_nothing_but_the_ca_bundle(
    cluster: Cluster, installation: Installation, change: str
) -> None:
    token = (installation.folder / "token" / "token").read_text()

    def patched(patch: list[pods.Object], token: str | None = token) -> Answer:
        kind = ("--type=json", "--dry-run=server", "--patch-file=/dev/stdin")
        return cluster.kubectl("patch", *CONFIGURATION, *kind, stdin=patch, token=token)

    deadline = time.monotonic() + 60
    while (answer := patched(TAKEN_OVER[change])).code == 0:  # until the API server has compiled the policy
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "the webhook may change caBundle in its own configuration and nothing else" in answer.error
    assert patched(TAKEN_OVER[change], token=None).code == 0, "an administrator may"
    cleared = patched([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": ""}])
    assert cleared.code == 0, cleared.error


@pytest.mark.usefixtures("replicas")
def test_the_status_of_a_user_is_no_proof(cluster: Cluster) -> None:
    manifest = pods.pod("app")
    manifest["metadata"]["annotations"][f"{GROUP}/status"] = '{"version":"0.1.0","databases":{}}'
    refused = cluster.try_create(manifest, cluster.namespace())
    assert refused.code == 1
    assert f"{GROUP}/status" in refused.error
