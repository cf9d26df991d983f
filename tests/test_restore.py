"""`restore` with a real Litestream and S3: a file here, a volume, and a workload that goes back."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sqlite3
import stat
import time
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml

from injector import GROUP, cli
from injector.admission.verdict import Question, judge
from injector.command import FOUND, UNREADABLE, restore
from injector.command.kubectl import Answer, NotFound
from injector.command.progress import Progress
from injector.command.restore import Choice
from injector.command.restoring import Running, Told, Unrestored
from injector.command.subject import NoSubject, subjects
from injector.pod.containers import INIT
from tests import reviews
from tests.durability.stage import volume
from tests.jobs import Cluster
from tests.podrunner import BlockedPod, Node
from tests.podrunner.images import application
from tests.podrunner.s3 import S3
from tests.replicas import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

Object = dict[str, Any]
PATH = "/data/app.db"
REPLICA = "default/statefulset/web-0/data/app.db"
MANY = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) "


class Said(NamedTuple):
    code: int
    output: str
    error: str


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with S3() as server:
        yield server


class Place(NamedTuple):
    """A StatefulSet `web` whose Pod is gone, its cluster, its replica's writer, and a moment between two rows.

    The database has rows 1 and 2, and 2 MB that can't be compressed; at `moment` there was row 1 only.
    """

    cluster: Cluster
    writer: Writer
    moment: str
    template: Object


@pytest.fixture(scope="module")
def replica(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> tuple[Writer, str]:
    writer = Writer(tmp_path_factory.mktemp("writer"), s3, REPLICA)
    filling = f"{MANY} INSERT INTO filling SELECT randomblob(1000) FROM n"
    writer.write("CREATE TABLE t (x)", "INSERT INTO t VALUES (1)", "CREATE TABLE filling (x)", filling)
    time.sleep(1.1)
    moment = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    time.sleep(1.1)
    writer.write("INSERT INTO t VALUES (2)")
    return writer, moment


@pytest.fixture
def place(s3: S3, replica: tuple[Writer, str]) -> Iterator[Place]:
    writer, moment = replica
    pod = reviews.pod(
        {
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000},
            "containers": [
                {"name": "app", "image": "application", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
            ],
        },
        path=PATH,
        endpoint=s3.endpoint,
    )
    template = {"metadata": {"annotations": pod["metadata"]["annotations"]}, "spec": pod["spec"]}
    claims = [{"metadata": {"name": "data"}, "spec": {}}]
    with Node(secrets={"litestream-hook-secret": s3.secret}, images={"application": application()}) as node:
        cluster = Cluster(node)
        spec = {"replicas": 1, "template": template, "volumeClaimTemplates": claims}
        web = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"}, "spec": spec}
        cluster.put("statefulsets.apps", web)
        yield Place(cluster, writer, moment, template)


@pytest.fixture
def restored(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def run(cluster: Cluster, workload: str = "statefulset/web", **choice: Any) -> Said:
        code = restore.run(Choice(workload, **choice), cluster, reviews.DEFAULTS)
        printed = capsys.readouterr()
        assert cluster.deleted == list(cluster.runs), "a Job is left"
        return Said(code, printed.out, printed.err)

    return run


def rows(database: Path) -> list[int]:
    """The rows of a database that must be whole, without a file beside it."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?immutable=1", uri=True)) as reader:
        assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [number for (number,) in reader.execute("SELECT x FROM t ORDER BY x")]


