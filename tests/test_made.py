"""The Pod that a workload would make: the webhook gives it the replica that it says the workload has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from injector import options
from injector.admission import workload
from injector.admission.verdict import POD, Question, judge, key_of
from injector.command.made import pod_of
from tests import reviews, schemas
from tests.test_golden import INPUTS

Object = dict[str, Any]
DEFAULTS = options.read({})
WORKLOADS = [
    pytest.param(obj, id=f"{path.stem}-{obj['kind']}")
    for path in INPUTS
    for obj in yaml.safe_load_all(path.read_text())
    if obj and key_of(obj) in workload.TEMPLATES
]


@pytest.mark.parametrize("obj", WORKLOADS)
def test_it_has_the_replicas_of_its_workload(obj: Object) -> None:
    found = judge(Question(key_of(obj), "CREATE", obj, "shop"), DEFAULTS)
    made = judge(Question(POD, "CREATE", pod_of(obj), "shop"), DEFAULTS)
    if found.injection is not None:
        assert made.injection is not None
        assert made.injection.replicas == found.injection.replicas
        assert made.injection.settings == found.injection.settings


@pytest.mark.parametrize("obj", WORKLOADS)
def test_it_is_a_pod_and_the_same_one_each_time(obj: Object) -> None:
    made = pod_of(obj)
    assert made == pod_of(obj)
    assert list(schemas.problems(made, schemas.RELEASES[-1])) == []
    (owner,) = made["metadata"]["ownerReferences"]
    assert ("name" in made["metadata"]) == (owner["kind"] == "StatefulSet")


def test_a_stateful_pod_has_its_claims_among_its_volumes() -> None:
    stateful = yaml.safe_load(
        (Path(__file__).parent.parent / "examples/02-statefulset.yaml").read_text().split("---")[0]
    )
    claim = {"metadata": {"name": "data"}, "spec": {}}
    stateful["spec"] |= {"volumeClaimTemplates": [claim], "ordinals": {"start": 3}}
    stateful["spec"]["template"]["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}, {"name": "x", "emptyDir": {}}]
    made = pod_of(stateful)
    assert made["metadata"]["name"] == "counter-3"
    assert made["spec"]["volumes"] == [
        {"name": "x", "emptyDir": {}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-counter-3"}},
    ]
    assert stateful["spec"]["template"]["spec"]["volumes"][0] == {"name": "data", "emptyDir": {}}


def test_a_deployment_s_pod_is_of_a_replica_set_whose_hash_a_label_tells() -> None:
    pod = reviews.pod()
    template = {"metadata": pod["metadata"], "spec": pod["spec"]}
    made = pod_of(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"template": template}}
    )
    label = made["metadata"]["labels"]["pod-template-hash"]
    assert re.fullmatch("[b-z2-9]{10}", label)
    assert made["metadata"]["ownerReferences"][0]["name"] == f"web-{label}"
    assert made["metadata"]["generateName"] == f"web-{label}-"


@pytest.mark.parametrize("broken", [{}, {"metadata": None, "spec": None}, {"metadata": [], "spec": {"template": 1}}])
@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_of_a_workload_of_any_shape_there_is_a_pod(kind: str, broken: Object) -> None:
    assert pod_of({"apiVersion": "apps/v1", "kind": kind, **broken})["kind"] == "Pod"
