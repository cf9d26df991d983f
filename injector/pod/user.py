"""Whom Litestream runs as: any other user than the database's owner breaks the one or the other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from injector.annotations.findings import Findings
from injector.annotations.settings import Settings
from injector.pod.plan import User
from injector.pod.shapes import Container, PodSpec, SecurityContext

# What images that start as root take the user from whom they drop to: linuxserver.io and its kin, Gitea, sameersbn's.
DROPS: dict[str, tuple[str, ...]] = {
    "runAsUser": ("PUID", "USER_UID", "USERMAP_UID", "UID"),
    "runAsGroup": ("PGID", "USER_GID", "USERMAP_GID", "GID"),
}


class _Id(NamedTuple):
    """One of the two ids that Litestream shares with the application: where each party writes it."""

    annotation: Literal["run-as-user", "run-as-group"]
    field: Literal["runAsUser", "runAsGroup"]
    written: int | None
    default: int | None = None


def of(targets: Sequence[Container], spec: PodSpec, settings: Settings, findings: Findings) -> User:
    """The user, group and SELinux label that the targets share; what is unknown or differs goes to the findings."""
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
