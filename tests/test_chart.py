"""The Helm chart, rendered by Helm's own engine: object by object what kustomize makes of k8s/."""

from __future__ import annotations

import copy
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from helm_python import chart as helm
from helm_python.errors import HelmError

from injector import __version__, options
from injector.annotations import operator_file
from tests import restricted
from tests.dist import CHART
from tests.dist import charted as rendered
from tests.test_manifests import ROOT, blue, kustomize, overlay

if TYPE_CHECKING:
    from collections.abc import Iterable

Object = dict[str, Any]
MODES = {"self-signed": "selfSigned", "cert-manager": "certManager"}
HELMS = ("app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart")
EVERY_COMPONENT = {
    "autoscaling": {"enabled": True},
    "clientCertificates": True,
    "monitoring": {"enabled": True},
    "defaults": {"enforce": ["bucket"]},
    "namespaceDefaults": True,
    "verify": {"alerts": True},
}
PLAIN = """
resources: [{root}/overlays/{overlay}]
components: [{root}/components/{component}]
"""


def compared(objects: Iterable[Object]) -> dict[tuple[str, str], Object]:
    """Objects by kind and name, without what only one of the two tools says.

    Helm has labels of its own and leaves the Namespace to `--create-namespace`; kustomize gives policies, which are in
    no namespace, one. The order of variables and volumes says nothing: no variable refers to another.
    """
    found = {}
    for each in copy.deepcopy(list(objects)):
        kind, metadata = each["kind"], each["metadata"]
        if kind == "Namespace":
            continue
        if kind.startswith("ValidatingAdmissionPolicy"):
            metadata.pop("namespace", None)
        if kind == "Deployment":
            pod = each["spec"]["template"]["spec"]
            for named in (pod.get("volumes"), pod["containers"][0].get("volumeMounts"), pod["containers"][0]["env"]):
                (named or []).sort(key=lambda item: item["name"])
        of_template = each.get("spec", {}).get("template", {}).get("metadata", {}) if kind == "Deployment" else {}
        for labels in (metadata.get("labels", {}), of_template.get("labels", {})):
            for key in HELMS:
                labels.pop(key, None)
        found[kind, metadata["name"]] = each
    return found


@pytest.mark.parametrize("mode", MODES)
def test_the_chart_makes_what_the_overlay_makes(mode: str) -> None:
    made, wanted = compared(rendered({"certificates": MODES[mode]})), compared(overlay(mode))
    assert made.keys() == wanted.keys()
    for key, each in wanted.items():
        assert made[key] == each, key


@pytest.mark.parametrize("mode", MODES)
def test_the_chart_makes_a_second_installation_with_everything(mode: str, tmp_path: Path) -> None:
    values = {"certificates": MODES[mode], "variant": "blue", **EVERY_COMPONENT}
    made, wanted = compared(rendered(values, "blue-litestream-hook")), compared(blue(tmp_path, mode))
    assert made.keys() == wanted.keys()
    for key, each in wanted.items():
        assert made[key] == each, key


@pytest.mark.parametrize(
    ("component", "values"),
    [
        ("autoscaling", {"autoscaling": {"enabled": True}}),
        ("client-certificate", {"clientCertificates": True}),
        ("monitoring", {"monitoring": {"enabled": True}}),
        ("verify", {"verify": {"alerts": True}}),
    ],
)
def test_the_chart_makes_what_a_component_adds(component: str, values: Object, tmp_path: Path) -> None:
    folder = tmp_path / component
    folder.mkdir()
    root = "/".join([".."] * (len(folder.parts) - 1)) + str(ROOT / "k8s")
    (folder / "kustomization.yaml").write_text(PLAIN.format(root=root, overlay="self-signed", component=component))
    made, wanted = compared(rendered(values)), compared(kustomize(folder))
    assert made.keys() == wanted.keys()
    for key, each in wanted.items():
        assert made[key] == each, key


def container(values: Object) -> Object:
    (deployment,) = (each for each in rendered(values) if each["kind"] == "Deployment")
    pod: Object = deployment["spec"]["template"]["spec"]
    return {**pod, **pod["containers"][0]}


def test_an_image_is_pinned_by_its_digest() -> None:
    digest = "sha256:" + "0123456789abcdef" * 4
    image = container({"image": {"repository": "registry.example/hook", "tag": "v9", "digest": digest}})["image"]
    assert image == f"registry.example/hook:v9@{digest}"
    assert container({})["image"] == f"ghcr.io/kaidotio/litestream-hook:{__version__}"


def test_options_reach_the_process_as_text() -> None:
    environment = {each["name"]: each.get("value") for each in container({"options": {"LOG_LEVEL": "debug"}})["env"]}
    assert environment["LOG_LEVEL"] == "debug"
    environment = {each["name"]: each.get("value") for each in container({"options": {"CERTIFICATE_DAYS": 30}})["env"]}
    assert environment["CERTIFICATE_DAYS"] == "30"


def test_the_operators_file_reaches_the_process() -> None:
    told: Object = {"defaults": {"endpoint": "http://minio:9000", "run-as-user": 1000}, "enforce": ["endpoint"]}
    (found,) = (each for each in rendered({"defaults": told}) if each["kind"] == "ConfigMap")
    read = operator_file.read(found["data"]["defaults.yaml"], options.read({}))
    assert read.everywhere == {"endpoint": "http://minio:9000", "run-as-user": "1000"}
    assert read.enforce == {"endpoint"}
    made = container({"defaults": told})
    assert made["volumes"][0]["configMap"]["name"] == found["metadata"]["name"]
    (mount,) = made["volumeMounts"]
    assert {"name": "DEFAULTS_FILE", "value": f"{mount['mountPath']}/defaults.yaml"} in made["env"]


