"""The application in a Pod: which containers use the databases, as whom, and how they get into the bucket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from injector.annotations.findings import Findings
from injector.annotations.settings import Settings
from injector.annotations.table import similar
from injector.options import Options
from injector.pod import containers, litestream, volumes
from injector.pod.containers import Credentials, User
from injector.pod.replica import Identity
from injector.pod.volumes import Object, Storage

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
TOKEN_FILES = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE")


def targets(
    spec: Mapping[str, Any],
    asked: Settings,
    earlier: Sequence[str] | None,
    options: Options,
    findings: Findings,
) -> list[Object]:
    """The containers that use the databases."""
    init, main = spec.get("initContainers") or [], spec["containers"]
    by_name: dict[str, Object] = {item["name"]: item for item in [*init, *main]}
    if earlier is not None:
        return [by_name[name] for name in earlier if name in by_name]
    if asked.containers is None:
        found = [
            item
            for item in main
            if item["name"] not in options.skip_containers and not item["name"].startswith(volumes.PREFIX)
        ]
        if not found:
            findings.deny(
                "containers",
                None,
                "is needed, as all containers of the Pod are known proxies: write the name of the one that uses the "
                "databases",
            )
        return found
    known = [name for name in by_name if not name.startswith(volumes.PREFIX)]
    for name in asked.containers:
        if name not in by_name:
            findings.deny(
                "containers",
                ",".join(asked.containers),
                f"the Pod has no container {name}{similar(name, known)}: write one or more of {', '.join(known)[:200]}",
            )
    if not asked.init_first and "init-first" not in asked.broken:
        for name in [item["name"] for item in init if item["name"] in asked.containers]:
            findings.deny(
                "init-first",
                "false",
                f'init container {name} uses the databases and would run before they are restored: write "true"',
            )
    return [by_name[name] for name in asked.containers if name in by_name]


def user(
    targets: Sequence[Mapping[str, Any]],
    spec: Mapping[str, Any],
    asked: Settings,
    options: Options,
    findings: Findings,
) -> User:
    """Whom Litestream runs as: any other user than the application's breaks the one or the other."""
    contexts = {target["name"]: _context(target, spec) for target in targets}
    selinux = [context["seLinuxOptions"] for context in contexts.values() if context.get("seLinuxOptions")]
    uid = _same_id(
        "run-as-user", "runAsUser", asked.run_as_user, contexts, options.default_run_as_user, asked, findings
    )
    gid = _same_id("run-as-group", "runAsGroup", asked.run_as_group, contexts, None, asked, findings)
    if uid is None and contexts and not asked.broken & {"run-as-user", "containers"}:
        unknown = [name for name, context in contexts.items() if context.get("runAsUser") is None]
        if unknown and options.default_run_as_user is None:
            findings.deny(
                "run-as-user",
                None,
                f"is needed: Litestream must run as the application's user, and container {unknown[0]} names "
                'none: write the uid that its image runs as, such as "1000", or set '
                "securityContext.runAsUser",
            )
    return User(uid or 0, gid, selinux[0] if selinux else None)


def _context(target: Mapping[str, Any], spec: Mapping[str, Any]) -> Object:
    """A container's effective securityContext: its own fields, else the Pod's."""
    of_pod = spec.get("securityContext") or {}
    of_container = target.get("securityContext") or {}
    return {
        key: of_container.get(key) if of_container.get(key) is not None else of_pod.get(key)
        for key in ("runAsUser", "runAsGroup", "seLinuxOptions")
    }


def _same_id(
    key: str,
    field: str,
    written: int | None,
    contexts: Mapping[str, Object],
    default: int | None,
    asked: Settings,
    findings: Findings,
) -> int | None:
    """The id that all targets have, or None and (where they differ) a violation."""
    known = {
        name: number
        for name, context in contexts.items()
        if (number := context[field] if context[field] is not None else default) is not None
    }
    if written is not None:
        declared_ids = {name: context[field] for name, context in contexts.items() if context[field] is not None}
        if declared_ids and written not in declared_ids.values():
            name, declared = next(iter(declared_ids.items()))
            findings.warn(
                f"{findings.key(key)} is {written}, but container {name} declares {field} {declared}: "
                "Litestream and the application must be the same user to share files"
            )
        return written
    if asked.broken & {key, "containers"}:
        return None
    if len(set(known.values())) > 1:
        each = ", ".join(f"{name} {number}" for name, number in known.items())[:200]
        findings.deny(
            key,
            None,
            f"is needed: the containers that may use the databases have different {field} ({each}): write "
            f"the one that owns the databases, or name that container in {findings.key('containers')}",
        )
        return None
    if len(known) == len(contexts) or field == "runAsGroup":
        return next(iter(known.values()), None)
    return None


