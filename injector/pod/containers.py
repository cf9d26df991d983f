"""The injected containers: the one that writes the config, the restores, and the sidecar that replicates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from injector.annotations.settings import Settings
from injector.annotations.table import STATUS, group
from injector.pod import litestream, scripts, volumes
from injector.pod.mounts import outer_first
from injector.pod.plan import Plan, User
from injector.pod.shapes import EnvVar, InjectedContainer, VolumeMount
from injector.values import Object

INIT = "litestream-hook-init"
RESTORE = "litestream-hook-restore"
RESTORE_FROM = "litestream-hook-restore-from"
REPLICATE = "litestream-hook-replicate"
SCRIPT = ["/bin/sh", "-eu", "-c"]  # begins the command of a container whose script stands in the Pod
PORT = "litestream"  # of its metrics
NEVER = 1_000_000  # failures of a probe
LARGE_BYTES = 16 * 2**20  # a database above takes more than a second or two to upload


def security_context(user: User) -> Object:
    """What the `restricted` Pod Security Standard asks for, and a read-only root."""
    context: Object = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        **({} if user.uid is None else {"runAsUser": user.uid}),
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
    """The container that writes the config and the others' scripts, and clears what would defeat a restore.

    Wherever Litestream's image has a shell it runs in that, asks what the replicas hold, and checks databases on
    volumes that outlive the Pod, which could overwrite a newer replica.
    """
    settings = plan.settings
    asks = settings.restore != "off" and litestream.can_list(settings)
    checks = asks and bool(plan.storage.lasting)
    container = _litestream(plan, INIT, [], list(plan.replicas))
    del container["args"]
    status = f"metadata.annotations['{group(settings.options.variant)}/{STATUS}']"
    environment: list[EnvVar] = [
        {"name": "LITESTREAM_CONFIG", "value": litestream.config(settings, plan.replicas)},
        {"name": "LITESTREAM_STATUS", "valueFrom": {"fieldRef": {"fieldPath": status}}},
    ]
    if plan.sources:
        environment.append({"name": "LITESTREAM_RESTORE_FROM", "value": litestream.config(settings, plan.sources)})
    if litestream.can_list(settings):
        environment.append({"name": "LITESTREAM_SIDECAR_SCRIPT", "value": scripts.SIDECAR})
    container["image"] = init_image(settings)
    if settings.restore != "off":
        environment.append({"name": "LITESTREAM_DATABASES", "value": "\n".join(plan.replicas)})
    if asks:
        environment.append({"name": "LITESTREAM_BUCKET", "value": litestream.bucket(settings)})
        new = {volume["name"] for volume in plan.storage.volumes}
        if limited := [database for database in plan.replicas if plan.storage.mounts[database]["name"] in new]:
            lines = [str(int(settings.storage.amount)), *limited]
            environment.append({"name": "LITESTREAM_STORAGE", "value": "\n".join(lines)})
    else:
        container["env"] = [*plan.storage.environment]
        container["volumeMounts"] = _mounts(plan, plan.replicas)
    if checks:
        environment.append({"name": "LITESTREAM_LOCAL_DATABASE", "value": settings.local_database or "ask"})
        if settings.restore_from is not None:
            moment = f"{settings.restore_from} at {settings.restore_timestamp or 'its newest'}"
            environment.append({"name": "LITESTREAM_MOMENT", "value": moment})
    container["command"] = [*SCRIPT, (scripts.CHECK if checks else "") + scripts.INIT]
    container["env"] = environment + container["env"]
    return container


def restores(plan: Plan) -> list[InjectedContainer]:
    """The containers that restore each database, from its own replica and then, if asked for, from another."""
    if plan.settings.restore == "off":
        return []
    result = []
    waiting = first_syncs(plan)
    for number, database in enumerate(plan.replicas):
        arguments = litestream.restore_arguments(plan.settings, database)
        restore = _litestream(plan, f"{RESTORE}-{number}", arguments, [database])
        result.append(restore)
        if database in plan.sources:
            arguments = litestream.restore_from_arguments(plan.settings, database)
            restore = _litestream(plan, f"{RESTORE_FROM}-{number}", arguments, [database])
            result.append(restore)
        if database in waiting:
            alone = f"{volumes.CONFIG_DIRECTORY}/database-{number}.yml"
            restore["command"] = _sidecar("restore", alone, str(waiting[database]))
    return result


def replicate(plan: Plan) -> InjectedContainer:
    """The sidecar: Litestream, under a shell that is never away (scripts/sidecar.sh) where the image has one.

    As an ordinary container it sleeps before it ends, while the application may still write.
    """
    settings, databases = plan.settings, list(plan.replicas)
    container = _litestream(plan, REPLICATE, litestream.replicate_arguments(), databases)
    sleep = 0 if plan.native else plan.grace
    if plan.native:
        container["restartPolicy"] = "Always"
    if settings.metrics_port is not None:
        container["ports"] = [{"name": PORT, "containerPort": settings.metrics_port, "protocol": "TCP"}]
    lifecycle: Object = {}
    alive = litestream.probe(settings)
    if litestream.can_list(settings):
        del container["args"]
        container["command"], alive = _sidecar("run"), _sidecar("alive")
        container["env"].append({"name": "LITESTREAM_DATABASES", "value": "\n".join(databases)})
        lifecycle["postStart"] = {"exec": {"command": _sidecar("started")}}
        # Its failures are events and no more: an application whose database can't be replicated stays in service.
        container["readinessProbe"] = {
            "exec": {"command": _sidecar("ready")},
            "periodSeconds": 20,
            "timeoutSeconds": 10,
            "failureThreshold": NEVER,
        }
    else:
        sleep = max(sleep, litestream.SEEN_SECONDS)
    if sleep:
        lifecycle["preStop"] = {"sleep": {"seconds": sleep}}
    if lifecycle:
        container["lifecycle"] = lifecycle
    if alive is not None:
        container["livenessProbe"] = {
            "exec": {"command": alive},
            "periodSeconds": 30,
            "timeoutSeconds": 10,
            "failureThreshold": 4,
        }
    return container


def _sidecar(mode: str, *arguments: str) -> list[str]:
    return ["/bin/sh", f"{volumes.CONFIG_DIRECTORY}/sidecar.sh", mode, *arguments]


def first_syncs(plan: Plan) -> dict[str, int]:
    """Databases that are uploaded as a whole before the application starts, and from how many bytes on.

    Those on volumes that outlive the Pod are not uploaded anew, and a small one is in the replica within a second or
    two anyway.
    """
    settings = plan.settings
    if settings.first_sync == "background" or not (plan.native and litestream.can_list(settings)):
        return {}
    least = 0 if settings.first_sync == "wait" else LARGE_BYTES
    return {database: least for database in settings.path if database not in plan.storage.lasting}


def init_image(settings: Settings) -> str:
    """The image of init: Litestream's, where that has a shell and can say what a replica holds."""
    return settings.image.reference if litestream.can_list(settings) else settings.init_image.reference


