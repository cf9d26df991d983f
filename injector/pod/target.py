"""The application in a Pod: which containers use the databases, as whom, and how they get into the bucket."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from injector.annotations.findings import Findings
from injector.annotations.settings import Settings
from injector.annotations.table import similar
from injector.pod import containers, litestream, volumes
from injector.pod.plan import LONGEST_GRACE_SECONDS, Credentials, Plan, User
from injector.pod.replica import Identity
from injector.pod.shapes import Container, PodSpec, SecurityContext, VolumeMount
from injector.values import LITESTREAM_IMAGE, Quantity, quantity

MOST_MEANT = 3  # unknown names that a similar one is looked for: each look is slow
DEFAULT_GRACE_SECONDS = 30  # Kubernetes' own, where a Pod names none
# What AWS' own webhooks (IRSA, EKS Pod Identity) put into a container for the SDKs to find.
IDENTITY_VARIABLES = (
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_STS_REGIONAL_ENDPOINTS",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
# What images that start as root take the user from whom they drop to: linuxserver.io and its kin, Gitea, sameersbn's.
DROPS: dict[str, tuple[str, ...]] = {
    "runAsUser": ("PUID", "USER_UID", "USERMAP_UID", "UID"),
    "runAsGroup": ("PGID", "USER_GID", "USERMAP_GID", "GID"),
}
TOKEN_FILES = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE")


def targets(spec: PodSpec, settings: Settings, earlier: Sequence[str] | None, findings: Findings) -> list[Container]:
    """The containers that use the databases.

    Args:
        spec: the Pod's.
        settings: with the names that the annotation `containers` gives.
        earlier: the names that an earlier call recorded; None at the first.
        findings: takes a violation where there are none.
    """
    init, main = spec.get("initContainers") or [], spec["containers"]
    by_name = {item["name"]: item for item in [*init, *main]}
    if earlier is not None:
        return [by_name[name] for name in earlier if name in by_name]
    if settings.containers is None:
        found = [
            item
            for item in main
            if item["name"] not in settings.options.skip_containers and not item["name"].startswith(volumes.PREFIX)
        ]
        if not found:
            findings.deny(
                "containers",
                None,
                "is needed, as all containers of the Pod are known proxies: write the name of the one that uses the "
                "databases",
            )
        if len(found) * len(settings.path) > volumes.MOST_USES:  # `volumes.plan` denies it
            return found
        # A container without the volume that a database lies on has nothing to do with it.
        return volumes.holding(found, settings.path) or found
    known = [name for name in by_name if not name.startswith(volumes.PREFIX)]
    choice = ", ".join(known)[:200]
    for number, name in enumerate(name for name in settings.containers if name not in by_name):
        meant = similar(name, known) if number < MOST_MEANT else ""
        findings.deny(
            "containers",
            ",".join(settings.containers),
            f"the Pod has no container {name}{meant}: write one or more of {choice}",
        )
    if not settings.init_first and "init-first" not in settings.broken:
        for name in [item["name"] for item in init if item["name"] in settings.containers]:
            findings.deny(
                "init-first",
                "false",
                f'init container {name} uses the databases and would run before they are restored: write "true"',
            )
    return [by_name[name] for name in settings.containers if name in by_name]


class _Id(NamedTuple):
    """One of the two ids that Litestream shares with the application: where each party writes it."""

    annotation: Literal["run-as-user", "run-as-group"]
    field: Literal["runAsUser", "runAsGroup"]
    written: int | None
    default: int | None = None


def user(targets: Sequence[Container], spec: PodSpec, settings: Settings, findings: Findings) -> User:
    """Whom Litestream runs as: any other user than the database's owner breaks the one or the other."""
    contexts = {target["name"]: _context(target, spec) for target in targets}
    selinux = [context["seLinuxOptions"] for context in contexts.values() if context.get("seLinuxOptions")]
    default = settings.options.default_run_as_user
    for target in targets:
        _drop(target, contexts[target["name"]], settings, findings)
    uid = _same(_Id("run-as-user", "runAsUser", settings.run_as_user, default), contexts, settings, findings)
    gid = _same(_Id("run-as-group", "runAsGroup", settings.run_as_group), contexts, settings, findings)
    unknown = [name for name, context in contexts.items() if context.get("runAsUser") is None]
    if uid is None and unknown and not settings.broken & {"run-as-user", "containers"} and default is None:
        findings.deny(
            "run-as-user",
            None,
            "is needed: Litestream must run as the user that owns the database file, and container "
            f'{unknown[0]} names none: write its uid, such as "1000", or set securityContext.runAsUser; '
            f"`kubectl exec … -c {unknown[0]} -- stat -c %u {_first(settings)}` tells it where the application runs",
        )
    if uid == 0:
        _check_root(contexts, settings, findings)
    return User(uid or 0, gid, selinux[0] if selinux else None)


