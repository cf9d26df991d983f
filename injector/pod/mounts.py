"""Where the application mounts volumes of its own, and which of these mounts a database lies in."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence

from injector.pod.shapes import Container, VolumeMount
from injector.pod.volumes import PREFIX
from injector.values import SIDE_FILES

Mounted = tuple[Container, dict[str, VolumeMount]]


def absolute(path: str) -> str:
    """A mount path in its normal form, as the kubelet takes it: from the root, no `//` or `..`, no `/` at the end."""
    if path[:1] == "/" and path[-1] != "/" and "//" not in path and "/." not in path:  # nearly all are: this is quick
        return path
    return posixpath.normpath("/" + path.lstrip("/"))


def outer_first(mounts: Iterable[VolumeMount]) -> list[VolumeMount]:
    """Mounts in an order in which none hides another: parents before what is mounted inside them."""
    return sorted(mounts, key=lambda mount: absolute(mount["mountPath"]).count("/"))


def by_path(targets: Sequence[Container]) -> list[Mounted]:
    """Each target that mounts volumes of the application's, with its mounts by their normal path."""
    result: list[Mounted] = []
    for target in targets:
        places: dict[str, VolumeMount] = {}
        for mount in target.get("volumeMounts") or []:
            if not mount["name"].startswith(PREFIX):
                places.setdefault(absolute(mount["mountPath"]), mount)
        if places:
            result.append((target, places))
    return result


def at(database: str, mounted: Sequence[Mounted]) -> list[tuple[Container, VolumeMount]]:
    """(container, mount) of each target that mounts something at the database or, else, at its nearest parent."""
    if not mounted:
        return []
    parents = [database[: match.start()] or "/" for match in re.finditer("/", database)]
    nearness = {place: rank for rank, place in enumerate([*side_files(database), database, *reversed(parents)])}
    return [
        (target, own[min(places, key=nearness.__getitem__)])
        for target, own in mounted
        if (places := nearness.keys() & own.keys())  # walks the smaller of the two
    ]


def holding(containers: Sequence[Container], databases: Iterable[str]) -> list[Container]:
    """The containers that mount a volume of the application's in which a database lies: writable, if any does so."""
    mounted = by_path(containers)
    names: set[str] = set()
    for database in databases:
        found = at(database, mounted)
        writers = [target["name"] for target, mount in found if not mount.get("readOnly")]
        names.update(writers or [target["name"] for target, _ in found])
    return [container for container in containers if container["name"] in names]


def side_files(database: str) -> list[str]:
    """The files that SQLite keeps beside a database."""
    return [database + side for side in SIDE_FILES]