@pytest.mark.slow
@pytest.mark.containers
def test_a_database_comes_to_a_file_here_though_connections_break(
    place: Place, tmp_path: Path, restored: Callable[..., Said]
) -> None:
    calls: list[Sequence[str]] = []

    def cut(command: Sequence[str]) -> Sequence[str]:
        """The first connections end after a part, one of them at once."""
        calls.append(command)
        limit = {1: 1_000_000, 2: 0, 3: 1}.get(len(calls))
        if limit is None:
            return command
        return ["sh", "-c", f'"$@" | head -c {limit}', "sh", *command]

    place.cluster.on_exec = cut
    target = tmp_path / "app.db"
    said = restored(place.cluster, to=str(target))
    assert (said.code, rows(target)) == (0, [1, 2]), said
    assert [path.name for path in tmp_path.iterdir()] == ["app.db"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert len(calls) == 4
    assert calls[3][2] == "+1000002"
    assert f"of {PATH} of statefulset/web, {target.stat().st_size} bytes, sha256 " in said.output
    assert hashlib.sha256(target.read_bytes()).hexdigest() in said.output


@pytest.mark.slow
@pytest.mark.containers
def test_a_file_that_is_there_is_replaced_only_if_that_is_wanted_and_never_by_half_of_one(
    place: Place, tmp_path: Path, restored: Callable[..., Said]
) -> None:
    target = tmp_path / "app.db"
    target.write_text("mine")
    (tmp_path / "other.db-wal").touch()
    (tmp_path / "nowhere").symlink_to("gone")
    for to, why in (
        (target, "is there already and would be replaced: nothing was done; --yes says yes to that"),
        (tmp_path, "is a folder: write the name of a file"),
        ("/dev/null", "is no regular file: write the name of one"),
        (tmp_path / "nowhere", "is no regular file: write the name of one"),
        (tmp_path / "no" / "app.db", "there is no folder"),
        (tmp_path / "other.db", "other.db-wal lies there, and SQLite would replay it into another database"),
    ):
        said = restored(place.cluster, to=str(to))
        assert said.code == UNREADABLE
        assert why in said.error
    assert not place.cluster.runs, "a Job was made before it was known whether it is of use"
    damaged = ["sh", "-c", 'head -c 3000000 /dev/zero | head -c "$1"', "sh", "2117632"]
    place.cluster.on_exec = lambda _: damaged
    said = restored(place.cluster, to=str(target), yes=True)
    assert (said.code, target.read_text()) == (UNREADABLE, "mine")
    assert "is not what was sent: its size or digest is another" in said.error, said
    place.cluster.on_exec = lambda _: ["false"]
    said = restored(place.cluster, to=str(target), yes=True)
    assert "the database can't be fetched from Pod litestream-restore-web-" in said.error

    def press(_: Sequence[str]) -> Sequence[str]:
        raise KeyboardInterrupt

    place.cluster.on_exec = press
    with pytest.raises(KeyboardInterrupt):
        restored(place.cluster, to=str(target), yes=True)
    assert place.cluster.deleted == list(place.cluster.runs), "Ctrl-C leaves a Job"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app.db", "nowhere", "other.db-wal"]
    assert target.read_text() == "mine"
    place.cluster.on_exec = list
    assert restored(place.cluster, to=str(target), yes=True).code == 0
    assert rows(target) == [1, 2]


@pytest.mark.slow
@pytest.mark.containers
def test_yesterday_is_a_moment_of_the_replica(place: Place, tmp_path: Path, restored: Callable[..., Said]) -> None:
    assert restored(place.cluster, to=str(tmp_path / "a.db"), at=place.moment).code == 0
    assert rows(tmp_path / "a.db") == [1]
    early = restored(place.cluster, to=str(tmp_path / "b.db"), at="2020-01-01T00:00:00Z")
    assert early.code == FOUND
    assert "can't be restored to its state at 2020-01-01T00:00:00Z: no matching backup files" in early.error
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]


def started(place: Place, claim: Path, more: dict[str, str] | None = None) -> list[int]:
    """The rows that the workload's Pod finds on a claim, with these annotations; BlockedPod if it waits."""
    annotations = {**place.template["metadata"]["annotations"], **(more or {})}
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web-0",
            "annotations": annotations,
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "1", "controller": True}
            ],
        },
        "spec": {
            **place.template["spec"],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}}],
        },
    }
    pod["spec"]["containers"][0]["command"] = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    run = place.cluster.node.start(reviews.injected(pod), claims={"data-web-0": claim})  # type: ignore[union-attr]
    try:
        run.wait_started()
        return rows(claim / "app.db")
    finally:
        run.delete()


