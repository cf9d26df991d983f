"""Whose databases these are, and so where their replicas live: a path that outlives each Pod and that no one shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from injector import values
from injector.annotations.findings import Findings
from injector.annotations.settings import Settings
from injector.annotations.table import BY_KEY

DEFAULT_TEMPLATE = BY_KEY["replica-path"].default
RANDOM_LETTERS = 5  # at the end of a generated name
STATEFUL_POD = "statefulset.kubernetes.io/pod-name"
ROLLOUT_HASHES = ("pod-template-hash", "rollouts-pod-template-hash")
# Groups and kinds whose Pods' names and lives are known; every other controller needs an explicit path.
KNOWN_OWNERS = {
    ("apps", "ReplicaSet"),
    ("apps", "StatefulSet"),
    ("apps", "DaemonSet"),
    ("batch", "Job"),
}


class Identity(NamedTuple):
    """What stays the same from one life of a Pod to the next.

    `known` maps placeholders of the replica path to their text; `unknown` maps each of the others to why it
    has none, in words for the author. `example` is a path to suggest. `stable_name` is the Pod's own name
    where a new Pod of the same name is the same one again, else None. `finishes`: the Pod is a Job's, which is
    done only when all its containers are.
    """

    namespace: str
    known: Mapping[str, str]
    unknown: Mapping[str, str]
    example: str
    stable_name: str | None = None
    finishes: bool = False


def of_pod(pod: Mapping[str, Any], namespace: str) -> Identity:
    """The identity of a Pod, from its controller or its own name.

    Args:
        pod: the Pod.
        namespace: of the request, as a Pod's own may still be empty.
    """
    metadata = pod.get("metadata") or {}
    name = metadata.get("name") or ""
    prefix = metadata.get("generateName") or ""
    owner = controller(metadata)
    if owner is None:
        if name and not prefix and (restored := _restored(namespace, name, metadata.get("labels") or {})) is not None:
            return restored
        if name and not (prefix and name.startswith(prefix)):
            return _identity(namespace, "pod", name, pod=name)
        return _unidentified(
            namespace, "the Pod has neither an owner nor a name of its own, so the next one has another name"
        )
    group, kind = owner["apiVersion"].rpartition("/")[0], owner["kind"]
    if (group, kind) not in KNOWN_OWNERS:
        return _unidentified(namespace, f"the webhook does not know the Pod's controller, {kind} of {group or 'v1'}")
    if kind == "StatefulSet":
        return of_stateful_pod(namespace, name)
    if kind == "DaemonSet":
        return of_daemon(namespace, owner["name"], _node(pod))
    if kind == "Job":
        return of_job(namespace, owner["name"])
    return of_replica_set(namespace, owner["name"], metadata.get("labels") or {})


def _restored(namespace: str, name: str, labels: Mapping[str, str]) -> Identity | None:
    """Of a Pod that has lost its owner and generateName, as Velero creates Pods again; None: it never had one.

    Its controller takes it back by its labels, so that it is a Pod of that workload as before.
    """
    if labels.get(STATEFUL_POD) == name:
        return of_stateful_pod(namespace, name)
    hashes = [f"-{labels[label]}" for label in ROLLOUT_HASHES if labels.get(label)]
    base, _, random = name.rpartition("-")
    for suffix in hashes:  # which the webhook leaves out of the names that it gives
        base = base.removesuffix(suffix)
    return of_deployment(namespace, base) if hashes and base and len(random) == RANDOM_LETTERS else None


def controller(metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The owner reference of an object's controller, if it has one."""
    references = metadata.get("ownerReferences") or []
    return next((reference for reference in references if reference.get("controller")), None)


def of_deployment(namespace: str, name: str) -> Identity:
    """The identity that all Pods of a Deployment share, one after the other."""
    return _identity(namespace, "deployment", name)


def of_replica_set(namespace: str, name: str, labels: Mapping[str, str]) -> Identity:
    """Of a ReplicaSet's Pods: its Deployment's (or Rollout's) where a label tells the hash in its name."""
    for label in ROLLOUT_HASHES:
        suffix = "-" + labels.get(label, "")
        if len(suffix) > 1 and name.endswith(suffix) and name != suffix:
            return of_deployment(namespace, name.removesuffix(suffix))
    return _identity(namespace, "replicaset", name)


def of_stateful_pod(namespace: str, pod_name: str) -> Identity:
    """Of one Pod of a StatefulSet: its name is given back to its successor."""
    return _identity(namespace, "statefulset", pod_name, pod=pod_name)


def of_daemon(namespace: str, name: str, node: str | None) -> Identity:
    """Of a DaemonSet's Pod on one node."""
    identity = _identity(namespace, "daemonset", name)
    example = f"{{namespace}}/daemonset/{name}/{{node}}/{{database}}"
    if node is None:
        return identity._replace(example=example)
    return identity._replace(
        known={**identity.known, "node": node},
        unknown={key: why for key, why in identity.unknown.items() if key != "node"},
        example=example,
    )


def of_nameless(namespace: str, kind: str) -> Identity:
    """Of the Pods of a workload that has no name yet."""
    return _unidentified(namespace, f"the {kind} has a generateName only, so its name is not known yet")


