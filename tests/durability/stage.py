"""Where a scenario plays: an S3 server, a node, Pods that the webhook has injected, and what is counted of them."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sqlite3
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pytest

from injector import GROUP
from injector.pod.containers import REPLICATE, RESTORE
from tests import reviews
from tests.podrunner import Node
from tests.podrunner.images import application, litestream
from tests.podrunner.writer import acknowledged

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from tests.podrunner import Run
    from tests.podrunner.pod import Result
    from tests.podrunner.s3 import S3
    from tests.stores.server import Store

Object = dict[str, Any]
SCENARIO = [pytest.mark.slow, pytest.mark.containers, pytest.mark.timeout(900)]  # what each test of one is
FULL = os.environ.get("DURABILITY") == "full"  # as often and in as many ways as docs/durability.md says
DATABASE = "/data/app.db"
APPLICATION = "app"
FIRST_RESTORE = f"{RESTORE}-0"
SECRET = "litestream-hook-secret"
USER = 1000
GRACE_SECONDS = 5  # of the application itself
DRAIN_SECONDS = 2  # that it goes on writing after SIGTERM
START_SECONDS = 120
UNSENT = 209  # rows, at 100 a second, that one kill or outage may find not sent yet with a sync-interval of 1 s
TOLD_CHARACTERS = 4000  # of a log, when a test fails
IDLE = ["sh", "-c", "trap 'exit 0' TERM; echo idle; while :; do sleep 0.1; done"]
_numbers = itertools.count(1)


class CorruptDatabase(Exception):
    """A restored database that is not whole."""


class Way(NamedTuple):
    """How a Pod replicates: the kind of sidecar and Litestream's release."""

    sidecar: str
    litestream: str


NATIVE_05, NATIVE_03 = Way("native", "0.5.17"), Way("native", "0.3.13")
CONTAINER_05, CONTAINER_03 = Way("container", "0.5.17"), Way("container", "0.3.13")
WAYS = (NATIVE_05, NATIVE_03, CONTAINER_05, CONTAINER_03)


def ways(*lean: Way, every: Sequence[Way] = WAYS) -> pytest.MarkDecorator:
    """The ways a scenario is played in: all that can where all is measured, else those the promise rests on."""
    return pytest.mark.parametrize("way", every if FULL else lean, ids="-".join)


@dataclass
class Row:
    """What a scenario measured. Seconds and MiB are those of the worst Pod; rows are those of all its lives."""

    scenario: str
    way: Way
    acknowledged: int = 0
    restored: int = 0
    stop_seconds: float = 0.0
    start_seconds: float = 0.0
    mebibytes: float = 0.0
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

    def record(self) -> Object:
        """The row as plain data, for a report."""
        return {**asdict(self), "way": list(self.way)}

    @classmethod
    def of(cls, record: Object) -> Self:
        """The row that a record was made of."""
        return cls(**{**record, "way": Way(*record["way"])})


