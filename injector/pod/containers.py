"""The injected containers: the one that writes the config, the restores, and the sidecar that replicates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from injector import values
from injector.annotations.settings import Settings
from injector.pod import litestream, scripts, volumes
from injector.pod.plan import Plan, User
from injector.pod.shapes import EnvVar, InjectedContainer, Object, VolumeMount
from injector.pod.volumes import Storage

INIT = "litestream-hook-init"
CHECK = "litestream-hook-check"
RESTORE = "litestream-hook-restore"
RESTORE_FROM = "litestream-hook-restore-from"
REPLICATE = "litestream-hook-replicate"
FIRST_SYNC = "litestream-hook-first-sync"


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


def init(plan: Plan) -> InjectedContainer:
    """The container that writes the config and clears what would defeat the restores."""
    settings = plan.settings
    environment: list[EnvVar] = [{"name": "LITESTREAM_CONFIG", "value": litestream.config(settings, plan.replicas)}]
    if plan.sources:
        environment.append({"name": "LITESTREAM_RESTORE_FROM", "value": litestream.config(settings, plan.sources)})
    if settings.restore != "off":
        environment.append({"name": "LITESTREAM_DATABASES", "value": "\n".join(plan.replicas)})
    return {
        "name": INIT,
        "image": settings.init_image.reference,
        "command": ["/bin/sh", "-eu", "-c", scripts.INIT],
        "env": environment + plan.storage.environment,
        "resources": _small(settings, "16Mi", "32Mi"),
        "securityContext": security_context(plan.user),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [volumes.config_mount(), *_mounts(plan.storage, plan.replicas)],
    }


def checks(plan: Plan) -> list[InjectedContainer]:
    """The container that refuses a local database which would overwrite a newer replica; [] where none can be told.

    It also notes what is about to be restored, for `first_syncs`.
    """
    settings, noted = plan.settings, waiting(plan)
    checked = [database for database in plan.replicas if database in plan.storage.lasting or database in noted]
    if not checked or settings.restore == "off" or not litestream.can_list(settings):
        return []
    container = _script(plan, CHECK, scripts.CHECK, checked)
    container["env"].append({"name": "LITESTREAM_LOCAL_DATABASE", "value": settings.local_database or "ask"})
    return [container]


def restores(plan: Plan) -> list[InjectedContainer]:
    """The containers that restore each database, from its own replica and then, if asked for, from another."""
    if plan.settings.restore == "off":
        return []
    result = []
    for number, database in enumerate(plan.replicas):
        arguments = litestream.restore_arguments(plan.settings, database)
        result.append(_litestream(plan, f"{RESTORE}-{number}", arguments, [database]))
        if database in plan.sources:
            arguments = litestream.restore_from_arguments(plan.settings, database)
            result.append(_litestream(plan, f"{RESTORE_FROM}-{number}", arguments, [database]))
    return result


def replicate(plan: Plan) -> InjectedContainer:
    """The sidecar.

    Before it ends it makes sure that it has seen every database (see `scripts.SEEN`). As an ordinary container it
    sleeps before, while the application may still write.
    """
    arguments = litestream.replicate_arguments()
    settings, replicas, native = plan.settings, plan.replicas, plan.native
    container = _litestream(plan, REPLICATE, arguments, list(replicas))
    if native:
        container["restartPolicy"] = "Always"
    if litestream.can_list(settings):
        # As long as the application may end and the final syncs may take, which leave out what was not seen.
        seconds = len(replicas) * litestream.FINAL_SYNC_SECONDS
        container["lifecycle"] = {"preStop": {"exec": {"command": ["/bin/sh", "-c", scripts.SEEN]}}}
        container["env"] += [
            {"name": "LITESTREAM_DATABASES", "value": "\n".join(replicas)},
            {"name": "LITESTREAM_SECONDS", "value": str(plan.grace + seconds if native else seconds)},
        ]
        if not native:
            container["env"].append({"name": "LITESTREAM_DRAIN_SECONDS", "value": str(plan.grace)})
    else:
        seconds = litestream.SEEN_SECONDS if native else max(plan.grace, litestream.SEEN_SECONDS)
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": seconds}}}
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


def first_syncs(plan: Plan) -> list[InjectedContainer]:
    """The container that holds the application back until restored databases are in their replicas again."""
    databases = waiting(plan)
    if not databases:
        return []
    container = _script(plan, FIRST_SYNC, scripts.FIRST_SYNC, databases)
    # It runs beside the sidecar, so what it asks for comes on top of that.
    container["resources"] = _small(plan.settings, "32Mi", "64Mi")
    return [container]


def waiting(plan: Plan) -> list[str]:
    """Databases whose first sync the application waits for: not those that outlive the Pod."""
    waits = plan.settings.first_sync == "wait" and plan.native and litestream.can_list(plan.settings)
    return [database for database in plan.settings.path if waits and database not in plan.storage.lasting]


def _litestream(plan: Plan, name: str, arguments: list[str], databases: Sequence[str]) -> InjectedContainer:
    settings = plan.settings
    limits = {"memory": settings.memory_limit.text}
    if settings.cpu_limit is not None:
        limits["cpu"] = settings.cpu_limit.text
    # Nine tenths of the limit: the garbage collector works harder before the kernel has to kill.
    memory = int(settings.memory_limit.amount * 9 / 10)
    return {
        "name": name,
        "image": settings.image.reference,
        "args": arguments,
        "env": [*plan.credentials.environment, {"name": "GOMEMLIMIT", "value": str(memory)}, *plan.storage.environment],
        "resources": {
            "requests": {"cpu": settings.cpu_request.text, "memory": settings.memory_request.text},
            "limits": limits,
        },
        "securityContext": security_context(plan.user),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [volumes.config_mount(), *_mounts(plan.storage, databases), *plan.credentials.mounts],
    }


def _script(plan: Plan, name: str, script: str, databases: Sequence[str]) -> InjectedContainer:
    """A container of Litestream's image that runs a script over databases instead."""
    container = _litestream(plan, name, [], databases)
    del container["args"]
    container["command"] = ["/bin/sh", "-eu", "-c", script]
    container["env"].append({"name": "LITESTREAM_DATABASES", "value": "\n".join(databases)})
    return container


def _small(settings: Settings, request: str, limit: str) -> Object:
    """Resources of a container that does next to nothing; a CPU limit, as quotas may ask for one, only where asked."""
    resources: Object = {"requests": {"cpu": "10m", "memory": request}, "limits": {"memory": limit}}
    if (most := settings.cpu_limit) is not None:
        resources["limits"]["cpu"] = most.text
        resources["requests"]["cpu"] = min(values.quantity("10m"), most, key=lambda quantity: quantity.amount).text
    return resources


def _mounts(storage: Storage, databases: Iterable[str]) -> list[VolumeMount]:
    """Each mount once, parents before what is mounted inside them."""
    by_path = {storage.mounts[database]["mountPath"]: storage.mounts[database] for database in databases}
    return volumes.outer_first(by_path.values())