def of_revision(namespace: str) -> Identity:
    """Of the Pods of Knative's Deployments, of which each Revision has one of another name."""
    return _unidentified(namespace, "each Revision's Deployment has another name")


def of_job(namespace: str, name: str) -> Identity:
    """Of a Job's Pods; a nameless Job is another one each time."""
    if not name:
        why = "the Job has a generateName only, so its next run has another name"
        return _unidentified(namespace, why)._replace(finishes=True)
    return _identity(namespace, "job", name)._replace(finishes=True)


def of_cron_job(namespace: str, name: str) -> Identity:
    """Of a CronJob's Pods: each run is a Job of another name."""
    return _unidentified(
        namespace,
        "a CronJob's Jobs have another name at every run",
        f"{{namespace}}/cronjob/{name or 'my-job'}/{{database}}",
    )._replace(finishes=True)


def _identity(namespace: str, kind: str, workload: str, pod: str | None = None) -> Identity:
    known = {"namespace": namespace, "kind": kind, "workload": workload}
    unknown = {"node": "only the Pods of a DaemonSet belong to a node"}
    if pod is None:
        unknown["pod"] = f"the next Pod of this {kind} has another name"
    else:
        known["pod"] = pod
    return Identity(namespace, known, unknown, "{namespace}/{kind}/{workload}/{database}", pod)


def _unidentified(namespace: str, why: str, example: str = "{namespace}/my-app/{database}") -> Identity:
    unknown = dict.fromkeys(("kind", "workload", "pod", "node"), why)
    return Identity(namespace, {"namespace": namespace}, unknown, example)


def _node(pod: Mapping[str, Any]) -> str | None:
    """The node that a DaemonSet's controller chose: an affinity for `metadata.name`, one name in each term."""
    affinity = ((pod.get("spec") or {}).get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    names = {
        name
        for term in required.get("nodeSelectorTerms") or []
        for match in term.get("matchFields") or []
        if match.get("key") == "metadata.name" and match.get("operator") == "In"
        for name in match.get("values") or []
    }
    return names.pop() if len(names) == 1 else None


def paths(settings: Settings, identity: Identity, findings: Findings) -> dict[str, str]:
    """The path in the bucket of each database's replica; what is wrong goes to the findings.

    Args:
        settings: with the databases, the template and, to be put in front, the operator's REPLICA_PREFIX.
        identity: of the Pod.
        findings: takes violations of `replica-path`.
    """
    if "replica-path" in settings.broken:
        return {}
    prefix = settings.options.replica_prefix
    start = f"{prefix}/" if prefix else ""
    filled = _fill("replica-path", settings, identity, findings)
    return {database: start + path for database, path in filled.items()}


def sources(settings: Settings, identity: Identity, own: Mapping[str, str], findings: Findings) -> dict[str, str]:
    """The path in the bucket of the replica that each database starts from (`restore-from`); {} if none."""
    if settings.restore_from is None or "restore-from" in settings.broken:
        return {}
    found = _fill("restore-from", settings, identity, findings)
    if any(own.get(database) == source for database, source in found.items()):
        findings.deny(
            "restore-from",
            settings.restore_from,
            f"is the Pod's own replica: give the Pod a new {findings.key('replica-path')}, so that what is there now "
            "stays as it is",
        )
    return found


def _fill(
    key: Literal["replica-path", "restore-from"], settings: Settings, identity: Identity, findings: Findings
) -> dict[str, str]:
    """A template filled for each database; {} (and a violation) where it can't be."""
    template = settings.replica_path if key == "replica-path" else settings.restore_from or ""
    missing = [name for name in identity.unknown if f"{{{name}}}" in template]
    if missing:
        reasons = "; ".join(dict.fromkeys(identity.unknown[name] for name in missing))
        what = ", ".join(f"{{{name}}}" for name in missing)
        value = template if key in {*settings.given, *settings.defaults.used} else None
        findings.deny(
            key,
            value,
            f"{what} can't be determined for this Pod ({reasons}): write a path of your own, such as "
            f"{identity.example}",
        )
        return {}
    filled: dict[str, str] = {}
    for database in settings.path:
        path = template
        for name, text in identity.known.items():
            path = path.replace(f"{{{name}}}", text)
        filled[database] = path.replace("{database}", database[1:])
    wrong = {why for path in filled.values() if (why := values.wrong_replica_path(path)) is not None}
    if wrong:
        findings.deny(key, template, f"gives a path that {'; '.join(sorted(wrong))}")
    below = f"{settings.options.replica_prefix}/" if settings.options.replica_prefix and key == "restore-from" else ""
    for path in filled.values():
        # A whole path in the bucket that is not below the operator's prefix is none that a pattern allows.
        within = path.removeprefix(below) if path.startswith(below) else f"/{path}"
        if not settings.defaults.check_allowed(key, within, findings, given=template):
            break
    shared = _shared(filled)
    if shared:
        findings.deny(
            key,
            template,
            f"gives {' and '.join(shared)} one replica, which would destroy it: add {{database}}",
        )
    return filled


def _shared(filled: Mapping[str, str]) -> list[str]:
    """Databases whose replica paths are equal or lie one inside the other."""
    together = {path for pair in values.inside_another(filled.values()) for path in pair}
    return [database for database, path in filled.items() if path in together]