class Stage:
    """A node until the `with` block ends, and a workload on it with a name, so a replica, of its own.

    Its Pods have one application; with `claim` its databases are on a PersistentVolumeClaim (a folder that outlives
    the Pods), else on volumes that the webhook adds. `annotations` are those of all its Pods; `shell` is that of
    Litestream's image, `without` names programs that it lacks, and `page_cache` and `relist` are a Node's.
    """

    def __init__(
        self,
        way: Way,
        s3: Store,
        *,
        claim: Path | None = None,
        annotations: Mapping[str, str] | None = None,
        databases: Sequence[str] = (DATABASE,),
        shell: str = "dash",
        without: Sequence[str] = (),
        page_cache: int = 0,
        relist: float = 0,
    ) -> None:
        self.way, self.s3, self.databases = way, s3, databases
        self.annotations = dict(annotations or {})
        self.name = f"writer-{next(_numbers)}"
        self.claim = claim
        self.shell, self.without, self.page_cache, self.relist = shell, without, page_cache, relist
        self.runs: list[Run] = []
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.node = self._open.enter_context(
            Node(
                images={
                    "application": application(),
                    f"litestream/litestream:{self.way.litestream}": litestream(
                        self.way.litestream, shell=self.shell, without=self.without
                    ),
                },
                secrets={SECRET: self.s3.secret},
                config_maps=self.s3.config_maps,
                back_off=1,
                page_cache=self.page_cache,
                relist=self.relist,
            )
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._tell()
        finally:
            self._open.close()

    def _tell(self) -> None:
        """Print what happened, which pytest shows if the test fails: events, Litestream's logs, the S3 server's."""
        for run in self.runs:
            print(*run.events, sep="\n")
            for name in run.containers:
                if name != APPLICATION:
                    print(f"--- {name}", run.logs(name)[-TOLD_CHARACTERS:], sep="\n")
        print("--- the store", self.s3.log()[-TOLD_CHARACTERS:], sep="\n")

    def pod(
        self,
        *,
        writes: bool = True,
        arguments: Sequence[str] = (),
        annotations: Mapping[str, str] | None = None,
        spec: Object | None = None,
        container: Object | None = None,
    ) -> Object:
        """The Pod as its author writes it.

        Its application writes, with more `arguments` of the writer, or (`writes=False`) only holds the volumes;
        `spec` lays fields over the Pod's own, `container` over the application's.
        """
        keys = {
            "inject": "true",
            "path": ",".join(self.databases),
            **self.s3.annotations,
            "sidecar": self.way.sidecar,
            "image": f"litestream/litestream:{self.way.litestream}",
            **self.annotations,
            **(annotations or {}),
        }
        application: Object = {"name": APPLICATION, "image": "application", **(container or {})}
        if writes:
            paths = [text for path in self.databases for text in ("--database", path)]
            application["args"] = [*paths, "--drain", str(DRAIN_SECONDS), *arguments]
        else:
            application["command"] = IDLE
        whole: Object = {
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "securityContext": {"runAsUser": USER, "runAsGroup": USER},
            "containers": [application],
            **(spec or {}),
        }
        if self.claim is not None:
            application["volumeMounts"] = [{"name": "claim", "mountPath": "/data"}]
            whole["volumes"] = [{"name": "claim", "persistentVolumeClaim": {"claimName": "claim"}}]
        metadata = {"name": self.name, "annotations": {f"{GROUP}/{key}": text for key, text in keys.items()}}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": whole}

    def start(self, **asked: Any) -> Run:
        """Start the injected Pod; see `pod` for what can be asked."""
        return self.run(reviews.injected(self.pod(**asked), options=self.s3.options))

    def run(self, injected: Object) -> Run:
        """Start a Pod as the webhook returned it."""
        claims = {} if self.claim is None else {"claim": self.claim}
        self.runs.append(self.node.start(injected, claims=claims))
        return self.runs[-1]

    def restored(self, row: Row, **asked: Any) -> set[int]:
        """The rows that a Pod on new volumes begins with, in all its databases together."""
        claim, self.claim = self.claim, None
        run = self.start(writes=False, **asked)
        self.claim = claim
        started(run, row)
        run.wait_log(APPLICATION, "idle")  # before that a shell ignores SIGTERM
        found = {number for database in self.databases for number in rows(file(run, database))}
        end(run, row)
        return found


def volume(folder: Path, name: str = "claim", user: int = USER) -> Path:
    """A new empty folder that stands for a PersistentVolumeClaim of this user."""
    made = folder / name
    made.mkdir()
    shutil.chown(made, user, user)
    return made


@contextlib.contextmanager
def away(s3: S3) -> Iterator[None]:
    """The S3 server is gone until the block ends: its port refuses connections."""
    s3.stop()
    try:
        yield
    finally:
        s3.start()


def started(run: Run, row: Row, *, failures: int = 0) -> None:
    """Wait until the Pod has started, and note how long it took; init containers may fail `failures` times before."""
    row.start_seconds = max(row.start_seconds, run.wait_started(START_SECONDS, failures=failures))


def write(run: Run, row: Row, count: int) -> int:
    """Wait until the application has committed `count` rows in this life; the row that it began after."""
    started(run, row)
    first = began(run)
    committed(run, first + count)
    return first


def began(run: Run) -> int:
    """The last row that the application found when it started."""
    log = run.wait_log(APPLICATION, "starting after ", seconds=START_SECONDS)  # it may have to fill the database first
    return int(log.split("starting after ")[1].split()[0])


def committed(run: Run, number: int) -> None:
    """Wait until the application has committed this row."""
    run.wait_log(APPLICATION, f"committed {number}\n", seconds=120)


def end(run: Run, row: Row, *, starved: bool = False) -> list[int]:
    """Delete the Pod as kubectl does; the rows its application was promised, and the time it took is noted.

    None of its containers may have died of too little memory, unless that is the scenario (`starved`).
    """
    result = run.delete()
    row.stop_seconds = max(row.stop_seconds, result.seconds)
    return _ended(run, row, result, starved=starved)


def die(run: Run, row: Row) -> list[int]:
    """Kill every process of the Pod at once, as a dead node does; the rows its application was promised."""
    return _ended(run, row, run.kill_node())


def _ended(run: Run, row: Row, result: Result, *, starved: bool = False) -> list[int]:
    ours = [last for name, last in result.containers.items() if name.startswith((REPLICATE, RESTORE))]
    row.mebibytes = max(row.mebibytes, *(last.rss_peak / 2**20 for last in ours))
    killed = [name for name, container in run.containers.items() if "OOMKilled" in {e.reason for e in container.past}]
    assert starved or not killed, f"out of memory: {killed}"
    return acknowledged(run.logs(APPLICATION))


def lives(stage: Stage, row: Row, count: int = 2, **asked: Any) -> list[int]:
    """Delete the Pod while it writes and make it again, `count` times; the rows that its last life was promised.

    The losses of each life but the last are counted.
    """
    promised: list[int] = []
    for life in range(count):
        run = stage.start(**asked)
        first = write(run, row, 100)
        if life:
            row.count(promised, range(1, first + 1))
        promised = [number for number in end(run, row) if number > first]
    return promised


def unbroken(found: set[int]) -> set[int]:
    """The rows, which must have no hole: only then does the last one stand for all those before it."""
    assert found == set(range(1, len(found) + 1)), f"rows are missing in the middle: {sorted(found)}"
    return found


def file(run: Run, database: str) -> Path:
    """Where a database of the Pod is on this machine."""
    mounts = run.containers[REPLICATE].spec["volumeMounts"]
    mount = max((m for m in mounts if database.startswith(m["mountPath"] + "/")), key=lambda m: len(m["mountPath"]))
    return run.volume(mount["name"]) / database.removeprefix(mount["mountPath"] + "/")


def rows(database: Path) -> list[int]:
    """The rows of a database that Litestream has open, and that must be whole; none if there is no such database."""
    if not database.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as reader:
        if (found := reader.execute("PRAGMA integrity_check").fetchone()) != ("ok",):
            raise CorruptDatabase(f"{database}: {found[0]}")
        return [number for (number,) in reader.execute("SELECT number FROM entry")]
