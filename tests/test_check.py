"""What of a Pod stands in the way, or makes it risky, and how that is said."""

from typing import Any

import pytest

from injector import GROUP
from injector.pod.plan import LONGEST_GRACE_SECONDS
from tests import reviews
from tests.test_target import fields, pod

Object = dict[str, Any]


@pytest.mark.parametrize(
    "own",
    [
        {"image": "litestream/litestream:0.3.13", "args": ["replicate"]},
        {"image": "docker.io/litestream/litestream@sha256:" + "0" * 64, "args": ["replicate", "-config", "/x"]},
        {"image": "example.com/tools:1", "command": ["litestream", "replicate"]},
        {"image": "example.com/app:1", "command": ["/usr/local/bin/litestream"], "args": ["replicate", "-exec", "app"]},
        {"image": "example.com/app:1", "command": ["sh", "-c", "exec litestream replicate -exec /app"]},
        {"image": "ghcr.io/benbjohnson/litestream:0.5", "args": ["replicate"]},
        {"image": "registry.example.com:5000/mirror/litestream", "command": ["/bin/sh", "/scripts/run.sh"]},
        {"image": "litestream/litestream"},
        {"image": "app:1", "command": ["sh", "-c", "litestream restore -o /d/a /d/a && litestream replicate;"]},
        {"image": "app:1", "command": ["sh", "-c"], "args": ['set -e\n"/opt/litestream" "replicate" /d/a s3://b/a']},
        {"image": "app:1", "command": ["tini", "--", "/usr/bin/litestream-v0.3.13", "replicate", "-config", "/l.yml"]},
        {"image": "app:1", "command": ["bash", "-c", "(${LITESTREAM_BIN} replicate --exec='app')"]},
        {"image": "app:1", "command": ["bash", "-c", "litestream \\\n    replicate -config /litestream.yml"]},
        {"image": "litestream/litestream", "args": ["replicate", "-config", "/etc/litestream.yml", "-exec", "/app"]},
    ],
    ids=range(14),
)
def test_another_litestream_in_the_pod_is_denied(own: Object) -> None:
    obj = pod({"runAsUser": 1000}, {"runAsUser": 1000})
    obj["spec"]["containers"][1] |= own
    assert "container c1 runs a Litestream of its own" in reviews.denied(obj)["single-writer"]
    annotations = obj["metadata"]["annotations"]
    annotations[f"{GROUP}/single-writer"] = "warn"
    assert "container c1 runs a Litestream of its own" in reviews.warned(obj)
    annotations[f"{GROUP}/single-writer"] = "off"
    assert "Litestream of its own" not in reviews.warned(obj)


@pytest.mark.parametrize(
    "own",
    [
        {"image": "litestream/litestream:0.5.17", "args": ["restore", "/data/app.db"]},
        {"image": "litestream/litestream:0.5.17", "command": ["sh", "-c", "litestream restore /data/app.db"]},
        {"image": "example.com/app:1", "args": ["-backup", "/etc/litestream.yml", "replicate"]},
        {"image": "example.com/litestream-exporter:1", "args": ["replicate"]},
        {"image": "example.com/app:1", "args": ["replicate"]},
    ],
    ids=range(5),
)
def test_what_does_not_replicate_is_no_second_litestream(own: Object) -> None:
    obj = pod({"runAsUser": 1000}, {"runAsUser": 1000})
    obj["spec"]["containers"][1] |= own
    assert reviews.response(obj)["allowed"]


@pytest.mark.parametrize("own", [{"args": ["replicate", "-once"]}, {"restartPolicy": "Always"}])
def test_an_init_container_that_replicates_is_another_litestream_too(own: Object) -> None:
    obj = pod({"runAsUser": 1000})
    item = {"name": "backup", "image": "litestream/litestream", "command": ["sh", "/run.sh"], **own}
    obj["spec"]["initContainers"] = [item if "args" not in own else {"name": "backup", "image": item["image"], **own}]
    assert "take that container out" in reviews.denied(obj)["single-writer"]
    obj["spec"]["initContainers"] = [{**item, "restartPolicy": None}]  # it may as well restore
    assert reviews.response(obj)["allowed"]


