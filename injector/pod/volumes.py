"""Where the databases live: the volumes that the application mounts, or new ones, and the mounts for Litestream."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from injector.annotations.findings import Findings
from injector.annotations.settings import Settings
from injector.errors import cut, quoted
from injector.pod.shapes import Container, EnvVar, PodSpec, VolumeMount
from injector.values import SIDE_FILES, Object, system_directory

Mounted = tuple[Container, dict[str, VolumeMount]]

PREFIX = "litestream-hook-"
CONFIG_VOLUME = "litestream-hook-config"
CONFIG_DIRECTORY = "/etc/litestream"
TOKEN_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 (a path)
CA_VOLUME = "litestream-hook-ca"
CA_DIRECTORY = "/etc/litestream-ca"
CREDENTIALS_VOLUME = "litestream-hook-credentials"
CREDENTIALS_DIRECTORY = "/etc/litestream-credentials"
# Go reads the first of the system's bundles that is there, and then every certificate in these directories: the first
# two stand here as they would be read without the variable, which replaces them.
CERTIFICATE_DIRECTORIES = ("/etc/ssl/certs", "/etc/pki/tls/certs", CA_DIRECTORY)
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
MOST_USES = 5_000
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


def will_have_token(spec: PodSpec) -> bool:
    """Whether the API server's admission has mounted a token in the application's containers, and would in ours."""
    has_token = {
        container["name"].startswith(PREFIX)
        for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
        for mount in container.get("volumeMounts") or []
        if mount["mountPath"] == TOKEN_DIRECTORY
    }
    return has_token == {False}


def no_token_mount() -> VolumeMount:
    """An empty directory in the token's place: Litestream never asks the API server.

    The ServiceAccount admission leaves a container alone that has a mount there (its mountServiceAccountToken). Where
    it adds one, the API server calls the webhook a second time.
    """
    return {"name": CONFIG_VOLUME, "mountPath": TOKEN_DIRECTORY, "subPath": "no-token", "readOnly": True}


def ca_volume(source: str) -> Object:
    """The volume of the certificates in `secret/NAME` or `configmap/NAME`: a Pod waits until that has a `ca.crt`."""
    kind, _, name = source.partition("/")
    items = {"items": [{"key": "ca.crt", "path": "ca.crt"}]}
    volume = {"secret": {"secretName": name, **items}} if kind == "secret" else {"configMap": {"name": name, **items}}
    return {"name": CA_VOLUME, **volume}


def ca_mount() -> VolumeMount:
    """Its mount, in the injected containers that ask the bucket."""
    return {"name": CA_VOLUME, "mountPath": CA_DIRECTORY, "readOnly": True}


def credentials_volume(secret: str, key: str) -> Object:
    """The volume of a Secret's key that Litestream reads as a file."""
    return {"name": CREDENTIALS_VOLUME, "secret": {"secretName": secret, "items": [{"key": key, "path": key}]}}


def credentials_mount() -> VolumeMount:
    """Its mount, in the injected containers that ask the bucket."""
    return {"name": CREDENTIALS_VOLUME, "mountPath": CREDENTIALS_DIRECTORY, "readOnly": True}


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
    sources = {volume["name"]: _source(volume) for volume in spec.get("volumes") or []}
    search = _Search(sources, settings, findings, storage)
    mounted = _mounts_by_path(targets)
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
            if not new:
                kept = _kept_elsewhere(targets, sources)  # the same for every database without a volume
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
    if len(search.looked_at) >= MOST_VARIABLES:
        findings.deny("path", None, "leads to mounts whose subPathExpr refer to too many variables: use fewer")
    storage.target_mounts = outer_first(new.values())
    storage.volumes = [
        {"name": mount["name"], "emptyDir": {"sizeLimit": settings.storage.text}} for mount in new.values()
    ]
    if "storage" in settings.given and not new:
        findings.warn(f"{findings.key('storage')} has no effect: the application's own volumes hold every database")
    return storage


class _Source(NamedTuple):
    """What matters of a volume: kinds that end with the Pod or lie on a network, whether it is read-only, or memory."""

    fleeting: str | None = None
    network: str | None = None
    read_only: bool = False
    memory: bool = False


class _Variables(NamedTuple):
    """What an expression leads to: entries of the env in its order (and as one text), and names that are not in it."""

    entries: list[EnvVar]
    text: str
    missing: list[str]


class _Environment:
    """A container's variables, and which others each refers to; a text is read once."""

    def __init__(self, container: Container) -> None:
        self.entries = {entry["name"]: (index, entry) for index, entry in enumerate(container.get("env") or [])}
        self._referred: dict[str, list[str]] = {}

    def referred(self, name: str) -> list[str]:
        """The variables that the value of this one refers to."""
        if name not in self._referred:
            self._referred[name] = _referred(self.entries[name][1].get("value") or "") if name in self.entries else []
        return self._referred[name]


