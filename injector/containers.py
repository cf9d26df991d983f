"""The injected containers: the one that writes the config, the restores, and the sidecar that replicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from injector import litestream, scripts, volumes
from injector.settings import Settings
from injector.volumes import Object, Storage

INIT = "litestream-hook-init"
CHECK = "litestream-hook-check"
RESTORE = "litestream-hook-restore"
RESTORE_FROM = "litestream-hook-restore-from"
REPLICATE = "litestream-hook-replicate"
FIRST_SYNC = "litestream-hook-first-sync"


@dataclass(frozen=True)
class User:
    """Whom Litestream runs as: the application, by its user, group and SELinux label."""

    uid: int
    gid: int | None
    selinux: Mapping[str, Any] | None = None


def security_context(user: User) -> Object:
    """What the `restricted` Pod Security Standard asks for, and a read-only root."""
    context: Object = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsUser": user.uid,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if user.uid != 0:
        context["runAsNonRoot"] = True
    if user.gid is not None:
        context["runAsGroup"] = user.gid
    if user.selinux:
        context["seLinuxOptions"] = dict(user.selinux)
    return context


def init(
    settings: Settings, replicas: Mapping[str, str], sources: Mapping[str, str], storage: Storage, user: User
) -> Object:
    """The container that writes the config and clears what would defeat the restores."""
    environment = [{"name": "LITESTREAM_CONFIG", "value": litestream.config(settings, replicas)}]
    if sources:
        environment.append({"name": "LITESTREAM_RESTORE_FROM", "value": litestream.config(settings, sources)})
    if settings.restore != "off":
        environment.append({"name": "LITESTREAM_DATABASES", "value": "\n".join(replicas)})
    return {
        "name": INIT,
        "image": settings.init_image.reference,
        "command": ["/bin/sh", "-eu", "-c", scripts.INIT],
        "env": environment + storage.environment,
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "32Mi"}},
        "securityContext": security_context(user),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [volumes.config_mount(), *_mounts(storage, replicas)],
    }


def checks(
    settings: Settings, replicas: Mapping[str, str], storage: Storage, user: User, credentials: Credentials
) -> list[Object]:
    """The container that refuses a local database which would overwrite a newer replica; [] where none can be there."""
    lasting = [database for database in replicas if database in storage.lasting]
    if not lasting or settings.restore == "off" or not litestream.can_check(settings):
        return []
    container = _litestream(CHECK, [], lasting, settings, storage, user, credentials)
    del container["args"]
    container["command"] = ["/bin/sh", "-eu", "-c", scripts.CHECK]
    container["env"] += [
        {"name": "LITESTREAM_DATABASES", "value": "\n".join(lasting)},
        {"name": "LITESTREAM_LOCAL_DATABASE", "value": settings.local_database or "ask"},
    ]
    return [container]


def restores(
    settings: Settings,
    replicas: Mapping[str, str],
    sources: Mapping[str, str],
    storage: Storage,
    user: User,
    credentials: Credentials,
) -> list[Object]:
    """The containers that restore each database, from its own replica and then, if asked for, from another."""
    if settings.restore == "off":
        return []
    result = []
    for number, database in enumerate(replicas):
        arguments = litestream.restore_arguments(settings, database)
        result.append(_litestream(f"{RESTORE}-{number}", arguments, [database], settings, storage, user, credentials))
        if database in sources:
            arguments = litestream.restore_from_arguments(settings, database)
            result.append(
                _litestream(f"{RESTORE_FROM}-{number}", arguments, [database], settings, storage, user, credentials)
            )
    return result


def replicate(
    settings: Settings,
    replicas: Mapping[str, str],
    storage: Storage,
    user: User,
    credentials: Credentials,
    application_grace: int,
) -> Object:
    """The sidecar.

    Before it ends it makes sure that it has seen every database (see `scripts.SYNC`). As an ordinary container it
    sleeps while the application may still write.
    """
    arguments = litestream.replicate_arguments()
    container = _litestream(REPLICATE, arguments, list(replicas), settings, storage, user, credentials)
    seconds = litestream.SEEN_SECONDS
    if settings.sidecar == "native":
        container["restartPolicy"] = "Always"
    else:
        seconds = max(application_grace, seconds)
    container["lifecycle"] = {"preStop": {"sleep": {"seconds": seconds}}}
    if settings.sidecar == "native" and litestream.can_sync(settings):
        container["lifecycle"] = {"preStop": {"exec": {"command": ["/bin/sh", "-c", scripts.SYNC]}}}
        container["env"].append({"name": "LITESTREAM_DATABASES", "value": "\n".join(replicas)})
    if settings.metrics_port is not None:
        container["ports"] = [{"name": "litestream", "containerPort": settings.metrics_port, "protocol": "TCP"}]
    if (command := litestream.probe(settings)) is not None:
        container["startupProbe"] = {
            "exec": {"command": command},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 120,
        }
        container["livenessProbe"] = {
            "exec": {"command": command},
            "periodSeconds": 30,
            "timeoutSeconds": 10,
            "failureThreshold": 4,
        }
    return container


def first_syncs(settings: Settings, replicas: Mapping[str, str], storage: Storage, user: User) -> list[Object]:
    """The container that holds the application back until restored databases are replicated again; [] if none can be.

    A database on a volume that outlives the Pod is not lost with it: nothing waits for that one.
    """
    fleeting = [database for database in replicas if database not in storage.lasting]
    waits = settings.first_sync == "wait" and settings.sidecar == "native" and litestream.can_sync(settings)
    if not (fleeting and waits):
        return []
    container = _litestream(FIRST_SYNC, [], fleeting, settings, storage, user, Credentials([]))
    del container["args"]
    container["command"] = ["/bin/sh", "-eu", "-c", scripts.FIRST_SYNC]
    container["env"].append({"name": "LITESTREAM_DATABASES", "value": "\n".join(fleeting)})
    return [container]


@dataclass(frozen=True)
class Credentials:
    """How Litestream gets into the bucket: environment and, for a web identity, mounts of its token."""

    environment: Sequence[Object]
    mounts: Sequence[Object] = ()


def _litestream(
    name: str,
    arguments: list[str],
    databases: Sequence[str],
    settings: Settings,
    storage: Storage,
    user: User,
    credentials: Credentials,
) -> Object:
    limits = {"memory": settings.memory_limit.text}
    if settings.cpu_limit is not None:
        limits["cpu"] = settings.cpu_limit.text
    # Nine tenths of the limit: the garbage collector works harder before the kernel has to kill.
    memory = int(settings.memory_limit.amount * 9 / 10)
    return {
        "name": name,
        "image": settings.image.reference,
        "args": arguments,
        "env": [*credentials.environment, {"name": "GOMEMLIMIT", "value": str(memory)}, *storage.environment],
        "resources": {
            "requests": {"cpu": settings.cpu_request.text, "memory": settings.memory_request.text},
            "limits": limits,
        },
        "securityContext": security_context(user),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [volumes.config_mount(), *_mounts(storage, databases), *credentials.mounts],
    }


def _mounts(storage: Storage, databases: Sequence[str] | Mapping[str, str]) -> list[Object]:
    """Each mount once, parents before what is mounted inside them."""
    by_path = {storage.mounts[database]["mountPath"]: storage.mounts[database] for database in databases}
    return volumes.outer_first(by_path.values())