def _first(settings: Settings) -> str:
    return next((path for path in settings.path if re.fullmatch(r"[A-Za-z0-9._/-]+", path)), "PATH")


def _drops_to(target: Container) -> dict[str, tuple[str, int]]:
    """The uid and gid that an image which starts as root drops to: by each field, the variable and its number."""
    environment = {entry["name"]: entry.get("value") or "" for entry in target.get("env") or []}
    found: dict[str, tuple[str, int]] = {}
    for field, names in DROPS.items():
        for name in names:
            if re.fullmatch(r"[0-9]{1,9}", number := environment.get(name, "")) and field not in found:
                found[field] = (name, int(number))
    return found


def _drop(target: Container, context: SecurityContext, settings: Settings, findings: Findings) -> None:
    """Puts in a container's context what its image drops to, where its securityContext says 0 or nothing."""
    name, drops = target["name"], {} if context["runAsUser"] else _drops_to(target)
    if "runAsUser" not in drops:
        return
    variable, uid = drops["runAsUser"]
    if settings.run_as_user == 0 and uid != 0:
        findings.deny(
            "run-as-user",
            "0",
            f"container {name} starts as root and drops to the user that {variable} names, who owns the database: "
            f'write "{uid}"',
        )
        return
    context["runAsUser"] = uid
    if "runAsGroup" in drops and not context["runAsGroup"]:
        context["runAsGroup"] = drops["runAsGroup"][1]
    if settings.run_as_user is None:
        findings.warn(
            f"Litestream runs as user {uid}, to which container {name} drops by its {variable}; if another user owns "
            f"the database, write {findings.key('run-as-user')}"
        )


def _check_root(contexts: Mapping[str, SecurityContext], settings: Settings, findings: Findings) -> None:
    strict = [name for name, context in contexts.items() if context.get("runAsNonRoot")]
    if strict:
        findings.deny(
            "run-as-user",
            "0" if settings.run_as_user == 0 else None,
            f"is root, and container {strict[0]} has runAsNonRoot: true, so the kubelet would not start it: write "
            'the uid of the user that owns the database file, such as "1000"',
        )
    elif "run-as-user" not in settings.broken:
        findings.warn(
            "Litestream runs as root, without capabilities: if the application starts as root and drops to another "
            f"user, nothing is replicated; write that user's id in {findings.key('run-as-user')} then"
        )


def _context(target: Container, spec: PodSpec) -> SecurityContext:
    """A container's effective securityContext: its own fields, else the Pod's."""
    of_pod, of_container = spec.get("securityContext") or {}, target.get("securityContext") or {}

    def effective(field: Literal["runAsUser", "runAsGroup"]) -> int | None:
        own = of_container.get(field)
        return of_pod.get(field) if own is None else own

    strict = of_container.get("runAsNonRoot")
    return {
        "runAsUser": effective("runAsUser"),
        "runAsGroup": effective("runAsGroup"),
        "runAsNonRoot": of_pod.get("runAsNonRoot") if strict is None else strict,
        "seLinuxOptions": of_container.get("seLinuxOptions") or of_pod.get("seLinuxOptions"),
    }


def _same(wanted: _Id, contexts: Mapping[str, SecurityContext], settings: Settings, findings: Findings) -> int | None:
    """The id that all targets have, or None and (where they differ) a violation."""
    declared = {name: number for name, context in contexts.items() if (number := context[wanted.field]) is not None}
    if wanted.written is not None:
        if declared and wanted.written not in declared.values():
            name, number = next(iter(declared.items()))
            findings.warn(
                f"{findings.key(wanted.annotation)} is {wanted.written}, but container {name} declares {wanted.field} "
                f"{number}: Litestream and the application must be the same user to share files"
            )
        return wanted.written
    if settings.broken & {wanted.annotation, "containers"}:
        return None
    known = {name: declared.get(name, wanted.default) for name in contexts}
    known = {name: number for name, number in known.items() if number is not None}
    if len(set(known.values())) > 1:
        each = ", ".join(f"{name} {number}" for name, number in known.items())[:200]
        findings.deny(
            wanted.annotation,
            None,
            f"is needed: the containers that may use the databases have different {wanted.field} ({each}): write "
            f"the one that owns the databases, or name that container in {findings.key('containers')}",
        )
        return None
    if len(known) == len(contexts) or wanted.field == "runAsGroup":
        return next(iter(known.values()), None)
    return None


