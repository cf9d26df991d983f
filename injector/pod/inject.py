"""`inject`: a Pod → the same Pod with Litestream in it. Pure, and the same again when applied twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, cast

from injector.annotations.defaults import NONE, Defaults
from injector.annotations.findings import Findings
from injector.annotations.settings import Settings, ours
from injector.annotations.settings import read as read_settings
from injector.annotations.table import LABEL, STATUS, group
from injector.latest import Latest
from injector.options import Options
from injector.pod import (
    check,
    containers,
    gate,
    litestream,
    merge,
    order,
    overlay,
    replica,
    status,
    storage,
    target,
    user,
    volumes,
)
from injector.pod.plan import Earlier, Plan
from injector.pod.replica import Identity
from injector.pod.shapes import Container, InjectedContainer, Pod, PodSpec
from injector.pod.status import Status
from injector.values import LONGEST_CONFIG, Object

Named = Literal["initContainers", "containers", "ephemeralContainers", "volumes"]

LONGEST_ANNOTATIONS = 256 * 1024  # bytes of all keys and values of an object, as Kubernetes' validation counts them
SLACK_SECONDS = 5  # between the last final sync and SIGKILL


class Injection(NamedTuple):
    """An injected Pod, what its author should know, and what its replicas are.

    `replicas` maps each database to its path in the bucket, and `identity` says whose they are.
    """

    pod: Object
    warnings: list[str]
    settings: Settings
    replicas: dict[str, str]
    identity: Identity


class _Built(NamedTuple):
    """What is added to a Pod: init containers, the sidecar that follows them, and volumes."""

    first: list[InjectedContainer]
    sidecar: InjectedContainer
    volumes: list[Object]


_latest: Latest[_Built] = Latest()


def inject(pod: Object, identity: Identity, options: Options, defaults: Defaults = NONE) -> Injection:
    """The Pod with Litestream in it; what is not ours stays the very same object.

    Args:
        pod: a Pod (or a Pod template) whose annotations ask for injection, of the shape `shapes.Pod`; already
            injected ones too.
        identity: whose databases they are, for the paths of their replicas.
        options: the operator's.
        defaults: what holds in the Pod's namespace.

    Raises:
        InvalidPod: with every violation, and the warnings.
    """
    findings = Findings(group(options.variant))
    plan, earlier = _plan(cast("Pod", pod), identity, options, defaults, findings)
    findings.end()
    built = _build(plan, findings)
    if earlier:
        status.check(earlier, plan.replicas, _missing(pod["spec"], built), findings)
    findings.end()
    injected = _merge(pod, plan, built, findings)
    _check_annotations(injected["metadata"]["annotations"], findings)
    findings.end()
    return Injection(injected, findings.warnings, plan.settings, dict(plan.replicas), identity)


def _plan(
    pod: Pod, identity: Identity, options: Options, defaults: Defaults, findings: Findings
) -> tuple[Plan, Status | None]:
    """What is to be done with a Pod, and the status of an earlier call."""
    metadata, spec = pod.get("metadata") or {}, pod["spec"]
    own = ours(metadata, findings.group)
    earlier = status.read(own, _names(spec, "initContainers", "containers"), findings)
    if earlier:
        defaults = defaults.recorded(earlier.defaults)
    settings = read_settings(own, options, findings, defaults)
    if earlier and not status.fits(earlier, own, settings.containers, findings):
        earlier = None
    if earlier is None and STATUS not in own:
        _check_names(spec, findings)
    targets = target.targets(spec, settings, earlier.containers if earlier else None, findings)
    whom = user.of(targets, spec, settings, findings)
    places = storage.plan(spec, targets, settings, findings)
    replicas = replica.paths(settings, identity, findings)
    plan = Plan(
        settings,
        [item["name"] for item in targets],
        status.earlier(earlier),
        places,
        whom,
        replicas,
        replica.sources(settings, identity, replicas, findings),
        target.credentials(settings, targets),
        earlier.grace_period if earlier else target.grace(spec),
        volumes.will_have_token(spec),
    )
    check.pod(spec, plan, identity, findings)
    gate.check(spec, findings)
    return plan, earlier


def _build(plan: Plan, findings: Findings) -> _Built:
    """The containers and volumes that a plan adds."""

    def build() -> _Built:
        bare = plan._replace(targets=(), earlier=Earlier())  # whoever they are for is none of their business
        init = containers.init(bare)
        if any(len((entry.get("value") or "").encode()) > LONGEST_CONFIG for entry in init["env"]):
            findings.deny(
                "path",
                None,
                "names more databases than one Litestream config can hold: use fewer, or shorter paths",
            )
            findings.end()
        return _Built(
            [init, *containers.restores(bare)],
            containers.replicate(bare),
            [volumes.config_volume(), *bare.storage.volumes, *bare.credentials.volumes],
        )

    return _latest.of(plan.settings, plan[3:], build)  # all but the settings and what `bare` leaves out


def _missing(spec: PodSpec, built: _Built) -> list[str]:
    """What an injected Pod has, and this one has not."""
    expected = {item["name"] for item in [*built.first, built.sidecar, *built.volumes]}
    return sorted(expected.difference(_names(spec, "initContainers", "containers", "volumes")))


def _merge(pod: Object, plan: Plan, built: _Built, findings: Findings) -> Object:
    """The Pod with what was built laid over what is there.

    Args:
        pod: before.
        plan: what is to be done.
        built: what it adds.
        findings: takes warnings.
    """
    spec = pod["spec"]
    init_containers, main_containers = (
        _with_mounts(spec.get(key) or [], plan) for key in ("initContainers", "containers")
    )
    ours_first = [*built.first, built.sidecar] if plan.native else built.first
    needed = _needed_grace(plan.grace, len(plan.replicas))
    changes: Object = {
        "initContainers": order.placed(init_containers, ours_first, plan, findings),
        "containers": main_containers if plan.native else overlay.laid(main_containers, [built.sidecar], plan.earlier),
        "volumes": merge.items(spec.get("volumes") or [], built.volumes, "volumes"),
        "terminationGracePeriodSeconds": max(target.grace(spec), needed),
    }
    metadata = pod.get("metadata") or {}
    scratch = [volumes.CONFIG_VOLUME, *(item["name"] for item in plan.storage.volumes)]
    dispensable = volumes.dispensable(metadata.get("annotations") or {}, scratch)
    marks: Object = {
        "annotations": {findings.key(STATUS): status.write(plan), **dispensable},
        "labels": {findings.key(LABEL): "true"},
    }
    metadata = merge.over(metadata, marks)
    return {**pod, "metadata": metadata, "spec": gate.without(_changed(spec, changes), findings.group)}


def _check_annotations(annotations: Mapping[str, str], findings: Findings) -> None:
    """What is added must not be what Kubernetes refuses the Pod for, in words that say nothing of the webhook."""
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    own = len(annotations[findings.key(STATUS)].encode())
    if size > LONGEST_ANNOTATIONS:
        findings.deny_field(
            "metadata.annotations",
            None,
            f"has {size} bytes together with the webhook's own {findings.key(STATUS)} ({own} bytes), and Kubernetes "
            f"takes {LONGEST_ANNOTATIONS}: use fewer or shorter annotations",
        )


def _changed(spec: Object, changes: Object) -> Object:
    """The spec with other values; a list whose items all stayed the same stays the same list."""
    kept: Object = {}
    for key, value in changes.items():
        there = spec.get(key)
        same = (
            isinstance(value, list) and there is not None and len(there) == len(value) and all(map(_is, there, value))
        )
        if not same and value != there:
            kept[key] = value
    return {**spec, **kept} if kept else spec


def _is(one: object, other: object) -> bool:
    return one is other


def _needed_grace(application: int, databases: int) -> int:
    """The application's own grace and then a final sync of each database, one after another, in seconds."""
    return application + databases * litestream.FINAL_SYNC_SECONDS + SLACK_SECONDS


def _names(spec: PodSpec, *lists: Named) -> list[str]:
    """Names of all items in these lists of a Pod's spec."""
    return [item["name"] for key in lists for item in spec.get(key) or []]


def _check_names(spec: PodSpec, findings: Findings) -> None:
    lists: tuple[Named, ...] = ("initContainers", "containers", "ephemeralContainers", "volumes")
    for key in lists:
        for item in spec.get(key) or []:
            if item["name"].startswith(volumes.PREFIX):
                why = "is a name that the webhook keeps for its own: rename it"
                findings.deny_field(f"spec.{key}", item["name"], why)


def _with_mounts(items: Sequence[Container], plan: Plan) -> Sequence[Container]:
    if not plan.storage.target_mounts:
        return items
    names, mounts = set(plan.targets), {"volumeMounts": plan.storage.target_mounts}
    return [merge.over(item, mounts) if item["name"] in names else item for item in items]