def test_a_node_is_chosen_as_the_values_say() -> None:
    values = {
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "topologySpreadConstraints": [{"topologyKey": "rack", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}],
        "affinity": {"nodeAffinity": {}},
        "hostNetwork": True,
        "imagePullSecrets": [{"name": "registry"}],
    }
    made = container(values)
    assert {key: made[key] for key in values} == values
    assert made["dnsPolicy"] == "ClusterFirstWithHostNet"


@pytest.mark.parametrize(("values", "broken"), [({}, []), ({"hostNetwork": True}, ["hostNetwork"])])
def test_a_pod_in_the_hosts_network_breaks_the_restricted_standard_by_that_alone(
    values: Object, broken: list[str]
) -> None:
    (deployment,) = (each for each in rendered(values) if each["kind"] == "Deployment")
    assert list(restricted.violations(deployment["spec"]["template"]["spec"])) == broken


def test_extra_labels_are_on_every_object() -> None:
    for each in rendered({"extraLabels": {"team": "data"}, **EVERY_COMPONENT}):
        assert each["metadata"]["labels"]["team"] == "data", each["metadata"]["name"]


def test_a_network_policy_leads_to_the_ports_of_the_api_server() -> None:
    objects = rendered({"networkPolicy": {"apiServerPorts": [16443]}})
    (policy,) = (each for each in objects if each["kind"] == "NetworkPolicy")
    assert policy["spec"]["egress"][0]["ports"] == [{"port": 16443, "protocol": "TCP"}]


@pytest.mark.parametrize(
    "values",
    [
        {"replica": 3},
        {"certificates": "cert-manager"},
        {"image": {"digest": "latest"}},
        {"variant": "Blue"},
        {"options": {"VARIANT": "blue"}},
        {"options": {"logLevel": "debug"}},
        {"networkPolicy": {"apiServerPorts": ["6443"]}},
        {"defaults": {"bucket": "mine"}},
        {"defaults": {"defaults": {"bucket": ["mine"]}}},
        {"namespaceDefaults": "yes"},
    ],
    ids=json.dumps,
)
def test_a_value_that_is_misspelled_or_of_another_type_is_refused(values: Object) -> None:
    with helm.Chart.load(CHART) as chart, pytest.raises(HelmError):
        chart.validate_schema(values)


def test_every_value_has_a_type_and_a_default_that_fits_it() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - {"global"} == set(values)
    for name, value in values.items():
        if isinstance(value, dict) and "properties" in schema["properties"][name]:
            assert set(value) == set(schema["properties"][name]["properties"]), name


def test_the_operator_s_file_can_have_all_its_sections() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert {f"^{name}$" for name in operator_file.SECTIONS} == schema["properties"]["defaults"][
        "patternProperties"
    ].keys()


@pytest.mark.parametrize("mode", MODES.values())
def test_helm_lint_finds_nothing(mode: str) -> None:
    report = helm.lint(CHART, {"certificates": mode, **EVERY_COMPONENT}, strict=True)
    assert report["errors"] == []
    assert [each for each in report["messages"] if each["severity"] > 1] == []


def test_a_package_holds_the_alerts_and_the_dashboard(tmp_path: Path) -> None:
    """They stand once in the repository, in k8s/, and are links in the chart."""
    with helm.Chart.load(CHART) as chart:
        archive = chart.save(tmp_path)
    with tarfile.open(archive) as package:
        for name, source in (
            ("prometheusrule.yaml", "monitoring/prometheusrule.yaml"),
            ("dashboard.json", "monitoring/dashboard.json"),
            ("verify.yaml", "verify/prometheusrule.yaml"),
        ):
            inside = package.extractfile(f"litestream-hook/files/{name}")
            assert inside is not None
            assert inside.read() == (ROOT / "k8s/components" / source).read_bytes()


def test_the_pod_of_helm_test_is_none_of_the_webhooks_own() -> None:
    with helm.Chart.load(CHART) as chart:
        files = chart.render({}, name="litestream-hook", namespace="litestream-hook")
    (pod,) = (yaml.safe_load(text) for path, text in files.items() if "/tests/" in path)
    (service,) = (each for each in rendered() if each["kind"] == "Service")
    assert not service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert not pod["spec"]["containers"][0]["name"].startswith("litestream-hook-")


def test_notes_say_the_next_command() -> None:
    with helm.Chart.load(CHART) as chart:
        files = chart.render({"variant": "blue"}, name="hook", namespace="apps")
    notes = files["litestream-hook/templates/NOTES.txt"]
    assert "kubectl -n apps rollout status deployment/litestream-hook" in notes
    assert 'blue.litestream-hook.kaidotio.github.io/inject: "true"' in notes


def test_one_version_is_everywhere() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)
    deployment = yaml.safe_load((ROOT / "k8s/base/deployment.yaml").read_text())
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image.rpartition(":")[2] == __version__
    assert f"\nARG VERSION={__version__}\n" in (ROOT / "Dockerfile").read_text()