@pytest.mark.slow
@pytest.mark.containers
def test_a_claim_is_filled_for_the_next_pod_which_goes_on_from_there(
    place: Place, tmp_path: Path, restored: Callable[..., Said]
) -> None:
    claim = volume(tmp_path)
    place.cluster.claims["data-web-0"] = claim
    place.cluster.put("persistentvolumeclaims", {"metadata": {"name": "data-web-0"}, "spec": {}})
    said = restored(place.cluster, claim="data-web-0")
    assert said.code == 0, said
    assert "/data/app.db on PersistentVolumeClaim data-web-0: the state of " in said.output
    assert rows(claim / "app.db") == [1, 2]
    assert (claim / "app.db").stat().st_uid == 1000
    assert sorted(path.name for path in claim.iterdir()) == [".app.db-litestream", "app.db"]
    assert started(place, claim) == [1, 2]

    refused = restored(place.cluster, claim="data-web-0")
    assert refused.code == UNREADABLE
    assert "/data/app.db is on PersistentVolumeClaim data-web-0 already, and would be moved aside" in refused.error
    assert rows(claim / "app.db") == [1, 2]

    older = restored(place.cluster, claim="data-web-0", at=place.moment, yes=True)
    assert older.code == 0, older
    assert "so a Pod that starts with it waits" in older.output
    assert rows(claim / "app.db") == [1]
    assert len(list(claim.glob("app.db.20*Z"))) == 1, "what was there is not aside"
    with pytest.raises(BlockedPod, match=INIT) as caught:
        started(place, claim)
    assert "but its replica holds a backup" in caught.value.log
    assert started(place, claim, {f"{GROUP}/local-database": "keep"}) == [1]


@pytest.mark.slow
@pytest.mark.containers
def test_a_claim_that_is_in_use_gone_or_not_writable_is_left_alone(
    place: Place, tmp_path: Path, restored: Callable[..., Said]
) -> None:
    gone = restored(place.cluster, claim="data-web-0")
    assert (gone.code, len(gone.error.splitlines())) == (UNREADABLE, 1)
    place.cluster.put("persistentvolumeclaims", {"metadata": {"name": "data-web-0"}, "spec": {}})
    place.cluster.claims["data-web-0"] = volume(tmp_path, user=0)
    mounting = {"volumes": [{"name": "x", "persistentVolumeClaim": {"claimName": "data-web-0"}}]}
    place.cluster.put("pods", {"metadata": {"name": "shell"}, "spec": mounting, "status": {"phase": "Running"}})
    used = restored(place.cluster, claim="data-web-0")
    assert "Pod shell uses PersistentVolumeClaim data-web-0, and a database must not be put under" in used.error
    place.cluster.put("pods", {"metadata": {"name": "shell"}, "spec": mounting, "status": {"phase": "Succeeded"}})
    foreign = volume(tmp_path, "foreign", user=0)
    (foreign / "app.db").write_text("somebody's")
    for claim, mode in ((place.cluster.claims["data-web-0"], 0o755), (foreign, 0o1777)):
        claim.chmod(mode)  # with the sticky bit nobody may move another's files
        place.cluster.claims["data-web-0"] = claim
        unwritable = restored(place.cluster, claim="data-web-0", yes=True)
        assert (unwritable.code, unwritable.output) == (FOUND, "")
        assert "/data/app.db can't be written on PersistentVolumeClaim data-web-0: " in unwritable.error
        assert len(unwritable.error.splitlines()) == 1
    assert [(path.name, path.read_text()) for path in foreign.iterdir()] == [("app.db", "somebody's")]


