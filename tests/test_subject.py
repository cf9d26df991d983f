"""What KIND/NAME means: which of a workload's Pods are asked for their replicas, living or not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from injector import GROUP
from injector.command.kubectl import NotFound
from injector.command.subject import NoSubject, named, subjects
from tests import reviews
from tests.jobs import Cluster

Object = dict[str, Any]
PATH = "/data/app.db"


def template(**annotations: str) -> Object:
    pod = reviews.pod(path=PATH, **annotations)
    return {"metadata": {"annotations": pod["metadata"]["annotations"]}, "spec": pod["spec"]}


def workload(kind: str, name: str = "web", **spec: Any) -> Object:
    version = "batch/v1" if kind in ("Job", "CronJob") else "apps/v1"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}


def living(name: str, kind: str, owner: str, age: int = 0, labels: Object | None = None, **annotations: str) -> Object:
    """An injected Pod of a controller, so many minutes old."""
    reference = {
        "apiVersion": "batch/v1" if kind == "Job" else "apps/v1",
        "kind": kind,
        "name": owner,
        "controller": True,
    }
    metadata = {"name": name, "labels": labels or {}, "ownerReferences": [reference]}
    pod = reviews.injected(reviews.pod(None, metadata, path=PATH, **annotations))
    pod["metadata"]["creationTimestamp"] = f"2026-01-01T00:{59 - age:02}:00Z"
    return pod


def found(cluster: Cluster, text: str, pod: str = "", **options: Any) -> dict[str, tuple[str, bool]]:
    """The replica of each subject's one database, and whether the Pod lives, by the subject's name."""
    chosen = dataclasses.replace(reviews.DEFAULTS, **options)
    return {
        each.name: (each.source.databases[PATH], each.living) for each in subjects(cluster, text, None, chosen, pod)
    }


@pytest.mark.parametrize(
    ("text", "resource"),
    [
        ("pod/web", "pods"),
        ("po/web", "pods"),
        ("Deployment/web", "deployments.apps"),
        ("deployments/web", "deployments.apps"),
        ("deploy/web", "deployments.apps"),
        ("statefulset.apps/web", None),
        ("statefulsets.apps/web", "statefulsets.apps"),
        ("sts/web", "statefulsets.apps"),
        ("ds/web", "daemonsets.apps"),
        ("rs/web", "replicasets.apps"),
        ("job/web", "jobs.batch"),
        ("cj/web", "cronjobs.batch"),
        ("web", None),
        ("pod/", None),
        ("secret/web", None),
        ("/", None),
        ("", None),
    ],
)
def test_a_workload_is_named_as_kubectl_names_it(text: str, resource: str | None) -> None:
    if resource is None:
        with pytest.raises(NoSubject, match=r"write KIND/NAME, such as statefulset/web, deployment/web or pod/web-0"):
            named(text)
    else:
        assert named(text) == (resource, "web")


def test_a_living_pod_says_where_its_replica_is_whatever_the_options() -> None:
    cluster = Cluster()
    options = dataclasses.replace(reviews.DEFAULTS, replica_prefix="eu")
    pod = reviews.injected(reviews.pod(path=PATH), options=options)
    cluster.put("pods", pod)
    assert found(cluster, "pod/web") == {"pod/web": ("eu/default/pod/web/data/app.db", True)}


def test_of_pods_that_share_a_replica_the_newest_is_asked() -> None:
    cluster = Cluster()
    cluster.put("deployments.apps", workload("Deployment", template=template()))
    for name, age, replica in (("web-5d4f-a", 9, "old"), ("web-5d4f-b", 1, "new"), ("web-5d4f-c", 5, "between")):
        labels = {"pod-template-hash": "5d4f"}
        cluster.put("pods", living(name, "ReplicaSet", "web-5d4f", age, labels, replica_path=replica))
    cluster.put(
        "pods", living("web-2-x-d", "ReplicaSet", "web-2-x", 0, {"pod-template-hash": "x"}, replica_path="other")
    )
    assert found(cluster, "deployment/web") == {"deployment/web": ("new", True)}


def test_each_pod_of_a_stateful_set_has_its_own_living_or_not() -> None:
    cluster = Cluster()
    several = workload("StatefulSet", replicas=3, ordinals={"start": 1}, template=template())
    cluster.put("statefulsets.apps", several)
    cluster.put("pods", living("web-2", "StatefulSet", "web", replica_path="moved/{pod}"))
    place = "default/statefulset"
    assert found(cluster, "sts/web") == {
        "statefulset/web, Pod web-1": (f"{place}/web-1/data/app.db", False),
        "statefulset/web, Pod web-2": ("moved/web-2", True),
        "statefulset/web, Pod web-3": (f"{place}/web-3/data/app.db", False),
    }
    assert found(cluster, "sts/web", "web-3") == {"statefulset/web, Pod web-3": (f"{place}/web-3/data/app.db", False)}
    with pytest.raises(NoSubject, match="sts/web has no Pod web-9 with a replica of its own"):
        found(cluster, "sts/web", "web-9")


def test_without_a_living_pod_the_template_and_the_operators_options_count() -> None:
    cluster = Cluster()
    cluster.put("statefulsets.apps", workload("StatefulSet", replicas=0, template=template()))
    cluster.put("deployments.apps", workload("Deployment", template=template()))
    cluster.put("cronjobs.batch", workload("CronJob", jobTemplate={"spec": {"template": template(replica_path="c/p")}}))
    cluster.put(
        "namespaces", {"metadata": {"name": "default", "annotations": {f"{GROUP}/replica-path": "of/{workload}"}}}
    )
    assert found(cluster, "sts/web", replica_prefix="eu") == {
        "statefulset/web": ("eu/default/statefulset/web-0/data/app.db", False)
    }
    assert found(cluster, "deploy/web") == {"deployment/web": ("default/deployment/web/data/app.db", False)}
    assert found(cluster, "deploy/web", namespace_defaults=True) == {"deployment/web": ("of/web", False)}
    assert found(cluster, "cronjob/web") == {"cronjob/web": ("c/p", False)}


def test_a_cron_jobs_living_pods_are_those_of_its_jobs() -> None:
    cluster = Cluster()
    cluster.put("cronjobs.batch", workload("CronJob", jobTemplate={"spec": {"template": template()}}))
    cluster.put("pods", living("web-29-x", "Job", "web-29", replica_path="mine"))
    cluster.put("pods", living("web-x-29-x", "Job", "web-x-29", replica_path="anothers"))
    assert found(cluster, "cj/web") == {"cronjob/web": ("mine", True)}


def test_what_has_no_replica_is_one_sentence() -> None:
    cluster = Cluster()
    bare = reviews.pod()
    bare["metadata"]["annotations"] = {}
    cluster.put("pods", bare)
    cluster.put("deployments.apps", workload("Deployment", template={"metadata": {}, "spec": bare["spec"]}))
    cluster.put("replicasets.apps", workload("ReplicaSet", template=template(storage="much")))
    cluster.put("daemonsets.apps", workload("DaemonSet", template=template()))
    for text, said in {
        "pod/web": "Pod web is not injected: it has no status annotation of",
        "pod/gone": "there is no pods gone in namespace default, or no longer: name its workload, such as",
        "deploy/web": "deploy/web does not ask for injection, and no Pod of it lives that is injected",
        "rs/web": 'no Pod of rs/web lives, and its template can\'t be injected: .*storage: "much"',
        "ds/web": "no Pod of ds/web lives, and each node's has a replica of its own, so none is known",
    }.items():
        with pytest.raises(NoSubject, match=said):
            found(cluster, text)
    with pytest.raises(NotFound):
        found(cluster, "sts/gone")


def test_a_template_whose_pods_are_given_their_user_is_taken_as_it_is() -> None:
    """On OpenShift: the Job's Pod is given one as well."""
    cluster = Cluster()
    plain = template()
    del plain["spec"]["securityContext"]
    cluster.put("deployments.apps", workload("Deployment", template=plain))
    assert found(cluster, "deploy/web", default_run_as_user="pod")
    with pytest.raises(NoSubject, match="run-as-user"):
        found(cluster, "deploy/web")
