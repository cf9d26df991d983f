"""An OCI bundle for one life of a container: its config.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tests.podrunner.quantity import thousandths, whole
from tests.podrunner.runc import V1

if TYPE_CHECKING:
    from pathlib import Path

    from tests.podrunner.identity import Identity

PERIOD = 100_000
MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
BASE_MOUNTS: list[dict[str, Any]] = [
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "mode=755", "size=64k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=64m"],
    },
    {
        "destination": "/sys",
        "type": "sysfs",
        "source": "sysfs",
        "options": ["nosuid", "noexec", "nodev", "ro"],
    },
]


class Command(NamedTuple):
    """What is executed, with which environment, where."""

    arguments: list[str]
    environment: dict[str, str]
    directory: str


def config(
    command: Command,
    identity: Identity,
    *,
    root: Path,
    hostname: str,
    cgroup: str,
    mounts: list[dict[str, Any]],
    resources: dict[str, Any],
    page_cache: int = 0,
) -> dict[str, Any]:
    """The config.json of a container whose network is the host's and whose other namespaces are its own.

    Where cgroup v1 counts page cache, `page_cache` bytes are added to the memory limit.
    """
    capabilities = list(identity.capabilities)
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {
                "uid": identity.user,
                "gid": identity.group,
                "additionalGids": list(identity.groups),
            },
            "args": command.arguments,
            "env": [f"{name}={value}" for name, value in command.environment.items()],
            "cwd": command.directory,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "noNewPrivileges": identity.no_new_privileges,
        },
        "root": {"path": str(root), "readonly": identity.read_only_root},
        "hostname": hostname,
        "mounts": [*BASE_MOUNTS, *mounts],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
            "cgroupsPath": cgroup,
            "resources": {
                "devices": [{"allow": False, "access": "rwm"}],
                **_limits(resources, page_cache if V1 else 0),
            },
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    }


def _limits(resources: dict[str, Any], page_cache: int) -> dict[str, Any]:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    wanted: dict[str, Any] = {}
    if "memory" in limits:
        wanted["memory"] = {"limit": whole(limits["memory"]) + page_cache}
    share = requests.get("cpu", limits.get("cpu"))
    cpu = {"shares": max(2, thousandths(share) * 1024 // 1000 if share is not None else 2)}
    if "cpu" in limits:
        cpu |= {"period": PERIOD, "quota": max(1000, thousandths(limits["cpu"]) * PERIOD // 1000)}
    return wanted | {"cpu": cpu}
