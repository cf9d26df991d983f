"""Laws of injection, over generated Pods."""

import copy
import itertools
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from injector import GROUP, options
from injector.errors import InvalidPod
from injector.pod import replica, scripts
from injector.pod.claim import Claim, carried, laid
from injector.pod.inject import inject
from injector.pod.volumes import DISPENSABLE, PREFIX
from injector.stores import STORES
from tests import pods, reviews, schemas

OPTIONS = options.read({})
Object = dict[str, Any]
examples = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def injected(pod: Object) -> Object | None:
    try:
        return inject(pod, replica.of_pod(pod, "default"), OPTIONS).pod
    except InvalidPod:
        return None


def lists(pod: Object) -> list[Object]:
    return [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]


def without_ours(pod: Object) -> Object:
    """The Pod less what the webhook may add: our containers, volumes, their mounts and names, marks, a longer grace."""
    bare = copy.deepcopy(pod)
    annotations = bare["metadata"]["annotations"]
    annotations.pop(f"{GROUP}/status", None)
    for key in annotations.keys() & DISPENSABLE:
        others = [name for name in annotations.pop(key).split(",") if not name.startswith(PREFIX)]
        annotations |= {key: ",".join(others)} if others else {}
    (bare["metadata"].get("labels") or {}).pop(f"{GROUP}/replicates", None)
    bare["metadata"] = {key: value for key, value in bare["metadata"].items() if value != {}}
    spec = bare["spec"]
    spec.pop("terminationGracePeriodSeconds", None)
    for key in ("initContainers", "containers", "volumes"):
        spec[key] = [item for item in spec.get(key) or [] if not item["name"].startswith(PREFIX)]
    for item in lists(bare):
        item["volumeMounts"] = [
            mount for mount in item.get("volumeMounts") or [] if not mount["name"].startswith(PREFIX)
        ]
    return bare


@given(pods.pods())
@examples
def test_injecting_twice_equals_once(pod: Object) -> None:
    once = injected(pod)
    if once is not None:
        assert injected(once) == once
        assert injected(json.loads(json.dumps(once))) == once


@pytest.mark.slow
@given(pods.pods())
@examples
def test_injecting_again_keeps_a_claim(pod: Object) -> None:
    once = injected(pod)
    if once is not None:
        claim = Claim(once["metadata"].get("name") or "web-x2z4b", "a mark", ("replica-a", "replica-b"))
        claimed = laid(once, claim)
        assert carried(claimed) == claim
        assert injected(claimed) == claimed
        assert laid(claimed, claim) == claimed


@given(pods.pods())
@examples
def test_the_patch_gives_exactly_the_injected_pod(pod: Object) -> None:
    before = copy.deepcopy(pod)
    expected = injected(pod)
    assert pod == before, "the input was changed"
    reply = reviews.response(pod)
    assert reply["allowed"] == (expected is not None)
    if expected is not None:
        assert reviews.injected(pod) == expected


@given(pods.pods())
@examples
def test_what_is_not_ours_is_unchanged(pod: Object) -> None:
    after = injected(pod)
    if after is None:
        return
    assert without_ours(after) == without_ours(pod)
    untouched = {key: pod["spec"][key] for key in pod["spec"] if key not in ("containers", "initContainers", "volumes")}
    for key, value in untouched.items():
        if key != "terminationGracePeriodSeconds":
            assert after["spec"][key] is value
    grace = pod["spec"].get("terminationGracePeriodSeconds", 30)
    assert after["spec"]["terminationGracePeriodSeconds"] >= grace + 30


@given(pods.pods())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_every_injected_pod_is_valid(pod: Object) -> None:
    after = injected(pod)
    if after is not None:
        for release in (schemas.RELEASES[0], schemas.RELEASES[-1]):
            assert list(schemas.problems(after, release)) == []
    names = [item["name"] for item in lists(after or pod)]
    assert len(names) == len(set(names))
    for item in lists(after or pod):
        paths = [mount["mountPath"] for mount in item.get("volumeMounts") or []]
        assert len(paths) == len(set(paths))