def resources(settings: Settings) -> dict[str, dict[str, str]]:
    """What every injected container asks for, as a LimitRange judges each."""
    limits = {"memory": settings.memory_limit.text}
    if settings.cpu_limit is not None:
        limits["cpu"] = settings.cpu_limit.text
    return {
        "requests": {"cpu": settings.cpu_request.text, "memory": settings.memory_request.text},
        "limits": limits,
    }


def _litestream(plan: Plan, name: str, arguments: list[str], databases: Sequence[str]) -> InjectedContainer:
    settings = plan.settings
    # Nine tenths of the limit: the garbage collector works harder before the kernel has to kill.
    memory = int(settings.memory_limit.amount * 9 / 10)
    mounts = _mounts(plan, databases)
    taken = {mount["mountPath"] for mount in mounts}  # a key may lie beside the database
    return {
        "name": name,
        "image": settings.image.reference,
        "args": arguments,
        "env": [*plan.credentials.environment, {"name": "GOMEMLIMIT", "value": str(memory)}, *plan.storage.environment],
        "resources": resources(settings),
        "securityContext": security_context(plan.user),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [*mounts, *(mount for mount in plan.credentials.mounts if mount["mountPath"] not in taken)],
    }


def _mounts(plan: Plan, databases: Iterable[str]) -> list[VolumeMount]:
    """The config's, and each of the databases' once, parents before what is mounted inside them."""
    mounts = plan.storage.mounts
    by_path = {mounts[database]["mountPath"]: mounts[database] for database in databases}
    no_token = [volumes.no_token_mount()] if plan.token else []
    return [volumes.config_mount(), *no_token, *outer_first(by_path.values())]
