"""Workloads are judged as the Pods that they will make: every rule of two writers, updates, owners, misplaced keys."""

import copy
from typing import Any

import jsonpatch
import pytest

from injector import GROUP
from tests import reviews

Object = dict[str, Any]
API = {"CronJob": "batch/v1", "Job": "batch/v1"}


def template(**annotations: str) -> Object:
    keys = {f"{GROUP}/{key.replace('_', '-')}": value for key, value in annotations.items()}
    spec = {"securityContext": {"runAsUser": 1000}, "containers": [{"name": "app", "image": "app:1"}]}
    return {"metadata": {"annotations": {f"{GROUP}/inject": "true", **keys}}, "spec": spec}


def workload(kind: str, spec: Object | None = None, metadata: Object | None = None, **annotations: str) -> Object:
    inner: Object = {"template": template(**annotations), **(spec or {})}
    if kind == "CronJob":
        job = inner.pop("job", {})
        inner = {"jobTemplate": {"spec": {"template": inner.pop("template"), **job}}, **inner}
    return {
        "apiVersion": API.get(kind, "apps/v1"),
        "kind": kind,
        "metadata": {"name": "web", **(metadata or {})},
        "spec": inner,
    }


RECREATE: Object = {"strategy": {"type": "Recreate"}}
PATH = "{namespace}/fixed/{database}"
FINE = [
    workload("Deployment", RECREATE),
    workload("Deployment", {**RECREATE, "replicas": 1}),
    workload("Deployment", {**RECREATE, "replicas": 0}),
    workload("Deployment", {**RECREATE, "replicas": None}),
    workload("StatefulSet"),
    workload("StatefulSet", {"replicas": 3}),
    workload("StatefulSet", {"replicas": 3}, replica_path="x/{pod}/{database}"),
    workload("StatefulSet", {"ordinals": {"start": 5}, "replicas": 2}),
    workload("StatefulSet", replica_path=PATH),
    workload("ReplicaSet"),
    workload("Job"),
    workload("Job", {"parallelism": None, "completions": 5}),
    workload("Job", {"parallelism": 0}),
    workload("CronJob", {"concurrencyPolicy": "Forbid"}, replica_path=PATH),
    workload("CronJob", {"concurrencyPolicy": "Replace"}, replica_path=PATH),
    workload("DaemonSet", replica_path="x/{node}/{database}"),
]
WRONG = [
    (workload("Deployment"), ["spec.strategy.type"]),
    (workload("Deployment", {"strategy": None}), ["spec.strategy.type"]),
    (workload("Deployment", {"strategy": {"type": "RollingUpdate"}, "replicas": 2}),
     ["spec.replicas", "spec.strategy.type"]),
    (workload("Deployment", {**RECREATE, "replicas": 2}), ["spec.replicas"]),
    (workload("StatefulSet", {"replicas": 2}, replica_path=PATH), ["spec.replicas"]),
    (workload("ReplicaSet", {"replicas": 2}), ["spec.replicas"]),
    (workload("Job", {"parallelism": 2}), ["spec.parallelism"]),
    (workload("CronJob", replica_path=PATH), ["spec.concurrencyPolicy"]),
    (workload("CronJob", {"concurrencyPolicy": "Allow"}, replica_path=PATH), ["spec.concurrencyPolicy"]),
    (workload("CronJob", {"concurrencyPolicy": "Forbid", "job": {"parallelism": 2}}, replica_path=PATH),
     ["spec.jobTemplate.spec.parallelism"]),
    (workload("CronJob", {"concurrencyPolicy": "Forbid"}), ["replica-path"]),
    (workload("DaemonSet", replica_path=PATH), ["spec.template"]),
    (workload("DaemonSet"), ["spec.template"]),
    (workload("Deployment", RECREATE, path="/d/a.db,/d/b.db", replica_path="x/y"), ["replica-path"]),
    (workload("Deployment", RECREATE, replica_path="x/{pod}/{database}"), ["replica-path"]),
    (workload("Job", sidecar="container"), ["sidecar"]),
    (workload("CronJob", {"concurrencyPolicy": "Forbid"}, sidecar="container", replica_path=PATH), ["sidecar"]),
]  # fmt: skip


