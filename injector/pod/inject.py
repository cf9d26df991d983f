"""`inject`: a Pod → the same Pod with Litestream in it. Pure, and the same again when applied twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from injector.annotations import settings
from injector.annotations.findings import Findings
from injector.annotations.settings import Settings
from injector.annotations.table import LABEL, STATUS, group
from injector.errors import InvalidPod, Violation
from injector.options import Options
from injector.pod import containers, litestream, merge, order, replica, status, target, volumes
from injector.pod.replica import Identity
from injector.pod.volumes import Object, Storage

SLACK_SECONDS = 5  # between the last final sync and SIGKILL
# One environment variable of a process can hold 128 KiB (Linux' MAX_ARG_STRLEN); the config is one.
LONGEST_CONFIG = 120 * 1024


class Injection(NamedTuple):
    """An injected Pod, what its author should know, and what its replicas are.

    `replicas` maps each database to its path in the bucket. `exclusive`: every path holds the Pod's own
    stable name, so that no other Pod can write there.
    """

    pod: Object
    warnings: list[str]
    settings: Settings
    replicas: dict[str, str]
    exclusive: bool


def inject(pod: Object, identity: Identity, options: Options) -> Injection:
    """The Pod with Litestream in it; what is not ours stays the very same object.

    Args:
        pod: a Pod (or a Pod template) whose annotations ask for injection; already injected ones too.
        identity: whose databases they are, for the paths of their replicas.
        options: the operator's.

    Raises:
        InvalidPod: with every violation, and the warnings.
    """
    findings = Findings(group(options.variant))
    metadata, spec = pod.get("metadata") or {}, pod["spec"]
    own = settings.ours(metadata, findings.group)
    asked = settings.read(own, options, findings)
    earlier = status.read(own, asked.containers, _names(spec, "initContainers", "containers"), findings)
    if earlier is None and STATUS not in own:
        _check_names(spec, findings)
    targets = target.targets(spec, asked, earlier.containers if earlier else None, options, findings)
    user = target.user(targets, spec, asked, options, findings)
    storage = volumes.plan(spec, targets, asked, findings)
    replicas = replica.paths(asked, identity, options.replica_prefix, findings)
    sources = replica.sources(asked, identity, replicas, findings)
    target.check(spec, targets, asked, identity, storage, options, findings)
    if findings.violations:
        raise InvalidPod(findings.violations, findings.warnings)

    grace = earlier.grace_period if earlier else target.grace(spec)
    credentials = target.credentials(asked, targets)
    first = [
        containers.init(asked, replicas, sources, storage, user),
        *containers.checks(asked, replicas, storage, user, credentials),
        *containers.restores(asked, replicas, sources, storage, user, credentials),
    ]
    sidecar = containers.replicate(asked, replicas, storage, user, credentials, grace)
    last = containers.first_syncs(asked, replicas, storage, user, credentials)
    added = [volumes.config_volume(), *storage.volumes]
    if any(len((entry.get("value") or "").encode()) > LONGEST_CONFIG for entry in first[0]["env"]):
        findings.deny(
            "path",
            None,
            "names more databases than one Litestream config can hold: use fewer, or shorter paths",
        )
    if earlier:
        # Pods of earlier versions have no check (and nothing that waits): they get it, and are not denied for it.
        expected = [item["name"] for item in [*first, sidecar, *added] if item["name"] != containers.CHECK]
        present = _names(spec, "initContainers", "containers", "volumes")
        status.check(own[STATUS], earlier, replicas, expected, present, findings)
    if findings.violations:
        raise InvalidPod(findings.violations, findings.warnings)

    names = [target["name"] for target in targets]
    native = asked.sidecar == "native"
    before = earlier.image if earlier else asked.image.reference
    init_containers, main_containers = (
        _with_mounts(_with_image(spec.get(key) or [], before, asked), names, storage)
        for key in ("initContainers", "containers")
    )
    changes: Object = {
        "initContainers": order.placed(
            init_containers, [*first, sidecar, *last] if native else first, names, storage, asked, options, findings
        ),
        "containers": main_containers if native else order.laid(main_containers, [sidecar]),
        "volumes": merge.items(spec.get("volumes") or [], added, "volumes"),
        "terminationGracePeriodSeconds": max(target.grace(spec), _needed_grace(grace, len(replicas))),
    }
    marks: Object = {
        "annotations": {findings.key(STATUS): status.write(asked, replicas, names, grace)},
        "labels": {findings.key(LABEL): "true"},
    }
    injected = {**pod, "metadata": merge.over(metadata, marks), "spec": _changed(spec, changes)}
    exclusive = identity.stable_name is not None and _names_the_pod(asked.replica_path, identity)
    return Injection(injected, findings.warnings, asked, replicas, exclusive)


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


def _names_the_pod(template: str, identity: Identity) -> bool:
    own = [f"{{{key}}}" for key in ("workload", "pod") if identity.known.get(key) == identity.stable_name]
    return any(placeholder in template for placeholder in own)


def _names(spec: Mapping[str, Any], *lists: str) -> list[str]:
    """Names of all items in these lists of a Pod's spec."""
    return [item["name"] for key in lists for item in spec.get(key) or []]


def _check_names(spec: Mapping[str, Any], findings: Findings) -> None:
    for key in ("initContainers", "containers", "ephemeralContainers", "volumes"):
        findings.violations.extend(
            Violation(f"spec.{key}", item["name"], "is a name that the webhook keeps for its own: rename it")
            for item in spec.get(key) or []
            if item["name"].startswith(volumes.PREFIX)
        )


def _with_image(items: list[Object], before: str, asked: Settings) -> list[Object]:
    """Our containers with the image that is asked for now, where they still have the one of the earlier call."""
    if before == asked.image.reference:
        return items
    return [
        {**item, "image": asked.image.reference}
        if item["name"].startswith(volumes.PREFIX) and item.get("image") == before
        else item
        for item in items
    ]


def _with_mounts(items: list[Object], targets: Sequence[str], storage: Storage) -> list[Object]:
    if not storage.target_mounts:
        return items
    mounts: Object = {"volumeMounts": storage.target_mounts}
    names = set(targets)
    return [merge.over(item, mounts) if item["name"] in names else item for item in items]
