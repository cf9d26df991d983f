"""The replica path: the same in every life of a workload, and nobody else's."""

from typing import Any

import pytest

from injector import GROUP, options
from injector.annotations import settings
from injector.annotations.findings import Findings
from injector.pod import replica
from injector.pod.replica import Identity

Object = dict[str, Any]
DATABASE = "/data/app.db"
UNKNOWN_OWNERS = [
    ("argoproj.io/v1alpha1", "Workflow"),
    ("apps.kruise.io/v1alpha1", "StatefulSet"),
    ("v1", "ReplicationController"),
    ("batch.volcano.sh/v1alpha1", "Job"),
    ("apps/v1", "Deployment"),
    ("extensions/v1beta1", "ReplicaSet"),
]


def owned(kind: str, owner: str, api_version: str = "apps/v1", **metadata: Any) -> Object:
    reference = {"apiVersion": api_version, "kind": kind, "name": owner, "uid": "1", "controller": True}
    return {"metadata": {"ownerReferences": [reference], **metadata}, "spec": {"containers": []}}


def restored(name: str, labels: dict[str, str]) -> Object:
    labels = {**labels, "velero.io/backup-name": "daily", "velero.io/restore-name": "daily-1"}
    return {"metadata": {"name": name, "labels": labels}}


def filled(identity: Identity, prefix: str = "", **own: str) -> tuple[dict[str, str], list[str]]:
    findings = Findings(GROUP)
    keys = {"inject": "true", "path": DATABASE, **{key.replace("_", "-"): text for key, text in own.items()}}
    asked = settings.read(keys, options.read({"REPLICA_PREFIX": prefix}), findings)
    found = replica.paths(asked, identity, findings)
    replica.sources(asked, identity, found, findings)
    return found, [str(violation) for violation in findings.violations]


def path(pod: Object, **own: str) -> str:
    found, wrong = filled(replica.of_pod(pod, "shop"), **own)
    assert wrong == []
    return found[DATABASE]


