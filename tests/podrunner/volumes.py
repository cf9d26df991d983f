"""A Pod's volumes as directories of this machine, and a container's mounts of them."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.podrunner import mounts
from tests.podrunner.environment import Facts, InvalidContainer, expand, field, lookup
from tests.podrunner.quantity import whole

if TYPE_CHECKING:
    from collections.abc import Mapping


class Volume(NamedTuple):
    """A volume that is there: where, whether containers may write, and how much a directory on disk may hold."""

    path: Path
    read_only: bool = False
    limit: int | None = None


class Places(NamedTuple):
    """Where the volumes of a node come from: claims by name, a folder that stands for the host's root, a token."""

    claims: Mapping[str, Path]
    host: Path
    token: str | None


def prepared(facts: Facts, directory: Path, places: Places) -> dict[str, Volume]:
    """Every volume of the Pod by its name, made below `directory` unless it outlives the Pod."""
    spec = facts.pod["spec"]
    context = spec.get("securityContext") or {}
    made: dict[str, Volume] = {}
    for volume in spec.get("volumes") or []:
        name = volume["name"]
        made[name] = _volume(volume, directory / name, facts, places)
        if (group := context.get("fsGroup")) is not None and "hostPath" not in volume:
            _give_to_group(made[name], group, if_needed=context.get("fsGroupChangePolicy") == "OnRootMismatch")
    return made


