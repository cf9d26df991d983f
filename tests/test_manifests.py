"""What kustomize makes of k8s/: valid everywhere, fitting together, and fitting what the code does."""

from __future__ import annotations

import asyncio
import functools
import http.server
import inspect
import json
import os
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from cel_expr_python import cel  # type: ignore[import-untyped]

from injector import GROUP, __version__, options
from injector.admission import webhook
from injector.annotations import operator_file
from injector.cluster.client import Cluster
from injector.serving import metrics
from injector.tls import certificate
from tests import restricted, reviews, schemas

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

Object = dict[str, Any]

ROOT = Path(__file__).parents[1]
KUBECTL = Path(sys.executable).with_name("kubectl")
OVERLAYS = ("cert-manager", "self-signed", "skaffold")
SOMEBODY_ELSES = ("cert-manager.io/v1", "monitoring.coreos.com/v1")  # kinds that the validator has no schema of
# kustomize does not know that they are in no namespace, and gives them one, which the API server drops.
POLICIES = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
EVERYTHING = """
resources: [{root}/overlays/{overlay}, variant.yaml]
configMapGenerator:
  - name: litestream-hook-defaults
    namespace: litestream-hook
    literals: ["defaults.yaml=enforce:\\n- bucket"]
    options: {{disableNameSuffixHash: true, labels: {{app.kubernetes.io/name: litestream-hook}}}}
components:
  - {root}/components/autoscaling
  - {root}/components/client-certificate
  - {root}/components/defaults
  - {root}/components/monitoring
  - {root}/components/namespace-defaults
  - {root}/components/verify
  - {root}/components/variant
"""
BLUE = """
apiVersion: v1
kind: ConfigMap
metadata: {name: variant, annotations: {config.kubernetes.io/local-config: "true"}}
data: {VARIANT: blue}
"""


def kustomize(folder: Path) -> list[Object]:
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "kustomize warns"
    return list(yaml.safe_load_all(done.stdout))


@functools.cache
def overlay(name: str) -> list[Object]:
    return kustomize(ROOT / "k8s/overlays" / name)


@functools.cache
def blue(folder: Path, name: str) -> list[Object]:
    """An overlay as somebody else would write it: VARIANT blue, with every component."""
    (folder / name).mkdir()
    root = os.path.relpath(ROOT / "k8s", folder / name)
    (folder / name / "kustomization.yaml").write_text(EVERYTHING.format(root=root, overlay=name))
    (folder / name / "variant.yaml").write_text(BLUE)
    return kustomize(folder / name)


@functools.cache
def kustomize_with_monitoring(folder: Path) -> list[Object]:
    """The first installation with the component `monitoring`."""
    (folder / "monitoring").mkdir()
    root = os.path.relpath(ROOT / "k8s", folder / "monitoring")
    written = f"resources: [{root}/overlays/self-signed]\ncomponents: [{root}/components/monitoring]\n"
    (folder / "monitoring/kustomization.yaml").write_text(written)
    return kustomize(folder / "monitoring")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("overlays")


@pytest.fixture(params=[*OVERLAYS, "blue cert-manager", "blue self-signed"])
def objects(request: pytest.FixtureRequest, folder: Path) -> list[Object]:
    variant, _, name = request.param.rpartition(" ")
    return blue(folder, name) if variant else overlay(name)


def of_kind(objects: Iterable[Object], kind: str) -> list[Object]:
    return [each for each in objects if each["kind"] == kind]


def the(objects: Iterable[Object], kind: str) -> Object:
    (one,) = of_kind(objects, kind)
    return one


def named(objects: Iterable[Object], kind: str, name: str) -> Object:
    """The object of that name, less the prefix of a variant."""
    (one,) = (each for each in of_kind(objects, kind) if each["metadata"]["name"].endswith(name))
    return one