def check(spec: PodSpec, plan: Plan, identity: Identity, findings: Findings) -> None:
    """What of the Pod itself stands in the way."""
    settings, storage, main = plan.settings, plan.storage, spec["containers"]
    _check_other_litestream(spec, settings, findings)
    if _is_windows(spec):
        findings.deny(
            "inject",
            "true",
            'does not work in a Windows Pod, as Litestream\'s image is for Linux: write "false"',
        )
    if settings.sidecar == "container":
        if identity.finishes:
            findings.deny("sidecar", "container", 'would keep the Job from ever finishing: write "native"')
        else:
            findings.warn(
                f'{findings.key("sidecar")} "container": Litestream stops {max(grace(spec), 1)} s (the application\'s '
                "grace period) after the Pod is told to end, and rows written later are lost; "
                '"native" stops after the application'
            )
    if not 0 <= plan.grace <= LONGEST_GRACE_SECONDS:
        findings.deny_field(
            "spec.terminationGracePeriodSeconds",
            str(plan.grace),
            f"is no time that a Pod can have to end: write seconds from 0 to {LONGEST_GRACE_SECONDS}, such as 30",
        )
    _check_image(plan, findings)
    if storage.lasting and settings.restore != "off" and not litestream.can_list(settings):
        findings.warn(
            f"this image can't determine whether {', '.join(sorted(storage.lasting))[:200]} on its volume is older "
            f"than its replica, and an older one would overwrite it: use {LITESTREAM_IMAGE}"
        )
    if settings.restore_from is not None and storage.lasting and settings.local_database is None:
        findings.warn(
            f"{findings.key('restore-from')}: where {', '.join(sorted(storage.lasting))[:200]} is on its volume "
            f'already, the Pod waits: write {findings.key("local-database")} "replace" to move it aside and restore, '
            'once, or "keep" to go on with it'
        )
    _check_resources(spec, plan, findings)
    proxies = [item["name"] for item in main if item["name"] in settings.options.skip_containers]
    names = set(plan.target_names)
    for name in proxies:
        if name not in names:
            findings.warn(
                f"proxy {name} is an ordinary container and ends with the application, before Litestream's final sync: "
                "the last rows can be lost; run it as a native sidecar"
            )
    if settings.metrics_port is not None:
        for item in [*main, *(spec.get("initContainers") or [])]:
            ports = [entry.get("containerPort") for entry in item.get("ports") or []]
            if settings.metrics_port in ports and item["name"] != containers.REPLICATE:
                findings.deny(
                    "metrics-port",
                    str(settings.metrics_port),
                    f"is taken by container {item['name']}: write another, such as "
                    f"{_free_port(settings.metrics_port, ports)}",
                )


def _check_resources(spec: PodSpec, plan: Plan, findings: Findings) -> None:
    """Resources of the Pod as a whole hold for all its containers (core/v1 PodSpec.resources): ours have to fit in."""
    whole = spec.get("resources") or {}
    settings = plan.settings
    requests = {"cpu": settings.cpu_request, "memory": settings.memory_request}
    limits = {"cpu": settings.cpu_limit, "memory": settings.memory_limit}
    running = [
        *spec["containers"],
        *(i for i in spec.get("initContainers") or [] if i.get("restartPolicy") == "Always"),
    ]
    others = [item for item in running if not item["name"].startswith(volumes.PREFIX)]
    for resource in ("cpu", "memory"):
        most = _quantity(whole.get("requests"), resource)
        own = requests[resource]
        if most is not None:
            asked = [_quantity((item.get("resources") or {}).get("requests"), resource) for item in others]
            needed = sum((each.amount for each in asked if each is not None), own.amount)
            if needed > most.amount:
                findings.deny_field(
                    f"spec.resources.requests.{resource}",
                    most.text,
                    f"is less than the Pod's containers ask for together with Litestream ({own.text}): write more, "
                    f"or a smaller {findings.key(f'{resource}-request')}",
                )
        limit, mine = _quantity(whole.get("limits"), resource), limits[resource]
        if limit is not None and mine is not None and mine.amount > limit.amount:
            findings.deny_field(
                f"spec.resources.limits.{resource}",
                limit.text,
                f"is less than Litestream's limit ({mine.text}): write more, or a smaller "
                f"{findings.key(f'{resource}-limit')}",
            )


def _quantity(amounts: object, resource: str) -> Quantity | None:
    text = amounts.get(resource) if isinstance(amounts, dict) else None
    try:
        return None if text is None else quantity(str(text))
    except ValueError:
        return None