def test_a_litestream_around_the_application_is_told_to_leave_the_application_there() -> None:
    obj = pod({"runAsUser": 1000})
    obj["spec"]["containers"][0]["command"] = ["litestream", "replicate", "-exec", "/app"]
    assert "start its application without" in reviews.denied(obj)["single-writer"]


@pytest.mark.parametrize(
    "own",
    [
        {"env": [{"name": "LITESTREAM_ACCESS_KEY_ID", "value": "key"}]},
        {"volumeMounts": [{"name": "config", "mountPath": "/etc/litestream.yml", "subPath": "litestream.yml"}]},
    ],
    ids=range(2),
)
def test_what_looks_like_a_litestream_inside_of_an_image_is_warned_of(own: Object) -> None:
    obj = pod({"runAsUser": 1000})
    obj["spec"]["containers"][0] |= own
    obj["spec"]["volumes"] = [{"name": "config", "configMap": {"name": "litestream"}}]
    assert "if it runs a Litestream of its own" in reviews.warned(obj)
    obj["metadata"]["annotations"][f"{GROUP}/single-writer"] = "off"
    assert reviews.warned(obj) == ""


def only_on(*expressions: Object | None) -> Object:
    """An affinity with a term for each expression; None: one that says nothing of the operating system."""
    terms = [{"matchExpressions": [each]} if each else {"matchExpressions": None} for each in expressions]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


@pytest.mark.parametrize(
    "spec",
    [
        {"os": {"name": "windows"}},
        {"nodeSelector": {"kubernetes.io/os": "windows"}},
        {"nodeSelector": {"beta.kubernetes.io/os": "windows"}},
        {"securityContext": {"runAsUser": 1, "windowsOptions": {"hostProcess": True}}},
        {"securityContext": {"runAsUser": 1, "windowsOptions": {"runAsUserName": "ContainerUser"}}},
        {"affinity": only_on({"key": "kubernetes.io/os", "operator": "In", "values": ["windows"]})},
    ],
    ids=range(6),
)
def test_a_windows_pod_is_denied_however_it_says_so(spec: Object) -> None:
    obj = pod({"runAsUser": 1000})
    obj["spec"] |= spec
    assert "inject" in reviews.denied(obj)


@pytest.mark.parametrize(
    "spec",
    [
        {"os": {"name": "linux"}, "nodeSelector": {"kubernetes.io/os": "linux"}},
        {"securityContext": {"runAsUser": 1, "windowsOptions": {}}},
        {"affinity": only_on({"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]})},
        {"affinity": only_on({"key": "kubernetes.io/os", "operator": "NotIn", "values": ["windows"]})},
        {"affinity": only_on({"key": "zone", "operator": "In", "values": ["a"]}, None)},
        {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": None}}},
    ],
    ids=range(6),
)
def test_a_pod_that_may_run_on_linux_is_fine(spec: Object) -> None:
    obj = pod({"runAsUser": 1000})
    obj["spec"] |= spec
    assert fields(obj) == []


def test_a_moment_for_a_database_on_a_lasting_volume_is_warned_of() -> None:
    obj = pod({"runAsUser": 1000}, path="/data/app.db", restore_from="old/{database}")
    obj["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    obj["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    assert "is on its volume already, the Pod waits" in reviews.warned(obj)
    obj["metadata"]["annotations"][f"{GROUP}/local-database"] = "replace"
    assert "the Pod waits" not in reviews.warned(obj)


@pytest.mark.parametrize("seconds", [-1, 2**30 + 1, 3_000_000_000])
def test_a_grace_period_that_a_second_call_would_not_believe_is_denied_at_the_first(seconds: int) -> None:
    obj = reviews.pod({"terminationGracePeriodSeconds": seconds})
    assert "write seconds from 0" in reviews.denied(obj)["spec.terminationGracePeriodSeconds"]


def test_a_second_call_names_the_application_s_grace_period_and_not_the_longer_one_of_the_first() -> None:
    once = reviews.injected(pod({"runAsUser": 1000}, sidecar="container"))
    assert once["spec"]["terminationGracePeriodSeconds"] > 30
    assert "Litestream stops 30 s (the application's grace period)" in reviews.warned(once)


def test_the_longest_grace_period_is_injected_and_injected_again() -> None:
    once = reviews.injected(reviews.pod({"terminationGracePeriodSeconds": LONGEST_GRACE_SECONDS}))
    assert reviews.injected(once) == once
