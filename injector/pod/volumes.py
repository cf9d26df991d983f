"""Where the databases live: the volumes that the application mounts, or new ones, and the mounts for Litestream."""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from injector.annotations.findings import Findings
from injector.annotations.settings import Settings
from injector.errors import quoted
from injector.pod.shapes import Container, EnvVar, PodSpec, Volume, VolumeMount
from injector.values import SIDE_FILES, Object, system_directory

Mounted = tuple[Container, dict[str, VolumeMount]]

PREFIX = "litestream-hook-"
CONFIG_VOLUME = "litestream-hook-config"
CONFIG_DIRECTORY = "/etc/litestream"
STORAGE_VOLUME = "litestream-hook-storage"
READ_ONLY_SOURCES = ("configMap", "secret", "downwardAPI", "projected", "image")
NETWORK_SOURCES = ("nfs", "azureFile", "cephfs", "glusterfs", "quobyte")
# By a word of the driver's name: `efs.csi.aws.com`, `rook-ceph.cephfs.csi.ceph.com`, `csi.juicefs.com`, `fstab/cifs`.
NETWORK_DRIVER = re.compile(
    r"(?:^|[./-])(?:azurefile|beegfs|blob|cephfs|cifs|efs|file|filestore|fsx|gcsfuse|glusterfs|juicefs|lustre|moosefs"
    r"|nfs|s3|seaweedfs|smb|weka|wekafs)(?:[./-]|$)"
)
# Annotations that name, comma-separated, volumes whose content nobody has to keep. The autoscaler removes no node under
# a Pod with another emptyDir (its FAQ); a file system backup would bring back an older database than the replica's.
DISPENSABLE = (
    "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes",
    "backup.velero.io/backup-volumes-excludes",
)
FLEETING_SOURCES = ("csi", "emptyDir", "ephemeral")
# Where images keep an application's own files: an empty volume there would hide them.
APPLICATION_DIRECTORIES = (
    "/app",
    "/code",
    "/home",
    "/opt",
    "/root",
    "/srv",
    "/var",
    "/var/lib",
    "/var/www",
    "/var/www/html",
    "/workspace",
)
# Databases times containers: each may need a mount, and a small request must not become a large Pod.
MOST_USES = 20_000
MOST_VARIABLES = 50_000  # looked at for all `subPathExpr` of a Pod together, as one can refer to thousands
_VARIABLE = re.compile(r"\$\$|\$\(([^()]*)\)")  # `$$` stands for a dollar sign


@dataclass
class Storage:
    """What the databases need: new volumes, their mounts for the application, Litestream's mounts and environment."""

    volumes: list[Object] = field(default_factory=list)
    target_mounts: list[VolumeMount] = field(default_factory=list)
    mounts: dict[str, VolumeMount] = field(default_factory=dict)  # by database
    environment: list[EnvVar] = field(default_factory=list)  # what a subPathExpr refers to
    names: set[str] = field(default_factory=set)  # of all volumes that hold a database
    lasting: set[str] = field(default_factory=set)  # databases on volumes that outlive the Pod


def config_volume() -> Object:
    """The volume of config and control socket: in memory, for a few kilobytes."""
    return {"name": CONFIG_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}


def config_mount() -> VolumeMount:
    """Its mount, in all injected containers and in no other."""
    return {"name": CONFIG_VOLUME, "mountPath": CONFIG_DIRECTORY}


