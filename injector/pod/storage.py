"""Where the databases live: the volumes that the application mounts, or new ones, and the mounts for Litestream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from injector.annotations.findings import Findings
from injector.annotations.settings import Settings
from injector.errors import cut, quoted
from injector.pod import mounts
from injector.pod.shapes import Container, EnvVar, PodSpec, Volume, VolumeMount
from injector.pod.sources import Source, source_of
from injector.pod.variables import Expressions
from injector.pod.volumes import PREFIX, STORAGE_VOLUME
from injector.values import Object, system_directory

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
MOST_USES = 5_000


@dataclass
class Storage:
    """What the databases need: new volumes, their mounts for the application, Litestream's mounts and environment."""

    volumes: list[Object] = field(default_factory=list)
    target_mounts: list[VolumeMount] = field(default_factory=list)
    mounts: dict[str, VolumeMount] = field(default_factory=dict)  # by database
    environment: list[EnvVar] = field(default_factory=list)  # what a subPathExpr refers to
    names: set[str] = field(default_factory=set)  # of all volumes that hold a database
    lasting: set[str] = field(default_factory=set)  # databases on volumes that outlive the Pod


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
    mounted = mounts.by_path(targets)
    new: dict[str, VolumeMount] = {}
    for database in settings.path:
        found = mounts.at(database, mounted)
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
            if not new:
                kept = search.kept_elsewhere(targets)  # the same for every database without a volume
            if directory not in new:
                new[directory] = _new_mount(directory, len(new))
                _warn_of_hidden_files(directory, targets, findings)
                _warn_of_other_volumes(database, kept, findings)
            mount = new[directory]
            if settings.restore == "off":
                _deny_off(database, "is on a new, empty volume", findings)
        if mount is not None:
            storage.mounts[database] = mount
            storage.names.add(mount["name"])
    storage.environment = [*search.copied.values()]
    if search.expressions.too_many():
        findings.deny("path", None, "leads to mounts whose subPathExpr refer to too many variables: use fewer")
    storage.target_mounts = mounts.outer_first(new.values())
    storage.volumes = [
        {"name": mount["name"], "emptyDir": {"sizeLimit": settings.storage.text}} for mount in new.values()
    ]
    if "storage" in settings.given and not new:
        findings.warn(f"{findings.key('storage')} has no effect: the application's own volumes hold every database")
    return storage


@dataclass
class _Search:
    """The search for the volumes that the application mounts: what it looks in, and what it notes in."""

    volumes: Mapping[str, Volume]
    settings: Settings
    findings: Findings
    storage: Storage
    sources: dict[str, Source] = field(default_factory=dict)  # by volume
    copied: dict[str, EnvVar] = field(default_factory=dict)
    expressions: Expressions = field(default_factory=Expressions)
    given: set[tuple[str, str]] = field(default_factory=set)  # by container and expression: what Litestream has

    def reuse(self, database: str, found: Sequence[tuple[Container, VolumeMount]]) -> VolumeMount | None:
        """Litestream's mount of what the application mounts for this database, or None and a violation."""
        for container, mount in found:
            if mounts.absolute(mount["mountPath"]) in (database, *mounts.side_files(database)):
                self.findings.deny(
                    "path",
                    database,
                    f"container {container['name']} mounts volume {mount['name']} at the file itself, but SQLite keeps "
                    f"further files beside it: mount the directory {quoted(database.rpartition('/')[0])} instead",
                )
                return None
        writable = [(container, mount) for container, mount in found if _writable(mount, self._source(mount))]
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
        source = self._source(mount)
        if self.settings.restore == "off" and source.fleeting:
            _deny_off(database, f"is on the {source.fleeting} volume {mount['name']}", self.findings)
        if source.fleeting is None:
            self.storage.lasting.add(database)
        if source.network is not None:
            self.findings.warn(
                f"{self.findings.key('path')}: {quoted(database)} is on volume {mount['name']} ({source.network}), and "
                "SQLite's WAL does not work over a network file system: use a block device, or leave the volume out"
            )
        below, expression = mount.get("subPath"), mount.get("subPathExpr")
        if expression:
            self._copy_environment(database, expression, container)
        below_it: Object = {"subPath": below} if below else {}
        below_it |= {"subPathExpr": expression} if expression else {}
        return cast(
            "VolumeMount", {"name": mount["name"], **below_it, "mountPath": mounts.absolute(mount["mountPath"])}
        )

    def kept_elsewhere(self, targets: Sequence[Container]) -> tuple[str, str] | None:
        """The first target that mounts volumes for data, and where it does."""
        for target in targets:
            places = [mount["mountPath"] for mount in target.get("volumeMounts") or [] if self._keeps_data(mount)]
            if places:
                return target["name"], ", ".join(places)[:200]
        return None

    def _keeps_data(self, mount: VolumeMount) -> bool:
        if mount["name"].startswith(PREFIX):
            return False
        source = self._source(mount)
        return _writable(mount, source) and not source.memory

    def _source(self, mount: VolumeMount) -> Source:
        name = mount["name"]
        if name not in self.sources:
            self.sources[name] = source_of(self.volumes[name]) if name in self.volumes else Source()
        return self.sources[name]

    def _copy_environment(self, database: str, expression: str, container: Container) -> None:
        """Gives Litestream the variables that decide where a subPathExpr leads; those of one that comes again, once."""
        if (place := (container["name"], expression)) in self.given:
            return
        self.given.add(place)
        found = self.expressions.variables(expression, container)
        where = f"container {container['name']} mounts it with subPathExpr {quoted(expression)}"
        for name in found.missing:
            self.findings.deny(
                "path",
                database,
                f"{where}, whose variable {cut(name)} is not in its env (the webhook can't read envFrom): set it there",
            )
        for entry in found.entries:
            if self.copied.setdefault(entry["name"], entry) != entry:
                self.findings.deny(
                    "path",
                    database,
                    f"{where}, whose variable {cut(entry['name'])} has another value than in the container of another "
                    "database, and Litestream can have only one of them: give the variables different names",
                )

    def _place(self, database: str, container: Container, mount: VolumeMount) -> tuple[str, ...]:
        """Where the database lies in its volume: equal for two mounts that show the same file."""
        below = database[len(mounts.absolute(mount["mountPath"]).rstrip("/")) :]
        if expression := mount.get("subPathExpr"):
            return (
                mount["name"],
                mounts.absolute(expression + below),
                self.expressions.variables(expression, container).text,
            )
        return (mount["name"], mounts.absolute((mount.get("subPath") or "") + below))


def _new_mount(directory: str, number: int) -> VolumeMount:
    return {"name": STORAGE_VOLUME + (f"-{number}" if number else ""), "mountPath": directory}


def _deny_off(database: str, where: str, findings: Findings) -> None:
    findings.deny(
        "restore",
        "off",
        f'{quoted(database)} {where}, so every new Pod would start without its rows: write "if-exists"',
    )


def _writable(mount: VolumeMount, source: Source) -> bool:
    return not mount.get("readOnly") and not source.read_only


def _warn_of_other_volumes(database: str, kept: tuple[str, str] | None, findings: Findings) -> None:
    """A database beside the volumes that the application mounts is often a typo, which nothing else would tell."""
    if kept is None:
        return
    target, places = kept
    findings.warn(
        f"{findings.key('path')}: {quoted(database)} is on none of the volumes of container {target}: "
        f"an empty volume is put at {database.rpartition('/')[0]}; its volumes are at {places}: "
        "if the database is there, write its path"
    )


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