def container(objects: Iterable[Object]) -> Object:
    (one,) = the(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    found: Object = one
    return found


def mounted(objects: Iterable[Object], name: str) -> tuple[Object, Object]:
    """Where the container mounts a volume, and the volume."""
    (mount,) = (each for each in container(objects)["volumeMounts"] if each["name"] == name)
    volumes = the(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
    (volume,) = (each for each in volumes if each["name"] == name)
    return mount, volume


def environment(objects: list[Object]) -> dict[str, str]:
    """The environment that the kubelet would give the webhook."""
    namespace = the(objects, "Deployment")["metadata"]["namespace"]
    fields = {"metadata.namespace": namespace}
    return {
        each["name"]: each["value"] if "value" in each else fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
        for each in container(objects)["env"]
    }


@pytest.mark.parametrize("release", schemas.IN_TURN)
def test_every_supported_kubernetes_knows_every_field(objects: list[Object], release: str) -> None:
    for each in objects:
        if each["apiVersion"] not in SOMEBODY_ELSES:
            assert list(schemas.problems(each, release)) == []


def test_pods_pass_the_pod_security_standard_that_their_namespace_enforces(objects: list[Object]) -> None:
    labels = the(objects, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert list(restricted.violations(the(objects, "Deployment")["spec"]["template"]["spec"])) == []


def test_everything_namespaced_is_in_the_namespace_that_is_made(objects: list[Object]) -> None:
    cluster_wide = {"Namespace", "ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration", *POLICIES}
    namespaces = {each["metadata"].get("namespace") for each in objects if each["kind"] not in cluster_wide}
    assert namespaces == {the(objects, "Namespace")["metadata"]["name"]}


def test_the_environment_names_the_objects_that_are_there(objects: list[Object]) -> None:
    given = environment(objects)
    assert given.keys() <= {option.variable for option in options.OPTIONS}
    read = options.read(given)
    assert read.pod_namespace == the(objects, "Namespace")["metadata"]["name"]
    assert read.service_name == the(objects, "Service")["metadata"]["name"]
    assert read.webhook_configuration_name == the(objects, "MutatingWebhookConfiguration")["metadata"]["name"]


def test_the_ports_are_those_that_the_process_listens_on(objects: list[Object]) -> None:
    read = options.read(environment(objects))
    assert {port["name"]: port["containerPort"] for port in container(objects)["ports"]} == {
        "https": read.port,
        "metrics": read.metrics_bind_address[1],
        "health": read.health_probe_bind_address[1],
    }
    probes = {name: container(objects).get(f"{name}Probe") for name in ("startup", "liveness", "readiness")}
    paths = {name: (probe["httpGet"]["port"], probe["httpGet"]["path"]) for name, probe in probes.items() if probe}
    expected = {
        "startup": ("health", "/healthz"),
        "liveness": ("health", "/healthz"),
        "readiness": ("health", "/readyz"),
    }
    if environment(objects)["VARIANT"] == "skaffold":
        del expected["liveness"]  # a container that is started anew has lost the files that were synced into it
    assert paths == expected


def test_the_api_server_calls_a_service_that_leads_to_the_webhook(objects: list[Object]) -> None:
    service = the(objects, "Service")
    ports = {port["port"]: port["targetPort"] for port in service["spec"]["ports"]}
    for hook in the(objects, "MutatingWebhookConfiguration")["webhooks"]:
        called = hook["clientConfig"]["service"]
        assert called["name"] == service["metadata"]["name"]
        assert called["namespace"] == service["metadata"]["namespace"]
        assert called["path"] == "/mutate"
        assert ports[called["port"]] == "https"


def test_whatever_selects_the_webhooks_pods_finds_them(objects: list[Object]) -> None:
    deployment = the(objects, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"].items()
    spec = deployment["template"]["spec"]
    (near,) = spec["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    selectors = [
        the(objects, "Service")["spec"]["selector"],
        deployment["selector"]["matchLabels"],
        the(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        near["podAffinityTerm"]["labelSelector"]["matchLabels"],
        *(each["labelSelector"]["matchLabels"] for each in spec["topologySpreadConstraints"]),
        *(each["spec"]["podSelector"]["matchLabels"] for each in of_kind(objects, "NetworkPolicy")),
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels
    service = the(objects, "Service")["metadata"]["labels"].items()
    for monitor in of_kind(objects, "ServiceMonitor"):
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service


def test_network_policies_open_only_ports_that_exist(objects: list[Object]) -> None:
    ports = {port["name"] for port in container(objects)["ports"]}
    opened = [
        port["port"]
        for policy in of_kind(objects, "NetworkPolicy")
        for rule in policy["spec"]["ingress"]
        for port in rule["ports"]
    ]
    assert "https" in opened
    assert set(opened) <= ports


def test_images_carry_a_registry_and_a_version(objects: list[Object]) -> None:
    image = container(objects)["image"]
    assert re.fullmatch(r"[a-z0-9-]+\.[a-z0-9.]+/[a-z0-9./-]+:\d+\.\d+\.\d+", image)
    assert image.endswith(f":{__version__}")


def test_a_rolling_update_leaves_no_gap(objects: list[Object]) -> None:
    spec = the(objects, "Deployment")["spec"]
    update, pod = spec["strategy"]["rollingUpdate"], spec["template"]["spec"]
    assert (update["maxUnavailable"], update["maxSurge"]) == (0, 1)
    assert container(objects)["lifecycle"]["preStop"]["sleep"]["seconds"] < pod["terminationGracePeriodSeconds"]


def test_both_webhooks_fail_the_way_they_should(objects: list[Object]) -> None:
    found = {
        hook["name"]: (
            hook["failurePolicy"],
            hook["reinvocationPolicy"],
            hook["sideEffects"],
            hook["timeoutSeconds"],
            {resource for rule in hook["rules"] for resource in rule["resources"]},
            {operation for rule in hook["rules"] for operation in rule["operations"]},
        )
        for hook in the(objects, "MutatingWebhookConfiguration")["webhooks"]
    }
    workloads = {"cronjobs", "daemonsets", "deployments", "jobs", "replicasets", "statefulsets"}
    assert found == {
        f"pods.{GROUP}": ("Fail", "IfNeeded", "NoneOnDryRun", 10, {"pods"}, {"CREATE"}),
        f"workloads.{GROUP}": ("Ignore", "IfNeeded", "None", 10, workloads, {"CREATE", "UPDATE"}),
    }


def matches(expression: str, object: Object, **others: Object) -> bool:  # noqa: A002 (its name in expressions)
    """What an expression says of an object, by Google's CEL runtime."""
    config = cel.NewEnvConfigFromYaml("stdlib: {}\nextensions: [{name: optional, version: latest}]")
    data = {"object": object, **others}
    evaluator = cel.NewEnv(config=config, variables=dict.fromkeys(data, cel.Type.DYN))
    said = evaluator.compile(expression).eval(data=data).value()
    assert isinstance(said, bool), f"{expression} says {said} of {data}"
    return said


def annotated(key: str) -> Object:
    return {"metadata": {"name": "x", "annotations": {"a": "b", key: "true"}}}


def places(key: str) -> dict[str, Object]:
    """Where a workload can carry an annotation, each with an object that does."""
    plain: Object = {"metadata": {"name": "x"}}
    return {
        "its own metadata": annotated(key) | {"spec": {}},
        "the template": plain | {"spec": {"template": annotated(key)}},
        "the Job's metadata": plain | {"spec": {"jobTemplate": annotated(key) | {"spec": {}}}},
        "the Job's template": plain | {"spec": {"jobTemplate": {"spec": {"template": annotated(key)}}}},
    }


def test_match_conditions_follow_the_variant(objects: list[Object]) -> None:
    variant = options.read(environment(objects)).variant
    ours = f"{variant}.{GROUP}" if variant else GROUP
    others = {GROUP, f"skaffold.{GROUP}", f"green.{GROUP}", f"x{GROUP}", "example.com"} - {ours}
    pods, workloads = (
        hook["matchConditions"][0]["expression"] for hook in the(objects, "MutatingWebhookConfiguration")["webhooks"]
    )
    assert matches(pods, annotated(f"{ours}/inject"))
    for place, candidate in places(f"{ours}/inject").items():
        assert matches(workloads, candidate), place
    for group in others:
        assert not matches(pods, annotated(f"{group}/inject")), group
        for place, candidate in places(f"{group}/inject").items():
            assert not matches(workloads, candidate), (group, place)


@pytest.mark.parametrize("key", ["initContainers", "containers"])
def test_a_copy_of_an_injected_pod_is_seen_without_its_annotations(objects: list[Object], key: str) -> None:
    """`kubectl debug --copy-to` leaves out annotations and keeps containers; their names don't follow the variant."""
    expression = the(objects, "MutatingWebhookConfiguration")["webhooks"][0]["matchConditions"][0]["expression"]
    for name, seen in (("litestream-hook-replicate", True), ("litestream", False)):
        spec = {"containers": [{"name": "app"}], key: [{"name": name}]}
        assert matches(expression, {"metadata": {"name": "x"}, "spec": spec}) == seen


@pytest.mark.parametrize("index", [0, 1])
def test_objects_without_annotations_are_none_of_our_business(objects: list[Object], index: int) -> None:
    hook = the(objects, "MutatingWebhookConfiguration")["webhooks"][index]
    expression = hook["matchConditions"][0]["expression"]
    bare: Object = {"metadata": {"name": "x"}}
    for candidate in (
        bare,
        bare | {"spec": {}},
        bare | {"spec": {"template": {"spec": {}}}},
        bare | {"spec": {"template": {"metadata": {}, "spec": {}}}},
        bare | {"spec": {"jobTemplate": {"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}}},
    ):
        assert not matches(expression, candidate)


def scaled(objects: list[Object], annotations: Object, before: int, after: int, name: str = "web") -> bool:
    """Whether the policy lets a Deployment `web` with these annotations of ours be scaled (or another one)."""
    variant = options.read(environment(objects)).variant
    ours = f"{variant}.{GROUP}" if variant else GROUP
    template = {"metadata": {"annotations": {f"{ours}/{key}": text for key, text in annotations.items()}}}
    data: Object = {
        "object": {"metadata": {"name": name}, "spec": {"replicas": after} if after else {}},
        "oldObject": {"metadata": {"name": name}, "spec": {"replicas": before} if before else {}},
        "params": {"metadata": {"name": "web"}, "spec": {"template": template if annotations else {}}},
    }
    return admits(named(objects, "ValidatingAdmissionPolicy", "litestream-hook"), data)


def admits(policy: Object, data: Object) -> bool:
    """Whether a ValidatingAdmissionPolicy lets a request pass."""
    spec = policy["spec"]
    variables = {f"variables.{each['name']}": f"({each['expression']})" for each in spec["variables"]}
    if not all(matches(condition["expression"], **data) for condition in spec["matchConditions"]):
        return True
    return all(
        matches(functools.reduce(lambda text, name: text.replace(name, variables[name]), variables, expression), **data)
        for expression in (validation["expression"] for validation in spec["validations"])
    )


def test_a_deployment_of_ours_is_not_scaled_to_two_writers(objects: list[Object]) -> None:
    asking = {"inject": "true"}
    assert not scaled(objects, asking, 1, 2)
    assert not scaled(objects, asking, 0, 3)
    assert not scaled(objects, asking | {"single-writer": "enforce"}, 1, 2)
    assert scaled(objects, asking, 1, 2, name="another")
    assert scaled(objects, asking, 2, 0)
    assert scaled(objects, asking, 0, 1)
    assert scaled(objects, asking, 3, 2), "the way back is open"
    assert scaled(objects, asking | {"single-writer": "warn"}, 1, 2)
    assert scaled(objects, asking | {"single-writer": "off"}, 1, 2)
    assert scaled(objects, {"inject": "false"}, 1, 2)
    assert scaled(objects, {}, 1, 2)


def test_the_policy_looks_at_deployments_with_the_webhooks_label_alone(objects: list[Object]) -> None:
    read = options.read(environment(objects))
    binding = named(objects, "ValidatingAdmissionPolicyBinding", "litestream-hook")["spec"]
    ours = f"{read.variant}.{GROUP}" if read.variant else GROUP
    template = {
        "metadata": {"annotations": {f"{ours}/inject": "true"}},
        "spec": {"securityContext": {"runAsUser": 1000}, "containers": [{"name": "app", "image": "app:1"}]},
    }
    spec = {"replicas": 1, "strategy": {"type": "Recreate"}, "template": template}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}
    labels = reviews.injected(deployment, options=read)["metadata"]["labels"]
    (wanted,) = binding["paramRef"]["selector"]["matchExpressions"]
    assert (wanted["operator"], labels[wanted["key"]]) == ("In", *wanted["values"])
    assert binding["paramRef"]["parameterNotFoundAction"] == "Allow"


def test_each_policy_is_bound(objects: list[Object]) -> None:
    bound = {each["spec"]["policyName"] for each in of_kind(objects, "ValidatingAdmissionPolicyBinding")}
    assert bound == {each["metadata"]["name"] for each in of_kind(objects, "ValidatingAdmissionPolicy")}
    for each in of_kind(objects, "ValidatingAdmissionPolicyBinding"):
        assert each["spec"]["validationActions"] == ["Deny"]


# Fields of metadata that the API server itself keeps, and one that it reads only where an object has no name.
KEPT = {
    "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "generateName", "generation",
    "managedFields", "name", "namespace", "resourceVersion", "selfLink", "uid",
}  # fmt: skip


@pytest.fixture(params=["self-signed", "skaffold", "blue self-signed"])
def self_made(request: pytest.FixtureRequest, folder: Path) -> list[Object]:
    """The installations whose account may patch its webhook configuration."""
    variant, _, name = request.param.rpartition(" ")
    return blue(folder, name) if variant else overlay(name)


def patched(objects: list[Object], after: Object, account: str | None = None) -> bool:
    """Whether the webhook's account, or another user, may make `after` of its configuration."""
    read = options.read(environment(objects))
    username = (
        account or f"system:serviceaccount:{read.pod_namespace}:{the(objects, 'ServiceAccount')['metadata']['name']}"
    )
    policy = named(objects, "ValidatingAdmissionPolicy", "litestream-hook-ca-bundle")
    before = the(objects, "MutatingWebhookConfiguration")
    request = {"userInfo": {"username": username}}
    return admits(policy, {"object": after, "oldObject": before, "request": request})


def fields(definition: str) -> set[str]:
    """The fields of one of Kubernetes' types in any release."""
    return set().union(*(schemas.fields(release, definition) for release in schemas.RELEASES))


def changes(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Each change of one field of the webhook configuration, by the field's name; both webhooks are tried."""
    before = the(objects, "MutatingWebhookConfiguration")
    other = "something else"
    for field in fields("v1.ObjectMeta"):
        yield f"metadata.{field}", before | {"metadata": before["metadata"] | {field: other}}
    for number, hook in enumerate(before["webhooks"]):

        def of(changed: Object, number: int = number) -> Object:
            return before | {"webhooks": [*before["webhooks"][:number], changed, *before["webhooks"][number + 1 :]]}

        for field in fields("v1.MutatingWebhook") - {"clientConfig"}:
            yield field, of(hook | {field: other})
        for field in hook.keys() - {"name", "clientConfig"}:
            yield f"no {field}", of({key: value for key, value in hook.items() if key != field})
        for field in fields("admissionregistration.v1.WebhookClientConfig"):
            yield f"clientConfig.{field}", of(hook | {"clientConfig": hook["clientConfig"] | {field: other}})


@pytest.mark.slow
def test_the_webhooks_account_may_change_the_ca_bundle_and_no_other_field(self_made: list[Object]) -> None:
    """RBAC knows no fields: with `rules: */*` every Secret would be sent to a webhook that was taken over."""
    before = the(self_made, "MutatingWebhookConfiguration")
    assert patched(self_made, before)
    allowed = {field for field, after in changes(self_made) if patched(self_made, after)}
    assert allowed == {"clientConfig.caBundle"} | {f"metadata.{field}" for field in KEPT}


def test_the_webhooks_account_may_add_and_remove_no_webhook(self_made: list[Object]) -> None:
    before = the(self_made, "MutatingWebhookConfiguration")
    first, second = before["webhooks"]
    everything = {**first, "name": "all.example.com", "rules": [{"resources": ["*/*"]}]}
    for webhooks in ([], [first], [first, first], [first, second, everything], [first, everything]):
        assert not patched(self_made, before | {"webhooks": webhooks}), webhooks
    assert not patched(self_made, {key: value for key, value in before.items() if key != "webhooks"})


def test_others_change_the_webhook_configuration_as_they_like(self_made: list[Object]) -> None:
    after = the(self_made, "MutatingWebhookConfiguration") | {"webhooks": []}
    others = {"kubernetes-admin", "system:serviceaccount:flux-system:litestream-hook"}
    others |= {
        f"system:serviceaccount:{prefix}litestream-hook:litestream-hook" for prefix in ("", "blue-", "skaffold-")
    }
    for other in others - {
        f"system:serviceaccount:{options.read(environment(self_made)).pod_namespace}:litestream-hook"
    }:
        assert patched(self_made, after, other)


def test_a_webhook_configuration_is_kept_from_its_account_as_it_is_stored(self_made: list[Object]) -> None:
    spec = named(self_made, "ValidatingAdmissionPolicy", "litestream-hook-ca-bundle")["spec"]
    (rule,) = spec["matchConstraints"]["resourceRules"]
    assert rule == {
        "apiGroups": ["admissionregistration.k8s.io"],
        "apiVersions": ["v1"],
        "resources": ["mutatingwebhookconfigurations"],
        "operations": ["UPDATE"],
    }
    assert spec["failurePolicy"] == "Fail"


@pytest.mark.parametrize("name", ["cert-manager", "self-signed"])
def test_a_variant_shares_no_object_with_the_first_installation(folder: Path, name: str) -> None:
    def identities(objects: list[Object]) -> set[tuple[str, str, str]]:
        return {(each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]) for each in objects}

    assert identities(overlay(name)).isdisjoint(identities(blue(folder, name)))


@pytest.mark.parametrize("variant", ["", "blue"])
def test_cert_managers_certificate_is_for_the_service_and_where_the_process_looks(folder: Path, variant: str) -> None:
    objects = blue(folder, "cert-manager") if variant else overlay("cert-manager")
    read = options.read(environment(objects))
    certificates = {each["spec"]["secretName"]: each for each in of_kind(objects, "Certificate")}
    mount, volume = mounted(objects, "certificate")
    assert volume["secret"]["defaultMode"] == 0o440
    pod = the(objects, "Deployment")["spec"]["template"]["spec"]["securityContext"]
    assert pod["fsGroup"] == pod["runAsGroup"]
    assert (mount["mountPath"], mount["name"]) == (read.cert_dir, volume["name"])
    serving = certificates[volume["secret"]["secretName"]]
    host = f"{read.service_name}.{read.pod_namespace}.svc"
    assert serving["spec"]["dnsNames"] == [host, f"{host}.cluster.local"]
    injected = the(objects, "MutatingWebhookConfiguration")["metadata"]["annotations"]
    identity = serving["metadata"]["namespace"] + "/" + serving["metadata"]["name"]
    assert injected["cert-manager.io/inject-ca-from"] == identity
    issuers = {each["metadata"]["name"]: each["spec"] for each in of_kind(objects, "Issuer")}
    for each in certificates.values():
        assert each["spec"]["issuerRef"]["name"] in issuers
    assert issuers[serving["spec"]["issuerRef"]["name"]]["ca"]["secretName"] in certificates


CONTROL_PLANE = ROOT / "k8s/components/client-certificate/control-plane"


def test_callers_certificates_are_verified_with_the_ca_that_is_mounted(folder: Path) -> None:
    objects = blue(folder, "self-signed")
    mount, volume = mounted(objects, "client-ca")
    assert volume["configMap"]["name"] == "litestream-hook-client-ca"
    assert options.read(environment(objects)).client_ca_file == f"{mount['mountPath']}/ca.crt"


def test_the_api_server_shows_its_certificate_to_the_webhook_that_it_calls() -> None:
    """tests/envtest/test_callers.py sets up an API server with these files."""
    admission, kubeconfig = (
        yaml.safe_load((CONTROL_PLANE / f"{name}.yaml").read_text()) for name in ("admission", "kubeconfig")
    )
    (plugin,) = admission["plugins"]
    assert plugin["name"] == "MutatingAdmissionWebhook"
    assert Path(plugin["configuration"]["kubeConfigFile"]).name == "kubeconfig.yaml"
    called = {
        "{name}.{namespace}.svc:{port}".format(**hook["clientConfig"]["service"])
        for hook in the(overlay("self-signed"), "MutatingWebhookConfiguration")["webhooks"]
    }
    assert {user["name"] for user in kubeconfig["users"]} == called


class Call(NamedTuple):
    """What RBAC decides on; namespace None: outside of namespaces, name None: not about one object."""

    verb: str
    group: str
    resource: str
    namespace: str | None
    name: str | None


class Grant(NamedTuple):
    """One cell of a rule, bound to a ServiceAccount; namespace None: everywhere, name None: every object."""

    verb: str
    group: str
    resource: str
    namespace: str | None
    name: str | None

    def allows(self, call: Call) -> bool:
        return (
            (self.verb, self.group, self.resource) == (call.verb, call.group, call.resource)
            and self.namespace in {None, call.namespace}
            and self.name in {None, call.name}
        )


def grants(objects: list[Object]) -> set[Grant]:
    """Everything that the bindings allow the webhook's ServiceAccount."""
    spec = the(objects, "Deployment")["spec"]["template"]["spec"]
    account = the(objects, "ServiceAccount")["metadata"]
    assert spec["serviceAccountName"] == account["name"]
    assert spec["automountServiceAccountToken"] is True
    roles = {
        (each["kind"], each["metadata"]["name"]): each["rules"]
        for each in of_kind(objects, "Role") + of_kind(objects, "ClusterRole")
    }
    bindings = of_kind(objects, "RoleBinding") + of_kind(objects, "ClusterRoleBinding")
    for binding in bindings:
        (subject,) = binding["subjects"]
        assert (subject["kind"], subject["name"]) == ("ServiceAccount", account["name"])
        assert subject["namespace"] == account["namespace"]
    bound = {(each["roleRef"]["kind"], each["roleRef"]["name"]) for each in bindings}
    assert bound == roles.keys(), "a role that nobody has, or a binding without its role"
    return {
        Grant(verb, group, resource, binding["metadata"].get("namespace"), name)
        for binding in bindings
        for rule in roles[binding["roleRef"]["kind"], binding["roleRef"]["name"]]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [None])
    }


class RecordingApi(http.server.BaseHTTPRequestHandler):
    """Answers everything with something that reads like what was asked for, and notes what it was."""

    calls: set[Call]

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        found = re.fullmatch(
            r"/(?:api|apis/(?P<group>[^/]+))/v1(?:/namespaces/(?P<namespace>[^/]+))?"
            r"/(?P<resource>[^/]+)(?:/(?P<name>[^/]+))?",
            path,
        )
        assert found, path
        query = parse_qs(urlsplit(self.path).query)
        read = "get" if found["name"] else "watch" if "watch" in query else "list"
        name = found["name"] or query.get("fieldSelector", [""])[0].removeprefix("metadata.name=") or None
        verb = {"GET": read, "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[self.command]
        self.calls.add(Call(verb, found["group"] or "", found["resource"], found["namespace"], name))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps({"metadata": {"name": "x"}, "items": []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 (names of the standard library)

    def log_message(self, *_: Any) -> None:
        """Keep the test's output to the test."""


@pytest.fixture
def api(tmp_path: Path) -> Iterator[tuple[Cluster, set[Call]]]:
    """The code's own API client, and what it asks for."""
    calls: set[Call] = set()
    handler = type("Api", (RecordingApi,), {"calls": calls})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    (tmp_path / "token").write_text("token")
    authority = certificate.make_ca("test", datetime.now(UTC))
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    yield Cluster(f"http://127.0.0.1:{server.server_port}", tmp_path), calls
    server.shutdown()
    server.server_close()
    thread.join()


def placed(call: Call, objects: list[Object]) -> Call:
    """A call with the names of an installation: those that its environment gives the process."""
    read = options.read(environment(objects))
    names = {"ANY": "an-application's", "NAMESPACE": read.pod_namespace, "SECRET": read.tls_secret_name}
    names["CONFIGURATION"] = read.webhook_configuration_name
    return call._replace(namespace=call.namespace and names[call.namespace], name=call.name and names[call.name])


async def every_call(api: Cluster) -> None:
    """Everything that the code can ask the API for, with the names that it asks with in capitals."""
    secret, lease = {"metadata": {"name": "SECRET"}}, {"metadata": {"name": "ANY"}}
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "get_secret": lambda: api.get_secret("NAMESPACE", "SECRET"),
        "create_secret": lambda: api.create_secret("NAMESPACE", secret),
        "replace_secret": lambda: api.replace_secret("NAMESPACE", secret),
        "get_webhook_configuration": lambda: api.get_webhook_configuration("CONFIGURATION"),
        "patch_webhook_configuration": lambda: api.patch_webhook_configuration("CONFIGURATION", {}),
        "watch_webhook_configuration": lambda: anext(api.watch_webhook_configuration("CONFIGURATION"), None),
        "get_lease": lambda: api.get_lease("NAMESPACE", "ANY"),
        "list_leases": lambda: anext(api.list_leases("NAMESPACE")),
        "create_lease": lambda: api.create_lease("NAMESPACE", lease),
        "replace_lease": lambda: api.replace_lease("NAMESPACE", lease),
        "patch_lease": lambda: api.patch_lease("NAMESPACE", "ANY", []),
        "delete_lease": lambda: api.delete_lease("NAMESPACE", "ANY", "uid", "7"),
        "find_pod": lambda: api.find_pod("ANY", "ANY"),
        "get_namespace": lambda: api.get_namespace("ANY"),
    }
    asked = (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    public = {name for kind in asked for name, _ in inspect.getmembers(Cluster, kind) if name[0] != "_"}
    assert calls.keys() == public - {"close"}, "a call that this test does not know"
    for call in calls.values():
        await call()
    await api.close()


@pytest.mark.parametrize("name", ["self-signed", "skaffold", "blue self-signed"])
def test_the_account_may_do_what_the_code_does_and_nothing_else(
    folder: Path, api: tuple[Cluster, set[Call]], name: str
) -> None:
    variant, _, plain = name.rpartition(" ")
    objects = blue(folder, plain) if variant else overlay(plain)
    client, calls = api
    asyncio.run(every_call(client))
    if not options.read(environment(objects)).namespace_defaults:
        calls = {call for call in calls if call.resource != "namespaces"}
    needed, allowed = {placed(call, objects) for call in calls}, grants(objects)
    assert {call for call in needed if not any(grant.allows(call) for grant in allowed)} == set(), "denied"
    assert {grant for grant in allowed if not any(grant.allows(call) for call in needed)} == set(), "unused"


def test_with_mounted_certificates_the_account_may_write_leases_alone(api: tuple[Cluster, set[Call]]) -> None:
    objects = overlay("cert-manager")
    client, calls = api
    asyncio.run(every_call(client))
    looks = {
        placed(call, objects)
        for call in calls
        if call.resource == "leases"
        or (call.resource not in {"secrets", "namespaces"} and call.verb in {"get", "list", "watch"})
    }
    allowed = grants(objects)
    assert {call for call in looks if not any(grant.allows(call) for grant in allowed)} == set(), "denied"
    assert {grant for grant in allowed if not any(grant.allows(call) for call in looks)} == set(), "unused"


@pytest.mark.parametrize("name", ["example", "blue"])
def test_the_operators_file_is_sound_and_where_the_process_looks(folder: Path, name: str) -> None:
    objects = kustomize(ROOT / "examples/11-defaults") if name == "example" else blue(folder, "self-signed")
    (configured,) = (each for each in of_kind(objects, "ConfigMap") if "defaults.yaml" in each["data"])
    read = operator_file.read(configured["data"]["defaults.yaml"], options.read(environment(objects)))
    assert "bucket" in read.enforce
    volumes = the(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
    (volume,) = (each for each in volumes if each["name"] == "defaults")
    (mount,) = (each for each in container(objects)["volumeMounts"] if each["name"] == volume["name"])
    assert volume["configMap"]["name"] == configured["metadata"]["name"]
    assert configured["metadata"]["namespace"] == the(objects, "Namespace")["metadata"]["name"]
    assert environment(objects)["DEFAULTS_FILE"] == f"{mount['mountPath']}/defaults.yaml"
    assert "subPath" not in mount


def test_the_autoscaler_alone_decides_how_many_replicas_there_are(folder: Path) -> None:
    objects = blue(folder, "cert-manager")
    scaler, deployment = the(objects, "HorizontalPodAutoscaler"), the(objects, "Deployment")
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]
    assert "cpu" in container(objects)["resources"]["requests"]


def test_alerts_ask_for_metrics_that_the_webhook_has(folder: Path) -> None:
    objects = blue(folder, "self-signed")
    offered = {sample.name for family in metrics.registry.collect() for sample in family.samples} | {
        f"{family.name}{suffix}" for family in metrics.registry.collect() for suffix in ("_total", "_bucket")
    }
    rules = named(objects, "PrometheusRule", "litestream-hook")
    groups = {group["name"]: group["rules"] for group in rules["spec"]["groups"]}
    for rule in groups["litestream-hook"]:
        asked = set(re.findall(r"litestream_hook_\w+", rule["expr"] + rule["annotations"]["description"]))
        assert asked
        assert {name for name in asked if not any(each.startswith(name) for each in offered)} == set()
        outcomes = set(re.findall(r'outcome="(.*?)"', rule["expr"]))
        assert outcomes <= set(get_args(webhook.Outcome))
        assert set(re.findall(r'result="(.*?)"', rule["expr"])) <= set(metrics.LOOKUPS)


@pytest.mark.parametrize("variant", ["", "blue"])
def test_prometheus_finds_litestream_in_the_pods_that_this_installation_has_injected(
    folder: Path, variant: str
) -> None:
    objects = blue(folder, "self-signed") if variant else kustomize_with_monitoring(folder)
    monitor = the(objects, "PodMonitor")["spec"]
    ours = f"{variant}.{GROUP}" if variant else GROUP
    asked = {f"{ours}/inject": "true", f"{ours}/metrics-port": "9090"}
    spec = {"securityContext": {"runAsUser": 1000}, "containers": [{"name": "app", "image": "app:1"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "annotations": asked}, "spec": spec}
    injected = reviews.injected(pod, options=options.read(environment(objects)))
    for wanted in monitor["selector"]["matchExpressions"]:
        assert wanted["operator"] == "In"
        assert injected["metadata"]["labels"][wanted["key"]] in wanted["values"]
    containers = injected["spec"]["initContainers"] + injected["spec"]["containers"]
    ports = {port["name"] for each in containers for port in each.get("ports", [])}
    assert {endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]} == ports
    assert monitor["namespaceSelector"] == {"any": True}