def causes(reply: Object) -> list[str]:
    found = (reply.get("status") or {}).get("details", {}).get("causes", [])
    return sorted(cause["field"].removeprefix(f"{GROUP}/") for cause in found)


@pytest.mark.parametrize("obj", FINE, ids=lambda obj: str(obj["kind"]))
def test_one_writer_a_replica_is_allowed_as_it_is_but_for_a_deployments_label(obj: Object) -> None:
    reply = reviews.response(obj)
    assert reply["allowed"], reply
    after = jsonpatch.apply_patch(obj, reviews.operations(reply))
    labels = after["metadata"].pop("labels", {})
    assert labels == ({f"{GROUP}/replicates": "true"} if obj["kind"] == "Deployment" else {})
    assert after == {**obj, "metadata": {key: obj["metadata"][key] for key in obj["metadata"] if key != "labels"}}


def test_a_deployment_keeps_its_labels_and_one_that_does_not_ask_gets_none() -> None:
    asking = workload("Deployment", RECREATE)
    asking["metadata"] = {**asking["metadata"], "labels": {"app": "web"}}
    after = reviews.injected(asking)
    assert after["metadata"]["labels"] == {"app": "web", f"{GROUP}/replicates": "true"}
    assert "patch" not in reviews.response(after)
    asking["spec"]["template"]["metadata"]["annotations"] = {f"{GROUP}/inject": "false"}
    assert "patch" not in reviews.response(asking)


@pytest.mark.parametrize(("obj", "fields"), WRONG, ids=lambda value: value["kind"] if isinstance(value, dict) else None)
def test_two_writers_are_denied_where_they_are_applied(obj: Object, fields: list[str]) -> None:
    reply = reviews.response(obj)
    assert not reply["allowed"]
    assert (causes(reply), reply["status"]["code"]) == (sorted(fields), 422)
    # The stored object had it already: nobody is locked out, and the mistakes are still told.
    again = reviews.response(obj, "UPDATE", oldObject=obj)
    assert again["allowed"]
    assert len(again["warnings"]) >= len(fields)


@pytest.mark.parametrize(("policy", "allowed"), [("warn", True), ("off", True), ("enforce", False), ("of", False)])
def test_single_writer_softens_what_it_says_and_nothing_else(policy: str, allowed: bool) -> None:
    reply = reviews.response(workload("Deployment", {"replicas": 2}, single_writer=policy))
    assert reply["allowed"] is allowed
    assert len(reply.get("warnings", [])) == (2 if policy == "warn" else 0)
    if policy == "of":
        assert causes(reply) == ["single-writer", "spec.replicas", "spec.strategy.type"]


def test_an_update_is_denied_for_what_is_new_only() -> None:
    old = workload("Deployment")
    new = workload("Deployment", {"replicas": 2})
    assert causes(reviews.response(new, "UPDATE", oldObject=old)) == ["spec.replicas"]
    fewer = workload("Deployment", {"replicas": 3})
    assert reviews.response(new, "UPDATE", oldObject=fewer)["allowed"]
    asked_now = reviews.response(
        workload("Deployment"),
        "UPDATE",
        oldObject={**old, "spec": {"template": {"spec": old["spec"]["template"]["spec"]}}},
    )
    assert causes(asked_now) == ["spec.strategy.type"]
    assert causes(reviews.response(new, "UPDATE")) == ["spec.replicas", "spec.strategy.type"]


def test_softening_that_is_taken_away_is_a_new_mistake() -> None:
    soft = workload("Deployment", single_writer="off")
    assert causes(reviews.response(workload("Deployment"), "UPDATE", oldObject=soft)) == ["spec.strategy.type"]
    warned = workload("Deployment", single_writer="warn")
    assert causes(reviews.response(workload("Deployment"), "UPDATE", oldObject=warned)) == ["spec.strategy.type"]


def test_what_is_being_deleted_is_always_allowed() -> None:
    ending = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]}
    for obj in (workload("Deployment", {"replicas": 2}, ending), workload("Deployment", {"replicas": "2"}, ending)):
        assert reviews.response(obj, "UPDATE")["allowed"]


