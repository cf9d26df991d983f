"""On a second call what others set in our containers stays, and what we set follows the annotations."""

import copy
from typing import Any

import pytest

from injector import GROUP
from tests import reviews

Object = dict[str, Any]


def sidecar_of(obj: Object) -> Object:
    (found,) = (item for item in obj["spec"]["initContainers"] if item["name"] == "litestream-hook-replicate")
    result: Object = found
    return result


@pytest.mark.parametrize("image", ["litestream/litestream:0.5.17", "litestream/litestream:0.5.17-scratch"])
def test_a_command_that_somebody_wrapped_stays_at_the_second_call(image: str) -> None:
    """bank-vaults puts its own command in front of ours, which become its arguments."""
    once = reviews.injected(reviews.pod(image=image))
    sidecar = sidecar_of(once)
    sidecar["args"] = [*sidecar.pop("command", []), *sidecar.get("args", [])]
    sidecar["command"] = ["/vault/vault-env"]
    assert reviews.injected(once) == once


def test_resources_that_somebody_set_stay_at_the_second_call() -> None:
    once = reviews.injected(reviews.pod())
    sidecar_of(once)["resources"] = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "2Gi"}}
    assert reviews.injected(once) == once


def test_a_script_of_another_release_is_replaced() -> None:
    once = reviews.injected(reviews.pod())
    expected = once["spec"]["initContainers"][0]["command"][-1]
    once["spec"]["initContainers"][0]["command"][-1] = "old"
    assert reviews.injected(once)["spec"]["initContainers"][0]["command"][-1] == expected


def asking(obj: Object, **annotations: str | None) -> Object:
    """An injected Pod whose author has changed annotations; None: taken out."""
    edited = copy.deepcopy(obj)
    for key, value in annotations.items():
        full = f"{GROUP}/{key.replace('_', '-')}"
        edited["metadata"]["annotations"].pop(full, None)
        edited["metadata"]["annotations"] |= {} if value is None else {full: value}
    return edited


CHANGES = [
    ({}, {"memory_limit": "512Mi"}),
    ({"memory_limit": "512Mi"}, {"memory_limit": "1Gi"}),
    ({"memory_limit": "512Mi", "memory_request": "512Mi"}, {"memory_limit": None, "memory_request": None}),
    ({"cpu_limit": "1"}, {"cpu_limit": None}),
    ({}, {"cpu_limit": "1", "cpu_request": "1"}),
    ({}, {"image": "docker.io/litestream/litestream:0.5.17-scratch"}),
    ({"image": "docker.io/litestream/litestream:0.5.17-scratch"}, {"image": None}),
    ({"image": "docker.io/litestream/litestream:0.3.13"}, {"init_image": "example.com/busybox:1"}),
    ({"image": "docker.io/litestream/litestream:0.3.13", "integrity_check": "none"}, {"restore": "required"}),
    ({"image": "docker.io/litestream/litestream:0.5.17-scratch"}, {"integrity_check": "full"}),
    ({"metrics_port": "9090"}, {"metrics_port": "9999"}),
    ({"metrics_port": "9090"}, {"metrics_port": None}),
]
FOLLOWS = ("image", "command", "args", "resources", "ports", "livenessProbe", "readinessProbe")


@pytest.mark.parametrize(("first", "then"), CHANGES, ids=str)
def test_what_we_set_follows_the_annotations(first: dict[str, str], then: dict[str, str | None]) -> None:
    edited = reviews.injected(asking(reviews.injected(reviews.pod(**first)), **then))
    fresh = reviews.injected(asking(reviews.pod(**first), **then))
    for item, expected in zip(edited["spec"]["initContainers"], fresh["spec"]["initContainers"], strict=True):
        for key in FOLLOWS:
            assert (item.get(key) or None) == expected.get(key), key
        started = [found.get("lifecycle", {}).get("postStart") for found in (item, expected)]
        assert started[0] == started[1]
        assert all(entry in item["env"] for entry in expected["env"])
    assert reviews.injected(edited) == edited


def test_an_amount_is_ours_however_the_api_server_writes_it() -> None:
    once = reviews.injected(reviews.pod(cpu_limit="0.5", memory_limit="1024Mi"))
    sidecar_of(once)["resources"]["limits"] = {"cpu": "500m", "memory": "1Gi"}
    assert reviews.injected(once) == once
    again = reviews.injected(asking(once, cpu_limit="1", memory_limit=None))
    assert sidecar_of(again)["resources"]["limits"] == {"cpu": "1", "memory": "256Mi"}


def test_what_somebody_else_set_stays_when_the_annotations_change() -> None:
    """A LimitRange's limit, an autoscaler's request, a mirror's image, a secret store's command."""
    once = reviews.injected(reviews.pod())
    sidecar = sidecar_of(once)
    sidecar["image"] = "mirror.example.com/litestream:0.5.17"
    sidecar["resources"] = {"requests": {"cpu": "300m", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "256Mi"}}
    sidecar["command"], sidecar["args"] = ["/vault/vault-env"], sidecar["command"]
    edited = sidecar_of(
        reviews.injected(asking(once, memory_limit="512Mi", cpu_request="50m", image="example.com/litestream:0.5.17"))
    )
    assert edited["resources"] == {
        "requests": {"cpu": "300m", "memory": "64Mi"},
        "limits": {"cpu": "2", "memory": "512Mi"},
    }
    assert {key: edited[key] for key in ("image", "command", "args")} == {
        key: sidecar[key] for key in ("image", "command", "args")
    }


def test_without_a_record_of_what_was_set_everything_stays() -> None:
    once = reviews.injected(reviews.pod())
    key = f"{GROUP}/status"
    recorded = once["metadata"]["annotations"][key]
    before, _, _ = recorded.partition(',"resources"')
    once["metadata"]["annotations"][key] = before + "}"
    again = reviews.injected(asking(once, memory_limit="512Mi"))
    assert sidecar_of(again)["resources"] == sidecar_of(once)["resources"]