def check(
    spec: Mapping[str, Any],
    targets: Sequence[Mapping[str, Any]],
    asked: Settings,
    identity: Identity,
    storage: Storage,
    options: Options,
    findings: Findings,
) -> None:
    """What of the Pod itself stands in the way."""
    main = spec["containers"]
    if (spec.get("os") or {}).get("name") == "windows":
        findings.deny(
            "inject",
            "true",
            'does not work in a Windows Pod, as Litestream\'s image is for Linux: write "false"',
        )
    if asked.sidecar == "container":
        if identity.finishes:
            findings.deny("sidecar", "container", 'would keep the Job from ever finishing: write "native"')
        else:
            findings.warn(
                f'{findings.key("sidecar")} "container": Litestream stops {max(grace(spec), 1)} s (the application\'s '
                "grace period) after the Pod is told to end, and rows written later are lost; "
                '"native" stops after the application'
            )
    _check_image(asked, storage, findings)
    if storage.lasting and asked.restore != "off" and not litestream.can_list(asked):
        findings.warn(
            f"this image can't determine whether {', '.join(sorted(storage.lasting))[:200]} on its volume is older "
            "than its replica, and an older one would overwrite it: use litestream/litestream:0.5.17"
        )
    proxies = [item["name"] for item in main if item["name"] in options.skip_containers]
    names = {target["name"] for target in targets}
    for name in proxies:
        if name not in names:
            findings.warn(
                f"proxy {name} is an ordinary container and ends with the application, before Litestream's final sync: "
                "the last rows can be lost; run it as a native sidecar"
            )
    if asked.metrics_port is not None:
        for item in [*main, *(spec.get("initContainers") or [])]:
            ports = [entry.get("containerPort") for entry in item.get("ports") or []]
            if asked.metrics_port in ports and item["name"] != containers.REPLICATE:
                findings.deny(
                    "metrics-port",
                    str(asked.metrics_port),
                    f"is taken by container {item['name']}: write another, such as "
                    f"{_free_port(asked.metrics_port, ports)}",
                )


def _check_image(asked: Settings, storage: Storage, findings: Findings) -> None:
    """What the image can't do, or does not say that it can."""
    waiting = containers.waiting(asked, asked.path, storage)
    if "first-sync" in asked.given and asked.first_sync == "wait" and not waiting:
        findings.warn(
            f"{findings.key('first-sync')} has no effect here: it needs a volume that ends with the Pod, a native "
            "sidecar, and Litestream 0.5.8 or newer in an image with a shell"
        )
    if litestream.can_list(asked) and not litestream.tells_shell(asked) and (waiting or storage.lasting):
        findings.warn(
            f"{findings.key('image')}: the tag does not say whether the image has a shell, which "
            f"{containers.CHECK} and {containers.FIRST_SYNC} need: use litestream/litestream:0.5.17 if they can't start"
        )


def _free_port(taken: int, ports: Sequence[object]) -> int:
    """Another port; any will do as a suggestion where a container lists thousands."""
    return next((port for port in range(taken + 1, taken + 100) if port not in ports and port < 65536), 9090)


def credentials(asked: Settings, targets: Sequence[Mapping[str, Any]]) -> Credentials:
    """How Litestream gets into the bucket: by the Secret, or as the application does (`auth: ambient`).

    Args:
        asked: with the way and the Secret's name.
        targets: whose AWS identity, as other webhooks have given it to them, Litestream shares.
    """
    if asked.auth == "secret":
        keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        return Credentials(
            [{"name": key, "valueFrom": {"secretKeyRef": {"name": asked.secret, "key": key}}} for key in keys]
        )
    for target in targets:
        # A name that stands twice has its last value, as in the container itself.
        found = {entry["name"]: dict(entry) for entry in target.get("env") or [] if entry["name"] in IDENTITY_VARIABLES}
        if found:
            files = [found[name].get("value") or "" for name in TOKEN_FILES if name in found]
            mounts = {mount["mountPath"]: mount for file in files if (mount := _mount_of(file, target))}
            return Credentials([*found.values()], [{**mount, "readOnly": True} for mount in mounts.values()])
    return Credentials([])


def _mount_of(file: str, target: Mapping[str, Any]) -> Object | None:
    """The container's mount that a file lies in."""
    parents: list[Object] = [
        mount
        for mount in target.get("volumeMounts") or []
        if file.startswith(volumes.absolute(mount["mountPath"]) + "/")
    ]
    return max(parents, key=lambda mount: len(mount["mountPath"]), default=None)


def grace(spec: Mapping[str, Any]) -> int:
    """The Pod's grace period, in seconds."""
    seconds = spec.get("terminationGracePeriodSeconds")
    return DEFAULT_GRACE_SECONDS if seconds is None else int(seconds)
