"""The status annotation is believed only where the Pod bears it out: forged, damaged and copied ones are denied."""

import copy
import json
from typing import Any

import pytest

from injector import GROUP
from tests import reviews, velero

Object = dict[str, Any]
STATUS = f"{GROUP}/status"


def pod(**annotations: str) -> Object:
    keys = {f"{GROUP}/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "annotations": {f"{GROUP}/inject": "true", **keys}},
        "spec": {
            "securityContext": {"runAsUser": 1000},
            "containers": [{"name": "app", "image": "app:1"}, {"name": "worker", "image": "app:1"}],
        },
    }


def with_status(obj: Object, **fields: Any) -> Object:
    """An injected Pod whose status says something else."""
    forged = copy.deepcopy(obj)
    status = {**json.loads(forged["metadata"]["annotations"][STATUS]), **fields}
    forged["metadata"]["annotations"][STATUS] = json.dumps(status)
    return forged


def denial(obj: Object) -> str:
    reply = reviews.response(obj)
    assert not reply["allowed"]
    assert reply["status"]["code"] == 422
    message: str = reply["status"]["message"]
    return message


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "true", "{}", '{"version": "1"}', "[" * 20_000, "\x00", '{"a": "' + "b" * 10_000 + '"}'],
    ids=range(10),
)
def test_a_damaged_status_is_denied(text: str) -> None:
    assert "remove it" in denial(pod(status=text))


@pytest.mark.parametrize(
    "fields",
    [
        {"containers": []},
        {"containers": ["ghost"]},
        {"containers": ["app", "ghost"]},
        {"containers": ["litestream-hook-replicate"]},
        {"containers": ["app", "app"]},
        {"databases": {}},
        {"databases": {"/mnt/litestream.db": "another/path"}},
        {"gracePeriod": -1},
        {"gracePeriod": 1.5},
        {"gracePeriod": 10**30},
        {"unknown": 1},
        {"version": None},
    ],
    ids=str,
)
def test_a_status_that_does_not_fit_the_pod_is_denied(fields: Object) -> None:
    assert "remove it" in denial(with_status(reviews.injected(pod()), **fields))


def test_a_status_without_what_it_stands_for_is_denied() -> None:
    bare = pod(status=reviews.injected(pod())["metadata"]["annotations"][STATUS])
    assert "needs litestream-hook-" in denial(bare)
    assert ", which aren't in this Pod" in denial(bare)


def test_a_status_that_names_another_pods_container_is_denied() -> None:
    assert "names container gone, which isn't in this Pod" in denial(
        with_status(reviews.injected(pod()), containers=["app", "gone"])
    )


def test_a_copy_under_another_name_is_denied_and_not_made_a_second_writer() -> None:
    copied = reviews.injected(pod())
    copied["metadata"]["name"] = "web-2"
    assert "another workload" in denial(copied)


def test_a_copy_with_other_databases_is_denied() -> None:
    copied = reviews.injected(pod())
    copied["metadata"]["annotations"][f"{GROUP}/path"] = "/mnt/other.db"
    assert "other databases" in denial(copied)


def test_a_copy_whose_containers_were_changed_is_denied_and_not_ignored() -> None:
    copied = reviews.injected(pod(containers="app"))
    copied["metadata"]["annotations"][f"{GROUP}/containers"] = "worker"
    assert "remove it" in denial(copied)


@pytest.mark.parametrize("part", ["initContainers", "containers", "volumes"])
def test_our_names_without_a_status_are_denied(part: str) -> None:
    obj = pod()
    obj["spec"].setdefault(part, []).append({"name": "litestream-hook-x", "image": "x"})
    assert "rename it" in denial(obj)


def test_a_status_on_a_pod_that_declines_is_left_alone() -> None:
    obj = pod(status="{")
    obj["metadata"]["annotations"][f"{GROUP}/inject"] = "false"
    assert "patch" not in reviews.response(obj)


def test_a_second_call_changes_nothing_after_other_admission_touched_our_containers() -> None:
    once = reviews.injected(pod())
    token = {
        "name": "kube-api-access-x",
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        "readOnly": True,
    }
    for item in [*once["spec"]["initContainers"], *once["spec"]["containers"]]:
        item["volumeMounts"].append(dict(token))
        item["imagePullPolicy"] = "Always"
        item.setdefault("resources", {}).setdefault("limits", {})["cpu"] = "500m"
    once["spec"]["volumes"].append({"name": "kube-api-access-x", "projected": {"sources": []}})
    once["spec"]["containers"].insert(0, {"name": "mesh", "image": "mesh:1"})
    once["spec"]["initContainers"].insert(0, {"name": "mesh-init", "image": "mesh:1"})
    assert reviews.injected(once) == once
    assert "patch" not in reviews.response(once)


def test_an_image_that_the_author_changed_reaches_our_containers_and_a_mirrors_image_stays() -> None:
    once = reviews.injected(pod())
    edited = copy.deepcopy(once)
    edited["metadata"]["annotations"][f"{GROUP}/image"] = "litestream/litestream:0.5.18"
    ours = [item["image"] for item in reviews.injected(edited)["spec"]["initContainers"]]
    assert ours == ["litestream/litestream:0.5.18"] * 3
    for item in once["spec"]["initContainers"]:
        item["image"] = "mirror.example.com/" + item["image"]
    assert reviews.injected(once) == once


def of_deployment() -> Object:
    """A Pod as a Deployment's ReplicaSet creates it, named already."""
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d9f", "uid": "1", "controller": True}
    labels = {"pod-template-hash": "7d9f"}
    metadata = {"name": "web-7d9f-x2k8s", "generateName": "web-7d9f-", "labels": labels, "ownerReferences": [owner]}
    return reviews.pod(None, metadata, path="/data/app.db")


@pytest.mark.parametrize("files", [None, "data"])
def test_a_pod_that_velero_restores_is_admitted_as_it_is(files: str | None) -> None:
    pod = velero.restored(reviews.injected(of_deployment()), files)
    assert "ownerReferences" not in pod["metadata"]
    assert reviews.injected(pod) == pod


def test_a_pod_that_was_injected_for_another_namespace_is_denied() -> None:
    """Its databases are written where it says: restored by `--namespace-mappings`, it would write the first one's."""
    pod = velero.restored(reviews.injected(of_deployment(), namespace="shop"))
    reply = reviews.response(pod, namespace="staging")
    assert "was written for other databases or another workload" in reply["status"]["message"]