@pytest.mark.slow
@pytest.mark.containers
def test_a_workload_goes_back_by_the_annotations_that_are_printed(
    place: Place, tmp_path: Path, restored: Callable[..., Said]
) -> None:
    claim = volume(tmp_path)
    (claim / "app.db").write_bytes(place.writer.database.read_bytes())
    (claim / "app.db").chmod(0o644)
    shutil.chown(claim / "app.db", 1000, 1000)
    said = restored(place.cluster, at=place.moment)
    assert said.code == 0, said
    patch = yaml.safe_load(said.output)
    annotations = patch["spec"]["template"]["metadata"]["annotations"]
    assert annotations[f"{GROUP}/restore-from"] == REPLICA
    assert annotations[f"{GROUP}/restore-timestamp"] == place.moment
    assert annotations[f"{GROUP}/local-database"] == "replace"
    assert f"# statefulset/web then starts from the last sync before {place.moment}" in said.output
    assert "t 1" in said.output
    assert "kubectl patch statefulset web --namespace default --patch-file FILE" in said.output
    assert started(place, claim, annotations) == [1]
    assert started(place, claim, annotations) == [1], "the next start rewinds again, or does not start"
    early = restored(place.cluster, at="2020-01-01T00:00:00Z")
    assert (early.code, early.output) == (FOUND, "")


class Terminal:
    """A mock of a terminal at which somebody writes one line."""

    def __init__(self, line: str) -> None:
        self.line = line

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self.line