def refusal(pod: Object, **own: str) -> str:
    _, wrong = filled(replica.of_pod(pod, "shop"), **own)
    assert len(wrong) == 1
    return wrong[0]


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (owned("ReplicaSet", "web-7d9f", labels={"pod-template-hash": "7d9f"}), "deployment/web"),
        (owned("ReplicaSet", "web-7d9f", labels={"rollouts-pod-template-hash": "7d9f"}), "deployment/web"),
        (owned("ReplicaSet", "a-b-7d9f", labels={"pod-template-hash": "7d9f"}), "deployment/a-b"),
        (owned("ReplicaSet", "web-7d9f", labels={"pod-template-hash": "other"}), "replicaset/web-7d9f"),
        (owned("ReplicaSet", "web-7d9f", labels={"pod-template-hash": ""}), "replicaset/web-7d9f"),
        (owned("ReplicaSet", "web-7d9f", labels=None), "replicaset/web-7d9f"),
        (owned("ReplicaSet", "-7d9f", labels={"pod-template-hash": "7d9f"}), "replicaset/-7d9f"),
        (owned("ReplicaSet", "web"), "replicaset/web"),
        (owned("StatefulSet", "web", name="web-0"), "statefulset/web-0"),
        (owned("Job", "import", "batch/v1", generateName="import-"), "job/import"),
        (owned("DaemonSet", "agent", generateName="agent-"), "daemonset/agent"),
        ({"metadata": {"name": "solo"}, "spec": {}}, "pod/solo"),
        ({"metadata": {"name": "solo", "ownerReferences": None}, "spec": None}, "pod/solo"),
        ({"metadata": {"name": "solo", "ownerReferences": []}}, "pod/solo"),
        # An owner that is not the controller decides nothing.
        (
            {"metadata": {"name": "solo", "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "y"}]}},
            "pod/solo",
        ),
        ({"metadata": {"name": "solo", "generateName": "other-"}}, "pod/solo"),
        # As Velero makes Pods again: without an owner and generateName, but with labels that say whose they are.
        (restored("web-1", {"statefulset.kubernetes.io/pod-name": "web-1"}), "statefulset/web-1"),
        (restored("web-7d9f-x2k8s", {"pod-template-hash": "7d9f"}), "deployment/web"),
        (restored("web-x2k8s", {"pod-template-hash": "7d9f"}), "deployment/web"),
        (restored("web-x2k8s", {"rollouts-pod-template-hash": "7d9f"}), "deployment/web"),
        (restored("a-web-7d9f-x2k8s", {"pod-template-hash": "7d9f"}), "deployment/a-web"),
        # Not one that its controller would have named so.
        (restored("copy", {"statefulset.kubernetes.io/pod-name": "web-1"}), "pod/copy"),
        (restored("web-7d9f-copy", {"pod-template-hash": "7d9f"}), "pod/web-7d9f-copy"),
        (restored("x2k8s", {"pod-template-hash": "7d9f"}), "pod/x2k8s"),
        (restored("-7d9f-x2k8s", {"pod-template-hash": "7d9f"}), "pod/-7d9f-x2k8s"),
        (restored("web-x2k8s", {"pod-template-hash": ""}), "pod/web-x2k8s"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_path_is_the_workloads(pod: Object, expected: str) -> None:
    assert path(pod) == f"shop/{expected}/data/app.db"


def test_two_lives_of_a_deployment_share_a_path() -> None:
    first = owned("ReplicaSet", "web-aaa", labels={"pod-template-hash": "aaa"}, generateName="web-aaa-")
    second = owned(
        "ReplicaSet", "web-bbb", labels={"pod-template-hash": "bbb"}, name="web-bbb-x1", generateName="web-bbb-"
    )
    assert path(first) == path(second)


def test_a_pod_keeps_its_path_when_the_api_server_has_named_it() -> None:
    nameless = owned("ReplicaSet", "web-aaa", labels={"pod-template-hash": "aaa"}, generateName="web-aaa-")
    named = owned(
        "ReplicaSet", "web-aaa", labels={"pod-template-hash": "aaa"}, generateName="web-aaa-", name="web-aaa-x"
    )
    assert path(nameless) == path(named)


@pytest.mark.parametrize(
    "metadata",
    [{}, {"generateName": "web-"}, {"generateName": "web-", "name": "web-x2k8s"}, {"name": ""}, {"name": None}],
)
def test_a_pod_without_a_lasting_name_needs_a_path_of_its_own(metadata: Object) -> None:
    assert "write a path of your own, such as {namespace}/my-app/{database}" in refusal({"metadata": metadata})
    assert path({"metadata": metadata}, replica_path="{namespace}/mine/{database}") == "shop/mine/data/app.db"


@pytest.mark.parametrize(("api_version", "kind"), UNKNOWN_OWNERS)
def test_a_pod_of_an_unknown_controller_needs_a_path_of_its_own(api_version: str, kind: str) -> None:
    pod = owned(kind, "x", api_version, name="x-0")
    assert kind in refusal(pod)
    assert "can't be determined for this Pod" in refusal(pod, replica_path="{namespace}/{pod}/{database}")
    assert path(pod, replica_path="mine/{database}") == "mine/data/app.db"


@pytest.mark.parametrize(
    "pod",
    [
        owned("ReplicaSet", "web-1", labels={"pod-template-hash": "1"}, name="web-1-x"),
        owned("Job", "import", "batch/v1", name="import-x"),
        owned("DaemonSet", "agent", name="agent-x"),
    ],
    ids=lambda pod: pod["metadata"]["ownerReferences"][0]["kind"],
)
def test_a_name_that_changes_is_no_part_of_a_path(pod: Object) -> None:
    assert "{pod} can't be determined for this Pod" in refusal(pod, replica_path="{namespace}/{pod}/{database}")


def test_a_stateful_pods_name_is_part_of_a_path() -> None:
    assert path(owned("StatefulSet", "web", name="web-1"), replica_path="{pod}/{database}") == "web-1/data/app.db"


def test_a_stateful_pod_without_a_name_is_refused() -> None:
    assert "replica-path" in refusal(owned("StatefulSet", "web"))


def affinity(*terms: Any) -> Object:
    pod = owned("DaemonSet", "agent")
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
    pod["spec"]["affinity"] = {"nodeAffinity": required}
    return pod


def on(*names: str, key: str = "metadata.name", operator: str = "In") -> Object:
    return {"matchFields": [{"key": key, "operator": operator, "values": list(names)}]}


def test_the_node_is_the_one_that_the_daemon_sets_controller_chose() -> None:
    template = "{workload}/{node}/{database}"
    assert path(affinity(on("n1")), replica_path=template) == "agent/n1/data/app.db"
    expressions = {**on("n1"), "matchExpressions": [{"key": "a", "operator": "Exists"}]}
    assert path(affinity(expressions, on("n1")), replica_path=template) == "agent/n1/data/app.db"


@pytest.mark.parametrize(
    "pod",
    [
        owned("DaemonSet", "agent"),
        affinity(),
        affinity({}),
        affinity({"matchFields": None}),
        affinity(on()),
        affinity(on("n1", "n2")),
        affinity(on("n1"), on("n2")),
        affinity(on("n1", operator="NotIn")),
        affinity(on("n1", key="metadata.uid")),
        {**owned("DaemonSet", "agent"), "spec": {"affinity": {"nodeAffinity": None}}},
        {**owned("DaemonSet", "agent"), "spec": {"affinity": None}},
    ],
    ids=range(11),
)
def test_a_node_that_is_not_decided_is_not_guessed(pod: Object) -> None:
    assert "{node} can't be determined for this Pod" in refusal(pod, replica_path="{workload}/{node}/{database}")


def test_only_daemons_have_a_node() -> None:
    assert "DaemonSet" in refusal({"metadata": {"name": "solo"}}, replica_path="{node}/{database}")


def test_a_cron_jobs_template_needs_a_path_of_its_own() -> None:
    _, wrong = filled(replica.of_cron_job("shop", "nightly"))
    assert "such as {namespace}/cronjob/nightly/{database}" in wrong[0]
    assert filled(replica.of_cron_job("shop", "nightly"), replica_path="{namespace}/n/{database}")[1] == []


def test_a_job_and_its_cron_job_are_known_to_finish() -> None:
    assert replica.of_job("shop", "a").finishes
    assert replica.of_job("shop", "").finishes
    assert replica.of_cron_job("shop", "a").finishes
    assert replica.of_pod(owned("Job", "a", "batch/v1"), "shop").finishes
    assert not replica.of_deployment("shop", "a").finishes


def test_the_operators_prefix_stands_in_front() -> None:
    assert filled(replica.of_deployment("shop", "web"), "eu/one")[0] == {
        DATABASE: "eu/one/shop/deployment/web/data/app.db"
    }


@pytest.mark.parametrize(
    ("databases", "template"),
    [
        ("/a/x.db,/b/x.db", "{namespace}/{workload}"),
        ("/a/x.db,/a/y.db", "one"),
        ("/a/x.db,/a/y.db,/a/z.db", "{pod}"),
    ],
)
def test_two_databases_never_share_a_replica(databases: str, template: str) -> None:
    identity = replica.of_stateful_pod("shop", "web-0")
    _, wrong = filled(identity, path=databases, replica_path=template)
    assert "one replica, which would destroy it: add {database}" in wrong[0]


def test_files_of_one_name_in_two_directories_have_two_replicas() -> None:
    found, wrong = filled(replica.of_deployment("shop", "web"), path="/a/x.db,/b/x.db,/a/b/x.db")
    assert wrong == []
    assert len(set(found.values())) == 3


@pytest.mark.parametrize("name", ["{namespace}.db", "{database}.db", "{pod}", "{}", "{x", "a b", "ü.db"])
def test_a_databases_name_is_taken_as_it_is(name: str) -> None:
    found, wrong = filled(replica.of_deployment("shop", "web"), path=f"/data/{name}")
    assert wrong == []
    assert list(found.values()) == [f"shop/deployment/web/data/{name}"]


def test_a_path_that_is_too_long_once_filled_is_refused() -> None:
    identity = replica.of_deployment("n" * 63, "w" * 253)
    database = "/" + "d" * 200 + "/" + "e" * 200 + "/" + "f" * 200 + "/x.db"
    _, wrong = filled(identity, path=database)
    assert "longer than 900 bytes" in wrong[0]


def test_an_empty_name_never_shortens_a_path() -> None:
    _, wrong = filled(replica.of_pod(owned("Job", "", "batch/v1"), "shop"))
    assert len(wrong) == 1


def test_a_database_is_not_started_from_its_own_replica() -> None:
    own = {"restore_from": "{namespace}/{kind}/{workload}/{database}", "restore_timestamp": "2026-01-31T12:00:00Z"}
    _, wrong = filled(replica.of_deployment("shop", "web"), **own)
    assert "is the Pod's own replica" in wrong[0]
    _, wrong = filled(replica.of_deployment("shop", "web"), "cluster", **own)
    assert wrong == [], "behind a prefix, the other path is another one"


def test_what_to_start_from_is_the_whole_path() -> None:
    findings = Findings(GROUP)
    asked = settings.read(
        {"inject": "true", "path": DATABASE, "restore-from": "old/{database}"}, options.read({}), findings
    )
    assert replica.sources(asked, replica.of_deployment("shop", "web"), {}, findings) == {DATABASE: "old/data/app.db"}


def test_a_broken_template_brings_no_second_complaint() -> None:
    found, wrong = filled(replica.of_cron_job("shop", "n"), replica_path="/x")
    assert found == {}
    assert len(wrong) == 1