def _is_windows(spec: PodSpec) -> bool:
    selected = (spec.get("nodeSelector") or {}).get("kubernetes.io/os") == "windows"
    options = [(spec.get("securityContext") or {}).get("windowsOptions")]
    options += [(item.get("securityContext") or {}).get("windowsOptions") for item in spec["containers"]]
    host = any((option or {}).get("hostProcess") for option in options)
    return (spec.get("os") or {}).get("name") == "windows" or selected or host


def _check_other_litestream(spec: PodSpec, settings: Settings, findings: Findings) -> None:
    """Two Litestreams on one file destroy their replicas: at least one of two could not be restored in 4 of 4 runs."""
    if settings.single_writer == "off":
        return
    for item in [*(spec.get("initContainers") or []), *spec["containers"]]:
        if item["name"].startswith(volumes.PREFIX) or not _replicates(item):
            continue
        right = (
            f"container {item['name']} runs a Litestream of its own, and two on one database destroy its replicas: "
            "take that container out; to go on with its replica, write its path in the bucket in "
            f"{findings.key('replica-path')}"
        )
        if settings.single_writer == "warn":
            findings.warn(right)
        else:
            findings.deny("single-writer", "enforce", right)


def _replicates(item: Container) -> bool:
    """Whether a container runs `litestream replicate`, alone (the image's own entrypoint) or around the application."""
    command = [*(item.get("command") or []), *(item.get("args") or [])]
    words = " ".join(command).split()
    named = (item.get("image") or "").partition("@")[0].rpartition("/")[2].partition(":")[0] == "litestream"
    at = next((index for index, word in enumerate(words) if word.rpartition("/")[2] == "litestream"), None)
    verb = words[at + 1 : at + 2] if at is not None else words[:1] if named else []
    return verb == ["replicate"]


def _check_image(plan: Plan, findings: Findings) -> None:
    """What the image can't do, or does not say that it can."""
    settings = plan.settings
    if "first-sync" in settings.given and settings.first_sync != "background" and not containers.first_syncs(plan):
        findings.warn(
            f"{findings.key('first-sync')} has no effect here: it needs a volume that ends with the Pod, a native "
            "sidecar, and Litestream 0.5.8 or newer in an image with a shell"
        )
    if not litestream.can_list(settings):
        findings.warn(
            f"{findings.key('image')} has no shell, or a Litestream before 0.5.8: nothing starts Litestream again at "
            "once when it dies, and nobody says when a database can't be replicated; rows can be lost in both cases: "
            f"use {LITESTREAM_IMAGE}"
        )
    elif not litestream.tells_shell(settings):
        findings.warn(
            f"{findings.key('image')}: the tag does not say whether the image has a shell and sqlite3, which all "
            f"injected containers need to lose no row: use {LITESTREAM_IMAGE} if they can't start"
        )


def _free_port(taken: int, ports: Sequence[object]) -> int:
    """Another port; any will do as a suggestion where a container lists thousands."""
    return next((port for port in range(taken + 1, taken + 100) if port not in ports and port < 65536), 9090)


def credentials(settings: Settings, targets: Sequence[Container]) -> Credentials:
    """How Litestream gets into the bucket: by the Secret, or as the application does (`auth: ambient`).

    Args:
        settings: with the way and the Secret's name.
        targets: whose AWS identity, as other webhooks have given it to them, Litestream shares.
    """
    if settings.auth == "secret":
        keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        return Credentials(
            [{"name": key, "valueFrom": {"secretKeyRef": {"name": settings.secret, "key": key}}} for key in keys]
        )
    for target in targets:
        # A name that stands twice has its last value, as in the container itself.
        found = {entry["name"]: entry for entry in target.get("env") or [] if entry["name"] in IDENTITY_VARIABLES}
        if found:
            files = [found[name].get("value") or "" for name in TOKEN_FILES if name in found]
            mounts = {mount["mountPath"]: mount for file in files if (mount := _mount_of(file, target))}
            read_only: list[VolumeMount] = [{**mount, "readOnly": True} for mount in mounts.values()]
            return Credentials([*found.values()], read_only)
    return Credentials()


def _mount_of(file: str, target: Container) -> VolumeMount | None:
    """The container's mount that a file lies in."""
    parents = [
        mount
        for mount in target.get("volumeMounts") or []
        if file.startswith(volumes.absolute(mount["mountPath"]) + "/")
    ]
    return max(parents, key=lambda mount: len(mount["mountPath"]), default=None)


def grace(spec: PodSpec) -> int:
    """The Pod's grace period, in seconds."""
    seconds = spec.get("terminationGracePeriodSeconds")
    return DEFAULT_GRACE_SECONDS if seconds is None else int(seconds)