@dataclass(frozen=True)
class _Search:
    """The search for the volumes that the application mounts: what it looks in, and what it notes in."""

    sources: Mapping[str, _Source]
    settings: Settings
    findings: Findings
    storage: Storage
    copied: dict[str, EnvVar] = field(default_factory=dict)
    environments: dict[str, _Environment] = field(default_factory=dict)  # by container
    followed: dict[tuple[str, str], _Variables] = field(default_factory=dict)  # by container and expression
    given: set[tuple[str, str]] = field(default_factory=set)  # of these, what Litestream has
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
        return cast("VolumeMount", {"name": mount["name"], **below_it, "mountPath": absolute(mount["mountPath"])})

    def _source(self, mount: VolumeMount) -> _Source:
        return self.sources.get(mount["name"], _Source())

    def _copy_environment(self, database: str, expression: str, container: Container) -> None:
        """Gives Litestream the variables that decide where a subPathExpr leads; those of one that comes again, once."""
        if (place := (container["name"], expression)) in self.given:
            return
        self.given.add(place)
        found = self._variables(expression, container)
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
        below = database[len(absolute(mount["mountPath"]).rstrip("/")) :]
        if expression := mount.get("subPathExpr"):
            return (mount["name"], absolute(expression + below), self._variables(expression, container).text)
        return (mount["name"], absolute((mount.get("subPath") or "") + below))

    def _variables(self, expression: str, container: Container) -> _Variables:
        """The variables that an expression refers to, and those that they refer to.

        In the container's own order: a variable can refer to earlier ones only. Beyond MOST_VARIABLES none are
        followed, and the Pod is denied.
        """
        place = container["name"], expression
        if place not in self.followed:
            if container["name"] not in self.environments:
                self.environments[container["name"]] = _Environment(container)
            self.followed[place] = self._follow(_referred(expression), self.environments[container["name"]])
        return self.followed[place]

    def _follow(self, wanted: list[str], environment: _Environment) -> _Variables:
        needed: set[str] = set()
        while wanted and len(self.looked_at) < MOST_VARIABLES:
            name = wanted.pop()
            if name not in needed:
                needed.add(name)
                further = environment.referred(name)
                self.looked_at.extend((name, *further))
                wanted += further
        found = sorted((environment.entries[name] for name in needed if name in environment.entries), key=_first)
        entries = [entry for _, entry in found]
        return _Variables(entries, str(entries), sorted(needed.difference(environment.entries)))


def _first(pair: tuple[int, EnvVar]) -> int:
    return pair[0]


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
    if path[:1] == "/" and path[-1] != "/" and "//" not in path and "/." not in path:  # nearly all are: this is quick
        return path
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


def _network(sources: Mapping[str, object]) -> str | None:
    """The kind of a volume on a network file system."""
    plugins = [plugin for kind in ("csi", "flexVolume") if isinstance(plugin := sources.get(kind), dict)]
    drivers = [driver[:253] for plugin in plugins if isinstance(driver := plugin.get("driver"), str)]
    kinds = [kind for kind in NETWORK_SOURCES if kind in sources]
    return next(iter([*kinds, *filter(NETWORK_DRIVER.search, drivers)]), None)


def _source(volume: Mapping[str, object]) -> _Source:
    """What matters of a volume; one without any source is an emptyDir by default, and a claim does not tell."""
    sources = {kind: source for kind, source in volume.items() if source is not None and kind != "name"}
    memory = sources.get("emptyDir")
    return _Source(
        "emptyDir" if not sources else next((kind for kind in sources if kind in FLEETING_SOURCES), None),
        _network(sources),
        any(
            kind in READ_ONLY_SOURCES or (isinstance(source, dict) and source.get("readOnly") is True)
            for kind, source in sources.items()
        ),
        isinstance(memory, dict) and memory.get("medium") == "Memory",
    )


def _writable(mount: VolumeMount, source: _Source) -> bool:
    return not mount.get("readOnly") and not source.read_only


def _referred(text: str) -> list[str]:
    """The variables that a text refers to, each once."""
    return list(dict.fromkeys(name for name in _VARIABLE.findall(text) if name))


def _kept_elsewhere(targets: Sequence[Container], sources: Mapping[str, _Source]) -> tuple[str, str] | None:
    """The first target that mounts volumes for data, and where it does."""
    for target in targets:
        places = [
            mount["mountPath"]
            for mount in target.get("volumeMounts") or []
            if not mount["name"].startswith(PREFIX) and _keeps_data(mount, sources.get(mount["name"], _Source()))
        ]
        if places:
            return target["name"], ", ".join(places)[:200]
    return None


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


def _keeps_data(mount: VolumeMount, source: _Source) -> bool:
    return _writable(mount, source) and not source.memory


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
