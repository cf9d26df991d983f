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
    """The user, group and SELinux label that the targets share; what is unknown or differs goes to the findings.

    The user is None where it is unknown, and the operator says that each Pod is given one when it is made.
    """
    of_pod = spec.get("securityContext") or {}
    contexts = {target["name"]: _context(target.get("securityContext"), of_pod) for target in targets}
    selinux = [context["seLinuxOptions"] for context in contexts.values() if context.get("seLinuxOptions")]
    default = settings.options.default_run_as_user
    drops: dict[str, tuple[str, int]] = {}
    for target in targets:
        context = contexts[name := target["name"]]
        if not context.get("runAsUser") and (drop := _drop(target, context, settings, findings)) is not None:
            drops[name] = drop
    number = None if default == "pod" else default
    uid = _same(_Id("run-as-user", "runAsUser", settings.run_as_user, number), contexts, settings, findings)
    gid = _same(_Id("run-as-group", "runAsGroup", settings.run_as_group), contexts, settings, findings)
    unknown = [name for name, context in contexts.items() if context.get("runAsUser") is None]
    missing = uid is None and unknown and not settings.broken & {"run-as-user", "containers"}
    choice = f", or name the one that uses it in {findings.key('containers')}" if len(targets) > 1 else ""
    if missing and default == "pod":
        findings.warn(
            f"container {unknown[0]} names no user: each Pod has to be given one when it is made, and is denied "
            f"without; {findings.key('run-as-user')} names one for all"
        )
    elif missing and default is None:
        findings.deny(
            "run-as-user",
            None,
            "is needed: Litestream must run as the user that owns the database file, and container "
            f'{unknown[0]} names none: write its uid, such as "1000", or set securityContext.runAsUser{choice}; '
            f"`kubectl exec … -c {unknown[0]} -- stat -c %u {_first(settings)}` tells it where the application runs",
        )
    if uid == 0:
        _check_root(contexts, drops, settings, findings)
    return User(uid, gid, selinux[0] if selinux else None)


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


def _drop(
    target: Container, context: SecurityContext, settings: Settings, findings: Findings
) -> tuple[str, int] | None:
    """Puts what its image drops to in the context of a container whose securityContext says 0 or nothing.

    Returns the variable that says so and its uid (0: the image stays root).
    """
    drops = _drops_to(target)
    if "runAsUser" not in drops:
        return None
    variable, uid = drops["runAsUser"]
    if settings.run_as_user == 0 and uid != 0:
        return variable, uid  # denied by `_check_root`
    context["runAsUser"] = uid
    if "runAsGroup" in drops and not context.get("runAsGroup"):
        context["runAsGroup"] = drops["runAsGroup"][1]
    if settings.run_as_user is None and uid != 0:
        findings.warn(
            f"Litestream runs as user {uid}, to which container {target['name']} drops by its {variable}; if another "
            f"user owns the database, write {findings.key('run-as-user')}"
        )
    return variable, uid


def _check_root(
    contexts: Mapping[str, SecurityContext],
    drops: Mapping[str, tuple[str, int]],
    settings: Settings,
    findings: Findings,
) -> None:
    """Where root, without capabilities, can't write what the application owns, or the kubelet would not start it."""
    written = "0" if settings.run_as_user == 0 else None
    dropping = [(name, variable, uid) for name, (variable, uid) in drops.items() if uid != 0]
    strict = [name for name, context in contexts.items() if context.get("runAsNonRoot")]
    if dropping:
        name, variable, uid = dropping[0]
        findings.deny(
            "run-as-user",
            written,
            f"container {name} starts as root and drops to the user that {variable} names, who owns the database: "
            f'write "{uid}"',
        )
    elif strict and written is None and contexts[strict[0]].get("runAsUser") == 0 and not drops:
        findings.deny_field(
            "securityContext.runAsUser",
            "0",
            f"is root, and container {strict[0]} has runAsNonRoot: true, so the kubelet would not start it: write the "
            "uid of the user that owns the database file, such as 1000",
        )
    elif strict:
        findings.deny(
            "run-as-user",
            written,
            f"is root, and container {strict[0]} has runAsNonRoot: true, so the kubelet would not start it: write "
            'the uid of the user that owns the database file, such as "1000"',
        )
    elif len(drops) < len(contexts) and "run-as-user" not in settings.broken:
        findings.warn(
            "Litestream runs as root, without capabilities: if the application starts as root and drops to another "
            f"user, nothing is replicated; write that user's id in {findings.key('run-as-user')} then"
        )


def _context(of_container: SecurityContext | None, of_pod: SecurityContext) -> SecurityContext:
    """A container's effective securityContext: its own fields, else the Pod's."""
    own = {field: value for field, value in (of_container or {}).items() if value is not None}
    return {**of_pod, **own}  # type: ignore[typeddict-item]


def _same(wanted: _Id, contexts: Mapping[str, SecurityContext], settings: Settings, findings: Findings) -> int | None:
    """The id that all targets have, or None and (where they differ) a violation."""
    field = wanted.field
    declared = {name: number for name, context in contexts.items() if (number := context.get(field)) is not None}
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
    known = declared
    if wanted.default is not None:
        known = {name: declared.get(name, wanted.default) for name in contexts}
    numbers = {*known.values()}
    if len(numbers) > 1:
        each = ", ".join(f"{name} {number}" for name, number in known.items())[:200]
        findings.deny(
            wanted.annotation,
            None,
            f"is needed: the containers that may use the databases have different {wanted.field} ({each}): write "
            f"the one that owns the databases, or name that container in {findings.key('containers')}",
        )
        return None
    if len(known) == len(contexts) or wanted.field == "runAsGroup":
        return next(iter(numbers), None)
    return None
