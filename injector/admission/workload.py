"""Kinds that make Pods: where each keeps its template, and what would run two writers on one replica."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from injector.annotations import settings
from injector.annotations.defaults import NONE, Defaults
from injector.annotations.table import BY_KEY, LABEL, group
from injector.errors import InvalidPod, Violation, without_credentials
from injector.options import Options
from injector.pod import gate, merge, replica
from injector.pod.inject import Injection, inject
from injector.pod.replica import Identity

TEMPLATES: dict[tuple[str, str], tuple[str, ...]] = {
    ("apps", "Deployment"): ("spec", "template"),
    ("apps", "StatefulSet"): ("spec", "template"),
    ("apps", "ReplicaSet"): ("spec", "template"),
    ("apps", "DaemonSet"): ("spec", "template"),
    ("batch", "Job"): ("spec", "template"),
    ("batch", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
}
KNATIVE = (
    "Knative starts the Pods of a new Revision while those of the old one still write, and nobody can write a strategy "
    "for that: run what uses a database as a StatefulSet or, with strategy Recreate, a Deployment instead"
)
SOME_NODE = "NODE"  # stands for each node's name while only the template is there


class Examination(NamedTuple):
    """What was found in a workload: the injected template (None: not asked for, or not possible) and what is wrong."""

    injection: Injection | None
    violations: list[Violation]
    warnings: list[str]


def template(key: tuple[str, str], workload: Mapping[str, Any]) -> dict[str, Any]:
    """The Pod template of a workload; {} if it has none.

    Args:
        key: API group and kind, one of TEMPLATES.
        workload: the object.
    """
    found: Any = workload
    for name in TEMPLATES[key]:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def with_template(key: tuple[str, str], workload: dict[str, Any], pod: dict[str, Any]) -> dict[str, Any]:
    """The workload with another Pod template; the rest stays the very same objects."""

    def put(found: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
        return {**found, names[0]: put(found[names[0]], names[1:])} if names else pod

    return put(workload, TEMPLATES[key])


def marked(key: tuple[str, str], workload: dict[str, Any], options: Options) -> dict[str, Any]:
    """The workload with our label, if it is a Deployment: the policy on its `scale` looks at no others."""
    if key != ("apps", "Deployment"):
        return workload
    labels = {f"{group(options.variant)}/{LABEL}": "true"}
    return merge.over(workload, {"metadata": {"labels": labels}})  # type: ignore[no-any-return]


def own_replica_each(key: tuple[str, str], workload: Mapping[str, Any], path: str) -> Violation | None:
    """Why one template can't be injected for all Pods of a workload: each has a replica of its own.

    The webhook injects each Pod when it is made; a manifest has but one template for all.
    """
    spec = workload.get("spec") or {}
    many = key[1] == "StatefulSet" and _number(spec.get("replicas")) > 1 and ("{pod}" in path or "{workload}" in path)
    if many or (key[1] == "DaemonSet" and "{node}" in path):
        return Violation(
            "replica-path",
            path,
            f"gives each Pod of this {key[1]} a replica of its own, which a template for all of them can't name: "
            "let the webhook inject them",
        )
    return None


def checked_elsewhere(workload: Mapping[str, Any]) -> bool:
    """Whether a controller that is itself checked made this workload: it is not reported twice."""
    owner = replica.controller(workload.get("metadata") or {})
    return owner is not None and (owner["apiVersion"].rpartition("/")[0], owner["kind"]) in TEMPLATES


def is_knative(api_group: str) -> bool:
    """Whether an API group is Knative's, whose Deployments nobody can write a strategy for."""
    return api_group == "serving.knative.dev"


