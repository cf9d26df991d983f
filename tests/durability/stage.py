"""Where a scenario plays: an S3 server, a node, and Pods that the webhook has injected."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from injector import GROUP
from tests import reviews
from tests.podrunner import Node
from tests.podrunner.images import application
from tests.podrunner.s3 import S3
from tests.podrunner.writer import acknowledged

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from tests.podrunner import Run

Object = dict[str, Any]
DATABASE = "/data/app.db"
APPLICATION = "app"
REPLICATE = "litestream-hook-replicate"
SECRET = "litestream-hook-secret"
GRACE_SECONDS = 5  # of the application itself
DRAIN_SECONDS = 2  # that it goes on writing after SIGTERM
START_SECONDS = 120
IDLE = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
_numbers = itertools.count(1)


class Way(NamedTuple):
    """How a Pod replicates: the kind of sidecar and Litestream's release."""

    sidecar: str
    litestream: str


NATIVE_05, NATIVE_03 = Way("native", "0.5.17"), Way("native", "0.3.13")
CONTAINER_05, CONTAINER_03 = Way("container", "0.5.17"), Way("container", "0.3.13")
WAYS = (NATIVE_05, NATIVE_03, CONTAINER_05, CONTAINER_03)


@dataclass
class Row:
    """What a scenario measured. Seconds are those of the slowest Pod; rows are those of all its lives."""

    scenario: str
    way: Way
    acknowledged: int = 0
    restored: int = 0
    stop_seconds: float = 0.0
    start_seconds: float = 0.0
    losses: list[int] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Acknowledged rows that did not come back."""
        return self.acknowledged - self.restored

    def count(self, promised: Iterable[int], found: Iterable[int]) -> None:
        """Add one life: the rows its application was promised, and those that the next life began with."""
        wanted = set(promised)
        there = len(wanted & set(found))
        self.acknowledged += len(wanted)
        self.restored += there
        self.losses.append(len(wanted) - there)


class Stage:
    """An S3 server and a node until the `with` block ends. Each `Stage` has a Pod name, so a replica, of its own."""

    def __init__(self, way: Way, *, s3: S3 | None = None, secret: Mapping[str, str] | None = None) -> None:
        self.way, self._given, self._secret = way, s3, secret
        self.name = f"writer-{next(_numbers)}"
        self.claims: dict[str, Path] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.s3 = self._given or self._open.enter_context(S3())
        secrets = {SECRET: dict(self._secret or self.s3.secret)}
        images = {"application": application()}
        self.node = self._open.enter_context(Node(images=images, secrets=secrets, back_off=1))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def start(
        self,
        *,
        databases: Sequence[str] = (DATABASE,),
        writes: bool = True,
        rate: int = 100,
        annotations: Mapping[str, str] | None = None,
        spec: Object | None = None,
    ) -> Run:
        """Start the injected Pod: its application writes, or (`writes=False`) only holds the volumes."""
        pod = self.pod(databases=databases, writes=writes, rate=rate, annotations=annotations, spec=spec)
        return self.node.start(reviews.injected(pod), claims=self.claims)

    def pod(
        self,
        *,
        databases: Sequence[str] = (DATABASE,),
        writes: bool = True,
        rate: int = 100,
        annotations: Mapping[str, str] | None = None,
        spec: Object | None = None,
    ) -> Object:
        """The Pod as its author writes it; `spec` lays fields over its own."""
        keys = {
            "inject": "true",
            "path": ",".join(databases),
            "endpoint": self.s3.endpoint,
            "sidecar": self.way.sidecar,
            "image": f"litestream/litestream:{self.way.litestream}",
            **(annotations or {}),
        }
        arguments = [text for path in databases for text in ("--database", path)]
        run: Object = {"args": [*arguments, "--rate", str(rate), "--drain", str(DRAIN_SECONDS)]}
        whole: Object = {
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000},
            "containers": [{"name": APPLICATION, "image": "application", **(run if writes else {"command": IDLE})}],
            **(spec or {}),
        }
        metadata = {"name": self.name, "annotations": {f"{GROUP}/{key}": text for key, text in keys.items()}}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": whole}

    def restored(self, row: Row, *, databases: Sequence[str] = (DATABASE,), **rest: Any) -> set[int]:
        """The rows that a Pod on empty volumes begins with, in all its databases together."""
        run = self.start(databases=databases, writes=False, **rest)
        started(run, row)
        found = {number for database in databases for number in rows(file(run, database))}
        run.delete()
        return found


def started(run: Run, row: Row) -> None:
    """Wait until the Pod has started, and note how long it took."""
    row.start_seconds = max(row.start_seconds, run.wait_started(START_SECONDS))


def write(run: Run, row: Row, count: int) -> int:
    """Wait until the application has committed `count` rows in this life; the row that it began after."""
    started(run, row)
    first = began(run)
    run.wait_log(APPLICATION, f"committed {first + count}\n", seconds=60)
    return first


def began(run: Run) -> int:
    """The last row that the application found when it started."""
    log = run.wait_log(APPLICATION, "starting after ")
    return int(log.split("starting after ")[1].split()[0])


def end(run: Run, row: Row) -> list[int]:
    """Delete the Pod as kubectl does; the rows its application was promised, and the time it took is noted."""
    row.stop_seconds = max(row.stop_seconds, run.delete().seconds)
    return acknowledged(run.logs(APPLICATION))


def file(run: Run, database: str) -> Path:
    """Where a database of the Pod is on this machine."""
    mounts = run.containers[REPLICATE].spec["volumeMounts"]
    mount = max((m for m in mounts if database.startswith(m["mountPath"] + "/")), key=lambda m: len(m["mountPath"]))
    return run.volume(mount["name"]) / database.removeprefix(mount["mountPath"] + "/")


def rows(database: Path) -> list[int]:
    """The rows of a database that Litestream has open; none if there is no such database."""
    if not database.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as reader:
        return [number for (number,) in reader.execute("SELECT number FROM entry")]