@pytest.mark.slow
@given(pods.pods())
@examples
def test_what_is_injected_has_no_rights_and_shows_no_credentials(pod: Object) -> None:
    """Whatever the application may do, as root too."""
    after = injected(pod)
    if after is None:
        return
    there = {item["name"] for item in lists(pod)}
    (config,) = (volume for volume in after["spec"]["volumes"] if volume["name"] == "litestream-hook-config")
    assert config["emptyDir"]["medium"] == "Memory"
    for item in lists(after):
        mounts = {mount["name"] for mount in item.get("volumeMounts") or []}
        if item["name"] in there:
            assert "litestream-hook-config" not in mounts
            continue
        context = item["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert "privileged" not in context
        for entry in item["env"]:
            if entry["name"] in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
                assert entry.keys() == {"name", "valueFrom"}
                assert entry["valueFrom"].keys() == {"secretKeyRef"}


@pytest.mark.slow
@given(pods.pods(pods.hostile_annotations()))
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_no_text_of_an_annotation_reaches_a_shell_or_an_expansion(pod: Object) -> None:
    after = injected(pod)
    if after is None:
        return
    for item in lists(after):
        if not item["name"].startswith(PREFIX):
            continue
        command = item.get("command") or []
        hooks = [hook.get("exec", {}).get("command", []) for hook in item.get("lifecycle", {}).values()]
        probes = [item.get(key, {}).get("exec", {}).get("command", []) for key in ("readinessProbe", "livenessProbe")]
        for word in itertools.chain(command, *hooks, *probes):
            assert pods.MARK.lower() not in word.lower()
        if "-c" in command:
            assert "args" not in item
        identities = {name for store in STORES.values() for name in store.identity or ()}
        constant = {"LITESTREAM_SIDECAR_SCRIPT": scripts.SIDECAR}
        values = {entry["name"]: entry.get("value", "") for entry in item["env"]}
        ours = [value for name, value in values.items() if name not in identities and constant.get(name) != value]
        for word in [*(item.get("args") or []), *ours]:
            assert "$" not in word


@pytest.mark.slow
@given(pods.pods(), st.data())
@examples
def test_a_second_call_after_others_have_been_there_changes_only_what_is_ours(pod: Object, data: st.DataObject) -> None:
    """Between two calls: a token mount, limits and a pull policy in our containers, a sidecar, a volume, defaults."""
    first = injected(pod)
    if first is None:
        return
    second = json.loads(json.dumps(first))
    spec = second["spec"]
    for item in lists(second):
        item["imagePullPolicy"] = "Always"
        item.setdefault("volumeMounts", []).append(
            {
                "name": "kube-api-access-1",
                "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                "readOnly": True,
            }
        )
        item.setdefault("resources", {}).setdefault("limits", {}).setdefault("cpu", "100m")
    spec["volumes"].insert(0, {"name": "kube-api-access-1", "projected": {"sources": []}})
    sidecar = {"name": "zz-agent", "image": "example.com/agent:1"}
    where = data.draw(st.sampled_from(["containers", "front", "back"]))
    if where == "containers":
        spec["containers"].insert(0, sidecar)
    elif where == "front":
        spec["initContainers"].insert(0, sidecar)
    else:
        spec["initContainers"].append(sidecar)
    if data.draw(st.booleans()):
        spec["volumes"].reverse()
        spec["containers"].reverse()
    again = injected(second)
    assert again == second


@pytest.mark.slow
@given(pods.pods())
@examples
def test_restores_come_before_every_writer_and_the_sidecar_before_the_applications_containers(pod: Object) -> None:
    after = injected(pod)
    if after is None or pod["metadata"]["annotations"].get(f"{GROUP}/init-first") == "false":
        return
    names = [item["name"] for item in after["spec"]["initContainers"]]
    ours = [name for name in names if name.startswith(PREFIX)]
    assert ours[0] == "litestream-hook-init"
    if pod["metadata"]["annotations"].get(f"{GROUP}/sidecar") != "container":
        assert ours[-1] == "litestream-hook-replicate"
    status = json.loads(after["metadata"]["annotations"][f"{GROUP}/status"])
    for target in status["containers"]:
        if target in names:
            assert names.index(target) > names.index(ours[-1])


@pytest.mark.parametrize("seconds", [None, 0, 1, 30, 600])
def test_the_grace_period_is_raised_once_and_never_lowered(seconds: int | None) -> None:
    asked = {f"{GROUP}/inject": "true", f"{GROUP}/path": "/data/a.db,/data/b.db"}
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "annotations": asked},
        "spec": {"securityContext": {"runAsUser": 1000}, "containers": [{"name": "app", "image": "a:1"}]},
    }
    if seconds is not None:
        pod["spec"]["terminationGracePeriodSeconds"] = seconds
    own = 30 if seconds is None else seconds
    once = reviews.injected(pod)
    assert once["spec"]["terminationGracePeriodSeconds"] == own + 2 * 30 + 5
    once["spec"]["terminationGracePeriodSeconds"] = 10_000
    assert reviews.injected(once) == once
    once["spec"]["terminationGracePeriodSeconds"] = 1
    assert reviews.injected(once)["spec"]["terminationGracePeriodSeconds"] == own + 2 * 30 + 5
