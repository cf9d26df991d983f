"""As whom a container runs: user, groups and capabilities from the security contexts of container and Pod."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tests.podrunner.environment import InvalidContainer

if TYPE_CHECKING:
    from tests.podrunner.images import Image

# What containerd and CRI-O give a container that asks for nothing.
DEFAULT_CAPABILITIES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
]


class Identity(NamedTuple):
    """User, groups, the capabilities that can be had at most, and what the root file system allows."""

    user: int
    group: int
    groups: tuple[int, ...]
    capabilities: tuple[str, ...]
    no_new_privileges: bool
    read_only_root: bool


def identity(container: dict[str, Any], pod: dict[str, Any], image: Image) -> Identity:
    """Container before Pod before image; InvalidContainer where runAsNonRoot is broken."""
    own = container.get("securityContext") or {}
    of_pod = pod["spec"].get("securityContext") or {}
    both = {**of_pod, **{key: value for key, value in own.items() if value is not None}}
    user = both.get("runAsUser", image.user)
    if both.get("runAsNonRoot") and user == 0:
        raise InvalidContainer("runAsNonRoot is set and the container would run as root")
    group = both.get("runAsGroup", image.group if user == image.user else 0)
    extra = [*(of_pod.get("supplementalGroups") or [])]
    if (fs_group := of_pod.get("fsGroup")) is not None:
        extra.append(fs_group)
    return Identity(
        user=user,
        group=group,
        groups=tuple(dict.fromkeys(extra)),
        capabilities=_capabilities(own.get("capabilities") or {}),
        no_new_privileges=own.get("allowPrivilegeEscalation") is False,
        read_only_root=bool(own.get("readOnlyRootFilesystem")),
    )


def _capabilities(wanted: dict[str, list[str]]) -> tuple[str, ...]:
    drop = {name.upper().removeprefix("CAP_") for name in wanted.get("drop") or []}
    add = {name.upper().removeprefix("CAP_") for name in wanted.get("add") or []}
    if "ALL" in add:
        raise InvalidContainer("capabilities.add: ALL is not implemented, name each")
    kept = set() if "ALL" in drop else set(DEFAULT_CAPABILITIES) - drop
    return tuple(sorted(f"CAP_{name}" for name in kept | add))