@pytest.mark.parametrize(("line", "agrees"), [("y\n", True), ("Yes\n", True), ("\n", False), ("", False)])
def test_at_a_terminal_it_asks_and_only_a_yes_is_one(
    line: str, agrees: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(line))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    if agrees:
        restore._agree("f is there already", Choice("pod/web"))
    else:
        with pytest.raises(restore.Declined, match="nothing was done"):
            restore._agree("f is there already", Choice("pod/web"))
    assert capsys.readouterr().err == "f is there already. Go on? [y/N] "


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["restore", "pod/web", "--at", "yesterday"], "write a time such as 2026-01-31T12:00:00Z"),
        (["restore", "pod/web", "--to", "f", "--timeout", "1 hour"], "write a duration in h, m, s or ms"),
        (["verify", "pod/web", "--image", "A b"], "write an image reference such as"),
    ],
)
def test_a_flag_that_is_wrong_is_told_with_what_would_be_right(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == UNREADABLE
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("command", [["verify", "sts/web", "--full"], ["restore", "sts/web", "--pvc", "c", "--yes"]])
def test_without_kubectl_a_command_says_where_it_is_had(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert cli.main(command) == UNREADABLE
    assert capsys.readouterr().err.startswith("kubectl is not installed, or not in PATH: ")


def workload(**more: Any) -> Cluster:
    """A StatefulSet of two Pods, with two databases each, in a cluster where nothing runs."""
    pod = reviews.pod(path=f"{PATH},/data/b.db")
    template = {"metadata": {"annotations": pod["metadata"]["annotations"]}, "spec": pod["spec"]}
    web = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"}}
    cluster = Cluster()
    cluster.put("statefulsets.apps", {**web, "spec": {"replicas": 2, "template": template, **more}})
    return cluster


def test_one_rollback_is_of_all_pods_and_databases() -> None:
    cluster = workload()
    found = subjects(cluster, "sts/web", None, reviews.DEFAULTS)
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    annotations = restore.rollback(found, "2026-01-01T00:00:00Z", now, reviews.DEFAULTS)
    assert annotations == {
        f"{GROUP}/restore-from": "default/statefulset/{pod}/{database}",
        f"{GROUP}/restore-timestamp": "2026-01-01T00:00:00Z",
        f"{GROUP}/replica-path": "{namespace}/{kind}/{workload}/{database}-since-20260102T030405Z",
    }
    web = cluster.objects["statefulsets.apps", "web"]
    web["spec"]["template"]["metadata"]["annotations"] |= annotations
    verdict = judge(Question(("apps", "StatefulSet"), "CREATE", web, "default"), reviews.DEFAULTS)
    assert verdict.outcome == "checked"
    again = subjects(cluster, "sts/web", None, reviews.DEFAULTS)
    later = restore.rollback(again, "2026-01-01T00:00:00Z", now.replace(year=2027), reviews.DEFAULTS)
    assert later[f"{GROUP}/restore-from"] == "default/statefulset/{pod}/{database}-since-20260102T030405Z"
    assert later[f"{GROUP}/replica-path"].endswith("/{database}-since-20270102T030405Z")


@pytest.mark.parametrize("start", [0, 5])
def test_a_rollback_while_no_pod_lives_gives_no_pod_the_rows_of_another(start: int) -> None:
    found = subjects(workload(replicas=0, ordinals={"start": start}), "sts/web", None, reviews.DEFAULTS)
    own = restore.rollback(found, "2026-01-01T00:00:00Z", datetime.now(UTC), reviews.DEFAULTS)
    assert own[f"{GROUP}/restore-from"] == "default/statefulset/{pod}/{database}"


def test_a_job_that_ends_under_a_download_is_one_sentence(tmp_path: Path) -> None:
    class Gone(Cluster):
        """A mock whose Pod ends after a part."""

        def execute(self, *_: Any, into: IO[bytes] | None = None, **__: Any) -> Answer:
            assert into is not None
            if into.tell():
                raise NotFound("there is no Pod p, or no longer", "NotFound")
            into.write(b"part")
            return Answer(1, b"", "")

    with (tmp_path / "part").open("w+b") as file, Progress() as progress:
        running = Running("default", "p", [])
        with pytest.raises(Unrestored, match=r"Pod p is gone, with 4 of 9 bytes fetched: .* a longer --timeout"):
            restore._fetch(Gone(), running, Told(PATH, bytes=9), file, progress)


def test_a_file_that_could_not_be_fetched_is_not_restored_first(tmp_path: Path, restored: Callable[..., Said]) -> None:
    cluster = workload()
    cluster.forbidden.add("create pods/exec")
    said = restored(cluster, pod="web-0", to=str(tmp_path / "a.db"), database=PATH)
    assert said.code == UNREADABLE, said
    assert "you may not create pods/exec in namespace default" in said.error
    assert (cluster.runs, list(tmp_path.iterdir())) == ({}, [])


def test_a_rollback_of_replicas_that_have_nothing_in_common_is_none() -> None:
    found = subjects(workload(), "sts/web", None, reviews.DEFAULTS)
    moved = found[1]._replace(source=found[1].source._replace(databases={PATH: "elsewhere", "/data/b.db": "x"}))
    with pytest.raises(NoSubject, match="no one restore-from leads to the replicas of all its databases"):
        restore.rollback([found[0], moved], "2026-01-01T00:00:00Z", datetime.now(UTC), reviews.DEFAULTS)


def test_what_is_asked_for_has_to_be_one_thing(restored: Callable[..., Said]) -> None:
    cluster = workload()
    owned = reviews.injected(reviews.pod(path=PATH))
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "1", "controller": True}
    owned["metadata"]["ownerReferences"] = [owner]
    cluster.put("pods", owned)
    for choice, why in (
        ({}, "write one of --to FILE and --pvc NAME, or --at TIME alone"),
        ({"to": "f", "claim": "c"}, "write one of --to FILE and --pvc NAME, or --at TIME alone"),
        ({"to": "f"}, "each Pod of statefulset/web has databases of its own: name one in --pod: web-0, web-1"),
        ({"to": "f", "pod": "web-1"}, f"has several databases: name one in --database: {PATH}, /data/b.db"),
        ({"to": "f", "pod": "web-1", "database": "/x"}, "has no database /x: it has"),
        ({"to": "f", "workload": "web"}, "write KIND/NAME"),
        ({"at": "2026-01-01T00:00:00Z", "pod": "web-1"}, "leave --pod and --database out"),
        ({"at": "2026-01-01T00:00:00Z", "database": PATH}, "leave --pod and --database out"),
        ({"at": "2026-01-01T00:00:00Z", "workload": "pod/web"}, "pod/web belongs to StatefulSet web: name that"),
    ):
        said = restored(cluster, **choice)
        assert (said.code, said.output, len(said.error.splitlines())) == (UNREADABLE, "", 1)
        assert why in said.error