def test_owned_by_a_checked_controller_is_reported_once_and_by_another_always() -> None:
    def owned(api: str, kind: str) -> Object:
        owner = {"apiVersion": api, "kind": kind, "name": "web", "uid": "1", "controller": True}
        return workload("ReplicaSet", {"replicas": 2}, {"ownerReferences": [owner]})

    assert reviews.response(owned("apps/v1", "Deployment"))["allowed"]
    assert not reviews.response(owned("argoproj.io/v1alpha1", "Rollout"))["allowed"]


@pytest.mark.parametrize(
    ("obj", "example"),
    [
        (workload("StatefulSet", {"replicas": 2}, replica_path="fixed/{database}"), "fixed/{pod}/{database}"),
        (workload("StatefulSet", {"replicas": 2}, replica_path="fixed"), "fixed/{pod}/{database}"),
        (workload("DaemonSet"), "{namespace}/{kind}/{workload}/{node}/{database}"),
    ],
    ids=range(3),
)
def test_a_replica_path_that_is_too_few_comes_with_one_that_is_enough(obj: Object, example: str) -> None:
    (message,) = reviews.denied(obj).values()
    assert message.endswith(f", such as {example}")
    obj = copy.deepcopy(obj)
    obj["spec"]["template"]["metadata"]["annotations"][f"{GROUP}/replica-path"] = example
    assert reviews.response(obj)["allowed"]


def test_knatives_deployment_is_told_what_to_run_instead_of_a_strategy_that_nobody_can_write() -> None:
    owner = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "name": "web-2",
        "uid": "1",
        "controller": True,
    }
    metadata = {"name": "web-2-deployment", "ownerReferences": [owner]}
    found = reviews.denied(workload("Deployment", {"replicas": 2}, metadata, replica_path=PATH))
    assert list(found) == ["metadata.ownerReferences"]
    assert "as a StatefulSet or, with strategy Recreate, a Deployment" in found["metadata.ownerReferences"]
    soft = workload("Deployment", None, metadata, single_writer="off")
    assert "each Revision's Deployment has another name" in reviews.denied(soft)["replica-path"]
    assert reviews.warned(workload("Deployment", None, metadata, single_writer="off", replica_path=PATH)) == ""


@pytest.mark.parametrize("kind", ["Deployment", "CronJob"])
def test_keys_outside_the_template_are_denied_with_where_they_go(kind: str) -> None:
    obj = workload(kind, metadata={"annotations": {f"{GROUP}/inject": "true"}})
    inner = obj["spec"].get("template") or obj["spec"]["jobTemplate"]["spec"]["template"]
    del inner["metadata"]
    message = reviews.response(obj)["status"]["message"]
    where = "spec.jobTemplate.spec.template" if kind == "CronJob" else "spec.template"
    assert f"move it to {where}.metadata.annotations" in message


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "ReplicaSet", "DaemonSet", "Job"])
def test_a_nameless_workload_is_told_that_it_needs_a_name_or_a_path(kind: str) -> None:
    path: Object = {"replica_path": "{workload}/{node}/{database}"} if kind == "DaemonSet" else {}
    spec = RECREATE if kind == "Deployment" else None
    obj = workload(kind, spec, {"generateName": "web-", "name": None}, **path)
    reply = reviews.response(obj)
    assert causes(reply) == ["replica-path"]
    assert "generateName" in reply["status"]["message"]
    fixed = workload(kind, RECREATE if kind == "Deployment" else None, replica_path="x/{database}", single_writer="off")
    if kind != "DaemonSet":
        fixed["metadata"] = {"generateName": "web-"}
        assert reviews.response(fixed)["allowed"]


@pytest.mark.parametrize("operation", ["CREATE", "UPDATE"])
def test_workloads_without_our_keys_are_left_alone(operation: str) -> None:
    obj = workload("Deployment", {"replicas": 5})
    del obj["spec"]["template"]["metadata"]
    assert set(reviews.response(obj, operation)) == {"uid", "allowed"}


def test_a_subresource_is_left_alone() -> None:
    assert reviews.response(workload("Deployment"), "UPDATE", subResource="status")["allowed"]
