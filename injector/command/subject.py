"""What a user names as KIND/NAME: the injected Pods of a workload, living or as they would be made.

A living Pod says itself where its replicas are. Of a workload whose Pods are all gone (the node is dead, it is scaled
to zero) the template says it, by the core, with the operator's options of this call.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from injector.admission.namespaces import Namespaces
from injector.admission.verdict import NAMESPACE
from injector.annotations.defaults import Defaults
from injector.annotations.settings import asks, ours
from injector.annotations.table import LABEL, group
from injector.command.kubectl import SHORT_NAMES, Kubectl, NotFound
from injector.command.made import pod_of
from injector.errors import InvalidPod, quoted
from injector.options import Options
from injector.pod import replica
from injector.pod.inject import inject
from injector.pod.job import NotInjected, Source, source
from injector.values import Object

RESOURCES = {
    "pods": "Pod",
    "deployments.apps": "Deployment",
    "statefulsets.apps": "StatefulSet",
    "replicasets.apps": "ReplicaSet",
    "daemonsets.apps": "DaemonSet",
    "jobs.batch": "Job",
    "cronjobs.batch": "CronJob",
}
MOST_PODS = 100  # of one workload that are looked at


class NoSubject(Exception):
    """What the user named has no replica that could be asked: why, in one sentence."""


class Subject(NamedTuple):
    """One Pod's replicas, and what they are called.

    `living`: the Pod is there. `alone`: the workload has no other with replicas of its own. `workload` is what the
    user named, as the API server has it.
    """

    name: str
    namespace: str
    source: Source
    living: bool
    alone: bool
    workload: Object


def named(text: str) -> tuple[str, str]:
    """The resource and the name in KIND/NAME. Raises NoSubject."""
    kind, slash, name = text.partition("/")
    kind = kind.lower()
    for resource, known in RESOURCES.items():
        plural = resource.partition(".")[0]
        if slash and name and (kind in (known.lower(), plural, resource) or SHORT_NAMES.get(kind) == known.lower()):
            return resource, name
    raise NoSubject(f"{quoted(text)}: write KIND/NAME, such as statefulset/web, deployment/web or pod/web-0")


def subjects(kubectl: Kubectl, text: str, namespace: str | None, options: Options, pod: str = "") -> list[Subject]:
    """The Pods of what the user named that have replicas of their own; one, if all share theirs.

    Args:
        kubectl: how the cluster is asked.
        text: KIND/NAME.
        namespace: of it; None: that of the user's context.
        options: the operator's, which count where no Pod lives.
        pod: the name of the only Pod that is wanted; empty: all.

    Raises:
        NoSubject: nothing of it has a replica.
        KubectlError: the cluster can't be asked.
    """
    resource, name = named(text)
    try:
        found = kubectl.get(resource, name, namespace=namespace)
    except NotFound as gone:
        if resource != "pods":
            raise
        raise NoSubject(f"{gone}: name its workload, such as statefulset/NAME or deployment/NAME") from None
    kind, place = RESOURCES[resource], str(found["metadata"]["namespace"])
    if kind == "Pod":
        return [Subject(f"pod/{name}", place, _living(found, options), living=True, alone=True, workload=found)]
    living = _by_name(_pods(kubectl, found, kind, options), kind)
    names = [*dict.fromkeys([*_ordinals(found, kind), *sorted(living)])]
    if kind == "DaemonSet" and not living:
        raise NoSubject(f"no Pod of {text} lives, and each node's has a replica of its own, so none is known")
    if pod and pod not in names:
        raise NoSubject(f"{text} has no Pod {quoted(pod)[1:-1]} with a replica of its own")
    defaults = _defaults(kubectl, place, options)
    label = f"{kind.lower()}/{name}"
    return [
        Subject(
            f"{label}, Pod {each}" if len(names) > 1 else label,
            place,
            _living(living[each], options) if each in living else _made(found, number, place, options, defaults, text),
            living=each in living,
            alone=len(names) == 1,
            workload=found,
        )
        for number, each in enumerate(names)
        if pod in ("", each)
    ]


def _ordinals(found: Object, kind: str) -> list[str]:
    """The names of a StatefulSet's Pods; of other workloads, whose Pods share a replica, one that is empty."""
    if kind == "DaemonSet":
        return []
    if kind != "StatefulSet":
        return [""]
    spec = found["spec"]
    start, count = (spec.get("ordinals") or {}).get("start") or 0, max(spec.get("replicas", 1), 1)
    return [f"{found['metadata']['name']}-{start + number}" for number in range(min(count, MOST_PODS))]


def _pods(kubectl: Kubectl, found: Object, kind: str, options: Options) -> list[Object]:
    """A workload's injected Pods, the oldest first."""
    place, name = found["metadata"]["namespace"], found["metadata"]["name"]
    every = kubectl.find("pods", namespace=place, labels=f"{group(options.variant)}/{LABEL}=true")
    mine = [pod for pod in every if _owner(pod) in _owners(kind, name, pod)]
    return sorted(mine, key=lambda pod: (pod["metadata"].get("creationTimestamp") or "", pod["metadata"]["name"]))


def _owner(pod: Object) -> tuple[str, str]:
    owner = replica.controller(pod["metadata"]) or {}
    return owner.get("kind", ""), owner.get("name", "")


def _owners(kind: str, name: str, pod: Object) -> list[tuple[str, str]]:
    """Which owner a Pod of a workload has: a Deployment's is a ReplicaSet, a CronJob's a Job."""
    if kind == "Deployment":
        labels = pod["metadata"].get("labels") or {}
        return [("ReplicaSet", f"{name}-{labels[label]}") for label in replica.ROLLOUT_HASHES if label in labels]
    if kind == "CronJob":
        _, owner = _owner(pod)
        return [("Job", owner)] if re.fullmatch(rf"{re.escape(name)}-[0-9]+", owner) else []
    return [(kind, name)]


def _by_name(pods: list[Object], kind: str) -> dict[str, Object]:
    """The Pods that have a replica each, by name; of others, which share theirs, the newest alone."""
    return {pod["metadata"]["name"] if kind in ("StatefulSet", "DaemonSet") else "": pod for pod in pods}


def _living(pod: Object, options: Options) -> Source:
    try:
        return source(pod, options)
    except NotInjected:
        name = pod["metadata"]["name"]
        raise NoSubject(
            f"Pod {name} is not injected: it has no status annotation of {group(options.variant)}, so no replica"
        ) from None


def _defaults(kubectl: Kubectl, place: str, options: Options) -> Defaults:
    """What holds in the namespace, as far as this call's options tell."""
    objects = []
    if options.namespace_defaults:
        key = dict(zip(("apiVersion", "kind"), ("v1", NAMESPACE[1]), strict=True))
        objects = [{**kubectl.get("namespaces", place), **key}]
    return Namespaces(objects, options).of(place)


def _made(found: Object, number: int, place: str, options: Options, defaults: Defaults, text: str) -> Source:
    """The Pod as the webhook would inject it."""
    pod = pod_of(found, number)
    if not asks(ours(pod["metadata"], group(options.variant))):
        raise NoSubject(f"{text} does not ask for injection, and no Pod of it lives that is injected")
    try:
        injection = inject(pod, replica.of_pod(pod, place), options, defaults)
    except InvalidPod as invalid:
        raise NoSubject(f"no Pod of {text} lives, and its template can't be injected: {invalid}") from None
    return source(injection.pod, options)
