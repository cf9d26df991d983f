"""Pods as the API server has them: which are injected, which should be, and why one does not run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from injector import GROUP
from injector.command import pods
from injector.command.pods import Missing
from injector.errors import InvalidOptions
from injector.pod.containers import REPLICATE
from tests import reviews

Object = dict[str, Any]
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
INIT = "litestream-hook-init"


def pod(name: str = "web", owner: tuple[str, str] | None = None, **more: Any) -> Object:
    """A Pod in the namespace `shop` that is injected, with a status; `owner` is kind and name of its controller."""
    found = reviews.injected(reviews.pod())
    return placed(found, name, owner, **more)


def placed(found: Object, name: str, owner: tuple[str, str] | None = None, **status: Any) -> Object:
    metadata = {**found["metadata"], "name": name, "namespace": "shop", "creationTimestamp": "2026-11-29T11:00:00Z"}
    if owner is not None:
        group = "batch/v1" if owner[0] == "Job" else "apps/v1"
        metadata["ownerReferences"] = [{"apiVersion": group, "kind": owner[0], "name": owner[1], "controller": True}]
        if owner[0] == "ReplicaSet":
            metadata["labels"] = {"pod-template-hash": owner[1].rpartition("-")[2]}
    return {**found, "metadata": metadata, "status": {"phase": "Running", **status}}


def names(found: list[Object]) -> list[str]:
    return [each["metadata"]["name"] for each in found]


@pytest.mark.parametrize(
    ("workload", "expected"),
    [
        ("", ["web-6f-x", "db-0", "db-1", "alone", "nightly-29000000-x"]),
        ("web", ["web-6f-x"]),
        ("deployment/web", ["web-6f-x"]),
        ("deployments.apps/web", ["web-6f-x"]),
        ("deploy/web", ["web-6f-x"]),
        ("replicaset/web-6f", ["web-6f-x"]),
        ("sts/db", ["db-0", "db-1"]),
        ("StatefulSet/db", ["db-0", "db-1"]),
        ("db-1", ["db-1"]),
        ("pod/db-1", ["db-1"]),
        ("po/alone", ["alone"]),
        ("deployment/db", []),
        ("cronjob/nightly", ["nightly-29000000-x"]),
        ("cj/nightly", ["nightly-29000000-x"]),
        ("job/nightly-29000000", ["nightly-29000000-x"]),
        ("nightly", ["nightly-29000000-x"]),
        ("nothing", []),
    ],
)
def test_a_workload_is_named_as_people_name_it(workload: str, expected: list[str]) -> None:
    found = [
        pod("web-6f-x", ("ReplicaSet", "web-6f")),
        pod("db-0", ("StatefulSet", "db")),
        pod("db-1", ("StatefulSet", "db")),
        pod("alone"),
        pod("nightly-29000000-x", ("Job", "nightly-29000000")),
    ]
    assert names(pods.chosen(found, workload)) == expected


def test_what_is_no_workload_is_told() -> None:
    with pytest.raises(InvalidOptions, match='WORKLOAD: "service/web": write NAME or KIND/NAME'):
        pods.wanted("service/web")
    with pytest.raises(InvalidOptions, match='WORKLOAD: "sts/": write NAME or KIND/NAME'):
        pods.wanted("sts/")


@pytest.mark.parametrize(
    ("owner", "workload"),
    [
        (("ReplicaSet", "web-6f"), "deployment/web"),
        (("StatefulSet", "db"), "statefulset/db"),
        (("Job", "load"), "job/load"),
        (None, "pod/web"),
    ],
)
def test_a_pod_says_whose_it_is(owner: tuple[str, str] | None, workload: str) -> None:
    assert pods.injected(pod("web", owner), "", NOW).workload == workload


def test_what_is_injected_is_read_of_the_pod_itself() -> None:
    found = pods.injected(pod(containerStatuses=[running()]), "", NOW)
    assert found.marks.databases == {"/mnt/litestream.db": "default/pod/web/mnt/litestream.db"}
    assert (found.image, found.way, found.running) == ("docker.io/litestream/litestream:0.5.17", "shell", True)
    assert found.since == datetime(2026, 11, 29, 11, tzinfo=UTC)
    assert (found.hindrances, found.troubles) == ([], [])


def running(**more: Any) -> Object:
    return {"name": REPLICATE, "state": {"running": {"startedAt": "2026-11-29T11:00:00Z"}}, **more}


def test_a_status_of_another_release_is_read_and_one_that_is_none_is_told() -> None:
    newer = pod()
    newer["metadata"]["annotations"][f"{GROUP}/status"] = '{"databases": {"/a": "b"}, "bucket": "c", "more": 1}'
    assert pods.injected(newer, "", NOW).marks.databases == {"/a": "b"}
    newer["metadata"]["annotations"][f"{GROUP}/status"] = "[]"
    assert "no status annotation" in pods.injected(newer, "", NOW).hindrances[0]


def test_who_asks_in_vain_is_told_why() -> None:
    asking = placed(reviews.pod(), "web")
    found = pods.missing(asking, "")
    assert found is not None
    assert found[:3] == ("shop", "Pod", "web")
    assert "asks for injection and has no Litestream" in found.why
    gated = {**asking, "spec": {**asking["spec"], "schedulingGates": [{"name": f"{GROUP}/injected"}]}}
    waiting = pods.missing(gated, "")
    assert waiting is not None
    assert "waits at the scheduling gate" in waiting.why


def test_who_is_injected_declines_or_never_asked_is_not_missing() -> None:
    for each in (pod(), placed(reviews.pod(inject="false"), "web"), placed({"metadata": {}, "spec": {}}, "web")):
        assert pods.missing(each, "") is None
    assert pods.missing(placed(reviews.pod(), "web"), "skaffold") is None


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"name": INIT, "state": {"waiting": {"reason": "PodInitializing"}}}, []),
        ({"name": INIT, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}, []),
        (
            {"name": "app", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}},
            ["app does not start: ImagePullBackOff: no such image"],
        ),
        (
            {
                "name": INIT,
                "restartCount": 4,
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
                "lastState": {
                    "terminated": {
                        "exitCode": 1,
                        "reason": "Error",
                        "message": "x\nlitestream-hook: the database is old\n",
                    }
                },
            },
            [f"{INIT} ended with exit code 1 after 4 restarts: the database is old"],
        ),
        (
            {"name": "app", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}},
            ["app ended with exit code 137 (OOMKilled)"],
        ),
    ],
)
def test_what_holds_a_pod_up_is_told_in_its_own_words(state: Object, expected: list[str]) -> None:
    assert pods.injected(pod(initContainerStatuses=[state]), "", NOW).hindrances == expected


def test_a_pod_without_a_node_says_why() -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
    found = pods.injected(pod(conditions=[condition]), "", NOW)
    assert found.hindrances == ["is not scheduled: 0/3 nodes are available"]


@pytest.mark.parametrize(("finished", "told"), [("2026-11-29T11:30:00Z", True), ("2026-11-29T09:00:00Z", False)])
def test_a_sidecar_that_died_lately_is_told(finished: str, told: bool) -> None:
    last = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": finished}}
    found = pods.injected(pod(containerStatuses=[running(lastState=last)]), "", NOW)
    assert bool(found.troubles) is told
    assert not told or "exit code 137 (OOMKilled)" in found.troubles[0]


def event(kind: str, name: str, when: str = "2026-11-29T11:30:00Z", why: str = "it is wrong", **more: Any) -> Object:
    message = f'admission webhook "pods.{GROUP}" denied the request: {why}'
    about = {"kind": kind, "name": name, "namespace": "shop"}
    return {"reason": "FailedCreate", "message": message, "involvedObject": about, "lastTimestamp": when, **more}


def test_whose_pods_the_webhook_refuses_is_told_with_its_newest_words() -> None:
    events = [
        event("ReplicaSet", "web-6f", why="newer"),
        event("ReplicaSet", "web-6f", "2026-11-29T11:00:00Z", "older"),
        event("StatefulSet", "db", message="quota exceeded"),
        event("StatefulSet", "db", reason="Unhealthy"),
    ]
    assert pods.refused(events, [], "", "") == [Missing("shop", "ReplicaSet", "web-6f", "its Pods are refused: newer")]


@pytest.mark.parametrize(
    ("workload", "told"),
    [("web", True), ("deploy/web", True), ("rs/web-6f", True), ("db", False), ("sts/web", False), ("pod/web", False)],
)
def test_of_one_workload_only_its_own_refusals_are_told(workload: str, told: bool) -> None:
    assert bool(pods.refused([event("ReplicaSet", "web-6f")], [], workload, "")) is told


@pytest.mark.parametrize(
    ("owner", "when", "told"),
    [
        (("ReplicaSet", "web-99"), "2026-11-29T10:00:00Z", False),
        (("ReplicaSet", "web-99"), "2026-11-29T11:30:00Z", True),
        (("ReplicaSet", "api-99"), "2026-11-29T10:00:00Z", True),
    ],
)
def test_a_refusal_is_over_once_a_pod_of_the_workload_was_made(owner: tuple[str, str], when: str, told: bool) -> None:
    """The Pod is from 11:00."""
    assert bool(pods.refused([event("ReplicaSet", "web-6f", when)], [pod("x", owner)], "", "")) is told


def test_an_event_of_the_newer_api_has_its_time_elsewhere() -> None:
    newer = event("StatefulSet", "db", series={"lastObservedTime": "2026-11-29T10:00:00.000000Z"}, lastTimestamp=None)
    made = [pod("db-0", ("StatefulSet", "db"))]
    assert pods.refused([newer], made, "", "") == []
    assert pods.refused([{**newer, "series": None, "eventTime": "2026-11-29T11:59:00Z"}], made, "", "")


def warning(reason: str, when: str, message: str = "why", uid: str = "1") -> Object:
    return {"reason": reason, "message": message, "lastTimestamp": when, "involvedObject": {"uid": uid}}


def test_what_the_kubelet_has_warned_of_lately_is_told_newest_first_and_once() -> None:
    living = pod()
    living["metadata"]["uid"] = "1"
    events = [
        warning("FailedMount", "2026-11-29T11:20:00Z", "no such Secret"),
        warning("Unhealthy", "2026-11-29T11:50:00Z", "Readiness probe failed: \nlitestream-hook: it is locked\n"),
        warning("FailedMount", "2026-11-29T11:30:00Z", "no such Secret"),
        warning("BackOff", "2026-11-29T11:50:00Z"),
        warning("Unhealthy", "2026-11-29T10:50:00Z", "of long ago"),
        warning("Unhealthy", "2026-11-29T11:50:00Z", "of another Pod", "2"),
    ]
    told = ["Unhealthy: it is locked", "FailedMount: no such Secret"]
    assert pods.injected(living, "", NOW, events).events == told


def test_a_pod_that_has_finished_is_not_looked_at() -> None:
    assert [pods.lives(pod(phase=phase)) for phase in ("Succeeded", "Failed", "Pending", "Running")] == [
        False,
        False,
        True,
        True,
    ]