def _of_knative(metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The owner reference of a Deployment that Knative made, one for each Revision."""
    owner = replica.controller(metadata)
    return owner if owner is not None and is_knative(owner["apiVersion"].rpartition("/")[0]) else None


def concerns_us(key: tuple[str, str], workload: Mapping[str, Any], options: Options) -> bool:
    """Whether any of our annotations stands in a workload, its template, or (by mistake) elsewhere in it."""
    return any(settings.ours(metadata, group(options.variant)) for _, metadata in _metadata(key, workload))


def _metadata(key: tuple[str, str], workload: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(path, metadata) of the workload and of everything on the way to its template, the template's last."""
    found: Any = workload
    path: list[str] = []
    for name in ("", *TEMPLATES[key]):
        path += [name] * bool(name)
        found = found.get(name) if name else found
        if not isinstance(found, dict):
            return
        if isinstance(metadata := found.get("metadata"), dict):
            yield ".".join([*path, "metadata", "annotations"]), metadata


def identity(key: tuple[str, str], workload: Mapping[str, Any], namespace: str) -> Identity:
    """The identity of the Pods that a workload will make (of its first one, where each has its own)."""
    metadata = workload.get("metadata") or {}
    name = metadata.get("name") or ""
    kind = key[1]
    if _of_knative(metadata) is not None:
        return replica.of_revision(namespace)
    if not name and kind not in ("Job", "CronJob"):
        return replica.of_nameless(namespace, kind)
    if kind == "Deployment":
        return replica.of_deployment(namespace, name)
    if kind == "StatefulSet":
        start = ((workload.get("spec") or {}).get("ordinals") or {}).get("start") or 0
        return replica.of_stateful_pod(namespace, f"{name}-{start}")
    if kind == "DaemonSet":
        return replica.of_daemon(namespace, name, SOME_NODE)
    if kind == "Job":
        return replica.of_job(namespace, name)
    if kind == "CronJob":
        return replica.of_cron_job(namespace, name)
    labels = (template(key, workload).get("metadata") or {}).get("labels") or {}
    return replica.of_replica_set(namespace, name, labels)


def examine(
    key: tuple[str, str], workload: Mapping[str, Any], namespace: str, options: Options, defaults: Defaults = NONE
) -> Examination:
    """Judges a workload as the Pods that it will make.

    Args:
        key: API group and kind, one of TEMPLATES.
        workload: the object, of the shape `shapes.Workload`.
        namespace: of the request or the object.
        options: the operator's.
        defaults: what holds in the namespace.
    """
    our_group = group(options.variant)
    *outer, (template_path, _) = list(_metadata(key, workload)) or [("", {})]
    target = ".".join([*TEMPLATES[key], "metadata", "annotations"])
    if template_path != target:
        outer = list(_metadata(key, workload))
    violations = [
        Violation(
            f"{path}[{our_group}/{name}]",
            without_credentials(name, value) if isinstance(value, str) else None,
            f"has no effect there: move it to {target}",
        )
        for path, metadata in outer
        for name, value in settings.ours(metadata, our_group).items()
    ]
    pod = template(key, workload)
    own = settings.ours(pod.get("metadata") or {}, our_group)
    if not settings.asks(own):
        return Examination(None, [*violations, *gate.useless(pod, our_group)], [])
    injection, warnings = None, []
    try:
        injection = inject(pod, identity(key, workload, namespace), options, defaults)
        warnings = injection.warnings
    except InvalidPod as invalid:
        violations += invalid.violations
        warnings = invalid.warnings
    own = {**defaults.under(own), **own}
    policy = own.get("single-writer", BY_KEY["single-writer"].default)
    if (revision := _of_knative(workload.get("metadata") or {})) is not None:
        writers = [Violation("metadata.ownerReferences", f"{revision['kind']} {revision['name']}", KNATIVE)]
    else:
        writers = list(_second_writers(key[1], workload["spec"], own))
    if policy == "warn":
        warnings = [*warnings, *map(str, writers)]
    elif policy != "off":
        violations += writers
    return Examination(injection, violations, warnings)


def new_violations(found: list[Violation], before: list[Violation], our_group: str) -> list[Violation]:
    """Those that were not there before: an update is not refused for what the stored object already had.

    Values of other fields than annotations don't count: from three replicas to two is no new mistake.
    """

    def mistake(violation: Violation) -> tuple[str, str | None]:
        return violation.field, violation.value if violation.field.startswith(our_group) else None

    known = set(map(mistake, before))
    return [violation for violation in found if mistake(violation) not in known]


def _second_writers(kind: str, spec: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[Violation]:
    """What of a workload runs two writers on one replica at once; absent fields mean Kubernetes' defaults."""
    path = own.get("replica-path", BY_KEY["replica-path"].default)
    shared = not isinstance(path, str) or not ("{pod}" in path or "{workload}" in path)
    replicas = _number(spec.get("replicas"))
    if kind == "Deployment":
        if replicas > 1:
            yield _many(kind, replicas)
        written = spec.get("strategy") or {}
        strategy = written.get("type")
        if strategy != "Recreate":
            # The API server refuses the two together.
            out = ", and take rollingUpdate out" if written.get("rollingUpdate") is not None else ""
            yield Violation(
                "spec.strategy.type",
                strategy,
                "a rolling update (the default) starts the new Pod while the old one still writes: "
                f"write Recreate{out}",
            )
    elif kind == "ReplicaSet" and replicas > 1:
        yield _many(kind, replicas)
    elif kind == "StatefulSet" and replicas > 1 and shared:
        yield Violation(
            "spec.replicas",
            str(replicas),
            "all Pods would write one replica and destroy it: write 1, or a replica-path with {pod}, such as "
            + _with_place(path, "{pod}"),
        )
    elif kind == "DaemonSet" and isinstance(path, str) and "{node}" not in path:
        yield Violation(
            "spec.template",
            path,
            "the Pods on all nodes would write one replica and destroy it: write a replica-path with {node}, such as "
            + _with_place(path, "{node}"),
        )
    elif kind == "Job":
        yield from _parallel("spec.parallelism", spec)
    elif kind == "CronJob":
        yield from _parallel("spec.jobTemplate.spec.parallelism", (spec.get("jobTemplate") or {}).get("spec") or {})
        policy = spec.get("concurrencyPolicy")
        if policy not in ("Forbid", "Replace"):
            yield Violation(
                "spec.concurrencyPolicy",
                policy,
                "Allow (the default) runs a second Job while the first still writes: write Forbid",
            )


def _with_place(path: object, place: str) -> str:
    """A replica path with one more placeholder."""
    start, database, _ = str(path)[:200].partition("{database}")
    return f"{start.rstrip('/')}/{place}/{database or '{database}'}"


def _number(value: int | None) -> int:
    return 1 if value is None else value


def _many(kind: str, replicas: int) -> Violation:
    return Violation(
        "spec.replicas",
        str(replicas),
        f"all Pods of a {kind} would write one replica and destroy it: write 1, or use a StatefulSet, "
        "whose Pods have a replica each",
    )


def _parallel(path: str, job: Mapping[str, Any]) -> Iterator[Violation]:
    parallelism = _number(job.get("parallelism"))
    if parallelism > 1:
        yield Violation(path, str(parallelism), "all Pods of a Job would write one replica and destroy it: write 1")