def dispensable(annotations: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """The annotations DISPENSABLE with these names of volumes behind those that they have already."""
    lists = {key: annotations.get(key) or "" for key in DISPENSABLE}
    return {
        key: ",".join(filter(None, [text, *(name for name in names if name not in text.split(","))]))
        for key, text in lists.items()
    }


def plan(spec: PodSpec, targets: Sequence[Container], settings: Settings, findings: Findings) -> Storage:
    """Finds or makes a volume for each database.

    Args:
        spec: the Pod's.
        targets: the containers that use the databases.
        settings: with the databases and the size of new volumes.
        findings: takes what makes a mount unusable, and warnings about hidden files.
    """
    storage = Storage()
    if "path" in settings.broken or not targets:
        return storage
    if len(settings.path) * len(targets) > MOST_USES:
        findings.deny(
            "containers",
            None,
            f"is needed: {len(settings.path)} databases in each of {len(targets)} containers are too many: write the "
            "names of the containers that use them",
        )
        return storage
    volumes = {volume["name"]: volume for volume in spec.get("volumes") or []}
    search = _Search(volumes, settings, findings, storage)
    mounted = _mounts_by_path(targets)
    elsewhere = functools.cache(lambda: _kept_elsewhere(targets, volumes))  # the same for every database without one
    new: dict[str, VolumeMount] = {}
    for database in settings.path:
        found = list(_application_mounts(database, mounted))
        if found:
            mount = search.reuse(database, found)
        else:
            directory = database.rpartition("/")[0]
            if (system := system_directory(directory)) is not None:
                findings.deny(
                    "path",
                    database,
                    f"lies in the system directory {system}, where a new volume would hide the image's files: mount a "
                    "volume of your own there, or write a path such as /data/app.db",
                )
                continue
            if directory not in new:
                new[directory] = _new_mount(directory, len(new))
                _warn_of_hidden_files(directory, targets, findings)
                if (kept := elsewhere()) is not None:
                    _warn_of_other_volumes(database, *kept, findings)
            mount = new[directory]
            if settings.restore == "off":
                _deny_off(database, "is on a new, empty volume", findings)
        if mount is not None:
            storage.mounts[database] = mount
            storage.names.add(mount["name"])
    storage.environment = [*search.copied.values()]
    if len(search.looked_at) >= MOST_VARIABLES:
        findings.deny("path", None, "leads to mounts whose subPathExpr refer to too many variables: use fewer")
    storage.target_mounts = outer_first(new.values())
    storage.volumes = [
        {"name": mount["name"], "emptyDir": {"sizeLimit": settings.storage.text}} for mount in new.values()
    ]
    if "storage" in settings.given and not new:
        findings.warn(f"{findings.key('storage')} has no effect: the application's own volumes hold every database")
    return storage


@dataclass(frozen=True)
class _Search:
    """The search for the volumes that the application mounts: what it looks in, and what it notes in."""

    volumes: Mapping[str, Volume]
    settings: Settings
    findings: Findings
    storage: Storage
    copied: dict[str, EnvVar] = field(default_factory=dict)
    environments: dict[str, dict[str, tuple[int, EnvVar]]] = field(default_factory=dict)  # by container
    looked_at: list[str] = field(default_factory=list)  # variables, each time

    def reuse(self, database: str, found: Sequence[tuple[Container, VolumeMount]]) -> VolumeMount | None:
        """Litestream's mount of what the application mounts for this database, or None and a violation."""
        for container, mount in found:
            if absolute(mount["mountPath"]) in (database, *_side_files(database)):
                self.findings.deny(
                    "path",
                    database,
                    f"container {container['name']} mounts volume {mount['name']} at the file itself, but SQLite keeps "
                    f"further files beside it: mount the directory {quoted(database.rpartition('/')[0])} instead",
                )
                return None
        writable = [
            (container, mount) for container, mount in found if _writable(mount, self.volumes.get(mount["name"], {}))
        ]
        if not writable:
            container, mount = found[0]
            self.findings.deny(
                "path",
                database,
                f"container {container['name']} mounts volume {mount['name']} at {quoted(mount['mountPath'])} "
                "read-only, but Litestream writes beside the database: mount it writable, or name another path",
            )
            return None
        places = {self._place(database, container, mount): (container, mount) for container, mount in writable}
        if len(places) > 1:
            (one, first), (other, second) = list(places.values())[:2]
            self.findings.deny(
                "path",
                database,
                f"containers {one['name']} and {other['name']} mount different volumes there ({first['name']}, "
                f"{second['name']}): write in {self.findings.key('containers')} the one that uses the database",
            )
            return None
        container, mount = writable[0]
        source = _fleeting(self.volumes.get(mount["name"], {}))
        if self.settings.restore == "off" and source:
            _deny_off(database, f"is on the {source} volume {mount['name']}", self.findings)
        if source is None:
            self.storage.lasting.add(database)
        if (network := _network(self.volumes.get(mount["name"], {}))) is not None:
            self.findings.warn(
                f"{self.findings.key('path')}: {quoted(database)} is on volume {mount['name']} ({network}), and "
                "SQLite's WAL does not work over a network file system: use a block device, or leave the volume out"
            )
        below, expression = mount.get("subPath"), mount.get("subPathExpr")
        if expression:
            self._copy_environment(database, expression, container)
        below_it: Object = {"subPath": below} if below else {}
        below_it |= {"subPathExpr": expression} if expression else {}
        return cast("VolumeMount", {"name": mount["name"], **below_it, "mountPath": absolute(mount["mountPath"])})

    def _copy_environment(self, database: str, expression: str, container: Container) -> None:
        """Gives Litestream the variables that decide where a subPathExpr leads."""
        variables, missing = self._variables(expression, container)
        where = f"container {container['name']} mounts it with subPathExpr {quoted(expression)}"
        for name in missing:
            self.findings.deny(
                "path",
                database,
                f"{where}, whose variable {name} is not in its env (the webhook can't read envFrom): set it there",
            )
        for entry in variables:
            if self.copied.setdefault(entry["name"], entry) != entry:
                self.findings.deny(
                    "path",
                    database,
                    f"{where}, whose variable {entry['name']} has another value than in the container of another "
                    "database, and Litestream can have only one of them: give the variables different names",
                )

    def _place(self, database: str, container: Container, mount: VolumeMount) -> tuple[str, ...]:
        """Where the database lies in its volume: equal for two mounts that show the same file."""
        below = database[len(absolute(mount["mountPath"]).rstrip("/")) :]
        if expression := mount.get("subPathExpr"):
            variables, _ = self._variables(expression, container)
            return (mount["name"], absolute(expression + below), *map(str, variables))
        return (mount["name"], absolute((mount.get("subPath") or "") + below))

    def _variables(self, expression: str, container: Container) -> tuple[list[EnvVar], list[str]]:
        """The variables that an expression refers to, and those that they refer to; and names that are not in the env.

        In the container's own order: a variable can refer to earlier ones only. Beyond MOST_VARIABLES none are
        followed, and the Pod is denied.
        """
        environment = self.environments.setdefault(container["name"], {})
        if not environment:
            environment.update(
                {entry["name"]: (index, entry) for index, entry in enumerate(container.get("env") or [])}
            )
        needed: set[str] = set()
        wanted = _referred(expression)
        while wanted and len(self.looked_at) < MOST_VARIABLES:
            name = wanted.pop()
            if name not in needed:
                needed.add(name)
                self.looked_at.append(name)
                wanted += _referred(environment[name][1].get("value") or "") if name in environment else []
        found = sorted((environment[name] for name in needed if name in environment), key=lambda pair: pair[0])
        return [entry for _, entry in found], sorted(needed.difference(environment))


def holding(containers: Sequence[Container], databases: Iterable[str]) -> list[Container]:
    """The containers that mount a volume of the application's in which a database lies: writable, if any does so."""
    mounted = _mounts_by_path(containers)
    names: set[str] = set()
    for database in databases:
        found = list(_application_mounts(database, mounted))
        writers = [target["name"] for target, mount in found if not mount.get("readOnly")]
        names.update(writers or [target["name"] for target, _ in found])
    return [container for container in containers if container["name"] in names]


def _new_mount(directory: str, number: int) -> VolumeMount:
    return {"name": STORAGE_VOLUME + (f"-{number}" if number else ""), "mountPath": directory}


def _deny_off(database: str, where: str, findings: Findings) -> None:
    findings.deny(
        "restore",
        "off",
        f'{quoted(database)} {where}, so every new Pod would start without its rows: write "if-exists"',
    )


def absolute(path: str) -> str:
    """A mount path in its normal form, as the kubelet takes it: from the root, no `//` or `..`, no `/` at the end."""
    return posixpath.normpath("/" + path.lstrip("/"))


def outer_first(mounts: Iterable[VolumeMount]) -> list[VolumeMount]:
    """Mounts in an order in which none hides another: parents before what is mounted inside them."""
    return sorted(mounts, key=lambda mount: absolute(mount["mountPath"]).count("/"))


def _mounts_by_path(targets: Sequence[Container]) -> list[Mounted]:
    """Each target that mounts volumes of the application's, with its mounts by their normal path."""
    result: list[Mounted] = []
    for target in targets:
        by_path: dict[str, VolumeMount] = {}
        for mount in target.get("volumeMounts") or []:
            if not mount["name"].startswith(PREFIX):
                by_path.setdefault(absolute(mount["mountPath"]), mount)
        if by_path:
            result.append((target, by_path))
    return result


def _application_mounts(database: str, mounted: Iterable[Mounted]) -> Iterator[tuple[Container, VolumeMount]]:
    """(container, mount) of each target that mounts something at the database or, else, at its nearest parent."""
    parents = [database[: match.start()] or "/" for match in re.finditer("/", database)]
    nearness = {place: rank for rank, place in enumerate([*_side_files(database), database, *reversed(parents)])}
    for target, by_path in mounted:
        if places := nearness.keys() & by_path.keys():  # walks the smaller of the two
            yield target, by_path[min(places, key=nearness.__getitem__)]


def _side_files(database: str) -> list[str]:
    return [database + side for side in SIDE_FILES]


def _network(volume: Mapping[str, object]) -> str | None:
    """The kind of a volume on a network file system; a claim does not tell."""
    plugins = [plugin for kind in ("csi", "flexVolume") if isinstance(plugin := volume.get(kind), dict)]
    drivers = [driver[:253] for plugin in plugins if isinstance(driver := plugin.get("driver"), str)]
    kinds = [kind for kind in NETWORK_SOURCES if volume.get(kind) is not None]
    return next(iter([*kinds, *filter(NETWORK_DRIVER.search, drivers)]), None)


def _fleeting(volume: Mapping[str, object]) -> str | None:
    """The kind of a volume that ends with its Pod; one without any source is an emptyDir by default."""
    kinds = [kind for kind, source in volume.items() if source is not None and kind != "name"]
    if volume and not kinds:
        return "emptyDir"
    return next((kind for kind in kinds if kind in FLEETING_SOURCES), None)


def _writable(mount: VolumeMount, volume: Mapping[str, object]) -> bool:
    if mount.get("readOnly"):
        return False
    return not any(
        kind in READ_ONLY_SOURCES or (isinstance(source, dict) and source.get("readOnly") is True)
        for kind, source in volume.items()
        if source is not None and kind != "name"
    )


def _referred(text: str) -> list[str]:
    return [name for name in _VARIABLE.findall(text) if name]


def _kept_elsewhere(targets: Sequence[Container], volumes: Mapping[str, Volume]) -> tuple[str, str] | None:
    """The first target that mounts volumes for data, and where it does."""
    for target in targets:
        places = [
            mount["mountPath"]
            for mount in target.get("volumeMounts") or []
            if not mount["name"].startswith(PREFIX) and _keeps_data(mount, volumes.get(mount["name"], {}))
        ]
        if places:
            return target["name"], ", ".join(places)[:200]
    return None


def _warn_of_other_volumes(database: str, target: str, places: str, findings: Findings) -> None:
    """A database beside the volumes that the application mounts is often a typo, which nothing else would tell."""
    findings.warn(
        f"{findings.key('path')}: {quoted(database)} is on none of the volumes of container {target}: "
        f"an empty volume is put at {database.rpartition('/')[0]}; its volumes are at {places}: "
        "if the database is there, write its path"
    )


def _keeps_data(mount: VolumeMount, volume: Mapping[str, object]) -> bool:
    memory = volume.get("emptyDir")
    return _writable(mount, volume) and not (isinstance(memory, dict) and memory.get("medium") == "Memory")


def _warn_of_hidden_files(directory: str, targets: Sequence[Container], findings: Findings) -> None:
    for target in targets:
        places = [target.get("workingDir") or "", *(target.get("command") or [])[:1]]
        inside = [place for place in places if place == directory or place.startswith(directory + "/")]
        if inside or directory in APPLICATION_DIRECTORIES:
            findings.warn(
                f"{directory} of container {target['name']} becomes an empty volume, which hides what the image has "
                f"there: if that holds files of the application, keep databases in a directory of their own, such as "
                "/data"
            )
            return
