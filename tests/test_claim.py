"""What a Pod carries of its claim."""

import json
from copy import deepcopy

import pytest

from injector import GROUP, options
from injector.pod import replica
from injector.pod.claim import LEASES, MARK, Claim, carried, laid, slimmed, workload
from injector.pod.inject import inject
from injector.pod.patch import diff
from tests import standin
from tests.pods import Object

OPTIONS = options.read({})
CLAIM = Claim("web-1", "a mark", ("one", "two"))


def pod(**annotations: str) -> Object:
    own = {"inject": "true", "path": "/data/app.db", "replica-path": "a/{database}", "run-as-user": "1000"}
    return {
        "metadata": {
            "generateName": "web-5d4f-",
            "annotations": {f"{GROUP}/{key}": value for key, value in (own | annotations).items()},
        },
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    }


def injected(found: Object) -> Object:
    return inject(found, replica.of_pod(found, "apps"), OPTIONS).pod


@pytest.mark.parametrize("sidecar", ["native", "container"])
def test_a_claim_is_what_the_pod_carries(sidecar: str) -> None:
    before = injected(pod(sidecar=sidecar))
    assert carried(before) == Claim()
    after = laid(before, CLAIM)
    assert carried(after) == CLAIM
    paths = [operation["path"] for operation in diff(before, after)]
    assert paths[0] == "/metadata/name"
    assert all("/env/" in path for path in paths[1:])
    assert len(paths) == 3


def test_no_leases_no_change() -> None:
    before = injected(pod())
    assert laid(before, Claim("web-1", "m")) is before


@pytest.mark.parametrize("sidecar", ["native", "container"])
def test_a_second_injection_keeps_the_claim(sidecar: str) -> None:
    after = laid(injected(pod(sidecar=sidecar)), CLAIM)
    assert injected(deepcopy(after)) == after


def test_a_second_claim_replaces_the_first() -> None:
    newer = CLAIM._replace(mark="another mark")
    first = laid(injected(pod()), CLAIM)
    second = laid(first, newer)
    assert carried(second) == newer
    assert laid(second, newer) == second
    assert [each["path"].rpartition("/")[2] for each in diff(first, second)] == ["value"]


def test_what_is_not_ours_stays_the_very_same_object() -> None:
    before = injected(pod())
    after = laid(before, CLAIM)
    assert after["spec"]["containers"][0] is before["spec"]["containers"][0]
    assert after["spec"]["volumes"] is before["spec"]["volumes"]


def test_a_container_of_another_name_proves_nothing() -> None:
    environment = [{"name": LEASES, "value": "one"}, {"name": MARK, "value": "m"}]
    found = {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "app", "env": environment}]}}
    assert carried(found) == Claim("x")


def owned(kind: str, owner_name: str, api: str, **metadata: object) -> Object:
    owner = {"apiVersion": api, "kind": kind, "name": owner_name, "controller": True}
    return {"metadata": {"ownerReferences": [owner], **metadata}, "spec": {}}


@pytest.mark.parametrize(
    ("found", "whose"),
    [
        (owned("ReplicaSet", "web-5d4f", "apps/v1", labels={"pod-template-hash": "5d4f"}), "deployment/web"),
        (owned("ReplicaSet", "web-77", "apps/v1", labels={"pod-template-hash": "77"}), "deployment/web"),
        (owned("ReplicaSet", "bare", "apps/v1"), "replicaset/bare"),
        (owned("StatefulSet", "db", "apps/v1", name="db-0"), "statefulset/db-0"),
        (owned("Job", "nightly", "batch/v1"), "job/nightly"),
        (owned("Runner", "ci", "example.com/v1"), "runner/ci"),
        ({"metadata": {"name": "vic"}, "spec": {}}, "pod/vic"),
        ({"metadata": {"generateName": "vic-"}, "spec": {}}, "pod/vic"),
        ({"metadata": {"generateName": "vic-", "name": "vic-x2z4b"}, "spec": {}}, "pod/vic"),
    ],
)
def test_a_workload_is_the_same_for_all_revisions_and_calls(found: Object, whose: str) -> None:
    assert workload(found, replica.of_pod(found, "apps")) == whose


def test_a_stored_pod_is_read_like_an_injected_one() -> None:
    assert carried(standin.pod("web-1", claim=CLAIM)) == CLAIM


def test_of_a_large_pod_its_claim_is_kept_and_little_else() -> None:
    pod = standin.pod("web-1", claim=CLAIM)
    pod["metadata"] |= {
        "annotations": {"a": "x" * 250_000},
        "deletionTimestamp": "2026-01-01T12:00:00Z",
        "deletionGracePeriodSeconds": 30,
    }
    pod["spec"]["containers"].append({"name": "app", "env": [{"name": f"E{number}"} for number in range(50_000)]})
    slim = slimmed(pod)
    assert carried(slim) == carried(pod) == CLAIM
    assert slim["metadata"]["namespace"] == pod["metadata"]["namespace"]
    assert slim["metadata"]["deletionGracePeriodSeconds"] == 30
    assert slim["status"]["phase"] == pod["status"]["phase"]
    assert len(json.dumps(slim)) < 2_000