def bound(
    container: dict[str, Any], volumes: Mapping[str, Volume], variables: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The container's mounts in the form of OCI, parents before what lies in them."""
    found = []
    for mount in container.get("volumeMounts") or []:
        if mount["name"] not in volumes:
            raise InvalidContainer(f"volumeMounts: no volume {mount['name']!r}")
        volume = volumes[mount["name"]]
        source = _inside(volume, mount, variables)
        access = "ro" if mount.get("readOnly") or volume.read_only else "rw"
        options = ["rbind", "rprivate", access]
        found.append({"destination": mount["mountPath"], "type": "bind", "source": str(source), "options": options})
    return sorted(found, key=lambda mount: len(PurePosixPath(str(mount["destination"])).parts))


def too_full(volumes: Mapping[str, Volume]) -> str | None:
    """What the kubelet says when it evicts a Pod because a directory volume holds more than its limit."""
    for name, volume in volumes.items():
        if volume.limit is not None and usage(volume.path) > volume.limit:
            return f'Usage of EmptyDir volume "{name}" exceeds the limit of {volume.limit} bytes'
    return None


def usage(directory: Path) -> int:
    """Bytes on disk of everything in a directory; what vanishes meanwhile counts nothing."""
    total = 0
    for parent, _, files in os.walk(directory):
        for file in files:
            try:
                total += os.lstat(Path(parent, file)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def _volume(volume: dict[str, Any], at: Path, facts: Facts, places: Places) -> Volume:
    if (empty := volume.get("emptyDir")) is not None:
        return _empty(empty, at)
    if (host := volume.get("hostPath")) is not None:
        return _host(host, places.host / host["path"].lstrip("/"))
    if (claim := volume.get("persistentVolumeClaim")) is not None:
        if claim["claimName"] not in places.claims:
            raise InvalidContainer(f"persistentvolumeclaim {claim['claimName']!r} not found: give it in `claims`")
        return Volume(places.claims[claim["claimName"]], read_only=bool(claim.get("readOnly")))
    sources = _sources(volume)
    mounts.tmpfs(at, mode=0o755)
    for source in sources["sources"]:
        for path, text, mode in _files(source, facts, places):
            _write(at, path, text, mode if mode is not None else sources.get("defaultMode", 0o644))
    return Volume(at, read_only=True)


def _empty(empty: dict[str, Any], at: Path) -> Volume:
    limit = whole(empty["sizeLimit"]) if empty.get("sizeLimit") is not None else None
    if empty.get("medium") == "Memory":
        mounts.tmpfs(at, size=limit)
        return Volume(at)
    at.mkdir(parents=True)
    at.chmod(0o777)
    return Volume(at, limit=limit)


def _host(host: dict[str, Any], at: Path) -> Volume:
    if host.get("type") != "Directory":
        at.mkdir(parents=True, exist_ok=True)
    if not at.is_dir():
        raise InvalidContainer(f"hostPath {host['path']!r} is not a directory of the node: make it first")
    return Volume(at)


def _sources(volume: dict[str, Any]) -> dict[str, Any]:
    """Any volume of files in the shape of a projected one."""
    if "projected" in volume:
        return dict(volume["projected"])
    for kind, name in (("secret", "secretName"), ("configMap", "name"), ("downwardAPI", "")):
        if kind in volume:
            given = {"name": volume[kind].get(name), **volume[kind]}
            return {"sources": [{kind: given}], "defaultMode": given.get("defaultMode", 0o644)}
    raise InvalidContainer(f"volume {volume['name']!r} has no source")


def _files(source: dict[str, Any], facts: Facts, places: Places) -> list[tuple[str, str, int | None]]:
    """Path, text and mode of each file of one source."""
    if "serviceAccountToken" in source:
        if places.token is None:
            raise InvalidContainer("serviceAccountToken: give the text of one in Node(token=…)")
        return [(source["serviceAccountToken"]["path"], places.token, None)]
    if "downwardAPI" in source:
        items = source["downwardAPI"].get("items") or []
        return [(i["path"], field(i["fieldRef"]["fieldPath"], facts.pod), i.get("mode")) for i in items]
    kind = "secret" if "secret" in source else "configMap"
    given = source[kind]
    objects = facts.secrets if kind == "secret" else facts.config_maps
    optional = bool(given.get("optional"))
    data = lookup(objects, kind, given["name"], optional=optional)
    if given.get("items") is None:
        return [(key, text, None) for key, text in data.items()]
    absent = [item["key"] for item in given["items"] if item["key"] not in data]
    if absent and not optional:
        raise InvalidContainer(f"{kind} {given['name']!r}: no key {absent[0]!r}")
    return [(i["path"], data[i["key"]], i.get("mode")) for i in given["items"] if i["key"] in data]


def _write(directory: Path, path: str, text: str, mode: int) -> None:
    file = directory / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)


def _inside(volume: Volume, mount: dict[str, Any], variables: Mapping[str, str]) -> Path:
    """The directory (or file) of a volume that a mount means; a missing one is made, as the kubelet does."""
    part = mount.get("subPath") or ""
    if mount.get("subPathExpr"):
        part = expand(mount["subPathExpr"], variables)
        if "$(" in part:
            raise InvalidContainer(f"subPathExpr {mount['subPathExpr']!r} names a variable that is not set")
    if part.startswith("/") or ".." in PurePosixPath(part).parts:
        raise InvalidContainer(f"subPath {part!r} must be relative and must not contain '..'")
    if not part:
        return volume.path
    root = volume.path.resolve()
    target = (root / part).resolve()
    if not target.is_relative_to(root):
        raise InvalidContainer(f"subPath {part!r} leads out of its volume")
    mode = stat.S_IMODE(root.stat().st_mode)
    for directory in (*reversed(target.relative_to(root).parents), target.relative_to(root)):
        if not (root / directory).exists():
            (root / directory).mkdir()
            (root / directory).chmod(mode)
    return target


def _give_to_group(volume: Volume, group: int, *, if_needed: bool) -> None:
    """What the kubelet does to a volume for fsGroup: the group owns it all, and may do what the owner may."""
    file_bits, directory_bits = (0o440, 0o550) if volume.read_only else (0o660, 0o770)
    directory_bits |= stat.S_ISGID
    root = volume.path.stat()
    if if_needed and root.st_gid == group and root.st_mode & directory_bits == directory_bits:
        return
    for parent, _, files in os.walk(volume.path):
        for path in (Path(parent), *(Path(parent, file) for file in files)):
            if path.is_symlink():
                continue
            mode = stat.S_IMODE(path.stat().st_mode)
            os.chown(path, -1, group)
            path.chmod(mode | (directory_bits if path.is_dir() else file_bits))
