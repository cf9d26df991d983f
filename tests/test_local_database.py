"""A database on a volume that outlives its Pod must not overwrite a newer replica: real Litestream, S3, containers."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from injector import GROUP
from tests import reviews
from tests.podrunner import BlockedPod, Node
from tests.podrunner.images import application
from tests.podrunner.s3 import S3
from tests.podrunner.writer import acknowledged

pytestmark = [pytest.mark.slow, pytest.mark.containers]
Object = dict[str, Any]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with S3() as server:
        yield server


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    """The folder that stands for the Pod's PersistentVolumeClaim."""
    folder = tmp_path / "claim"
    folder.mkdir()
    shutil.chown(folder, 1000, 1000)
    return folder


class Lives:
    """One workload with a PersistentVolumeClaim, life after life."""

    def __init__(self, s3: S3, node: Node, name: str, claim: Path) -> None:
        self.s3, self.node, self.name, self.claim = s3, node, name, claim

    def pod(self, local_database: str | None = None) -> Object:
        asked = {"inject": "true", "path": "/data/app.db", "endpoint": self.s3.endpoint}
        if local_database is not None:
            asked["local-database"] = local_database
        mount = {"name": "data", "mountPath": "/data"}
        return reviews.injected(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": self.name, "annotations": {f"{GROUP}/{key}": text for key, text in asked.items()}},
                "spec": {
                    "securityContext": {"runAsUser": 1000, "runAsGroup": 1000},
                    "containers": [
                        {
                            "name": "app",
                            "image": "writer",
                            "args": ["--database", "/data/app.db"],
                            "volumeMounts": [mount],
                        }
                    ],
                    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
                },
            }
        )

    def live(
        self, claim: Path | None = None, *, more: int = 20, kill: bool = False, local_database: str | None = None
    ) -> tuple[int, int]:
        """One life that commits `more` rows; the rows it began after, and the last that it committed."""
        run = self.node.start(self.pod(local_database), claims={"data": claim or self.claim})
        run.wait_started()
        first = int(run.wait_log("app", "starting after ").split("starting after ")[1].split()[0])
        run.wait_log("app", f"committed {first + more}\n")
        _ = run.kill_node() if kill else run.delete()
        return first, acknowledged(run.logs("app"))[-1]

    def blocked(self) -> str:
        run = self.node.start(self.pod(), claims={"data": self.claim})
        with pytest.raises(BlockedPod, match="litestream-hook-check") as caught:
            run.wait_started()
        assert run.containers["app"].lives == 0
        return caught.value.log


@pytest.fixture
def lives(s3: S3, claim: Path, request: pytest.FixtureRequest) -> Iterator[Lives]:
    name = request.node.name.replace("_", "-").replace("[", "-").replace("]", "")[:60].strip("-")
    with Node(images={"writer": application()}, secrets={"litestream-hook-secret": s3.secret}) as node:
        yield Lives(s3, node, name, claim)


def elsewhere(lives: Lives, tmp_path: Path) -> int:
    """The workload lives on another volume for a while; the last row it committed there."""
    other = tmp_path / "other"
    other.mkdir()
    shutil.chown(other, 1000, 1000)
    return lives.live(other)[1]


@pytest.mark.parametrize("kill", [False, True], ids=["ended", "killed"])
def test_a_database_as_new_as_its_replica_or_newer_goes_on(lives: Lives, kill: bool) -> None:
    _, last = lives.live(kill=kill)
    # A row that was committed when the node died may not have been acknowledged any more.
    assert lives.live()[0] in (last, last + kill)


def without_metadata(claim: Path) -> None:
    shutil.rmtree(claim / ".app.db-litestream")


def foreign(claim: Path) -> None:
    without_metadata(claim)
    for file in claim.glob("app.db*"):
        file.unlink()
    with sqlite3.connect(claim / "app.db") as database:
        database.execute("CREATE TABLE entry (number INTEGER PRIMARY KEY, at REAL)")
    database.close()


def cut_in_half(claim: Path) -> None:
    for file in claim.glob("app.db-*"):
        file.unlink()
    (claim / "app.db").write_bytes((claim / "app.db").read_bytes()[:6000])


def garbage(claim: Path) -> None:
    for file in claim.glob("app.db-*"):
        file.unlink()
    (claim / "app.db").write_bytes(b"no database at all" * 300)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda _: None, "is older"),
        (without_metadata, "shows no sign of having been replicated"),
        (foreign, "shows no sign of having been replicated"),
        (cut_in_half, "is cut off"),
        (garbage, "is not an SQLite database"),
    ],
    ids=["older", "no-metadata", "foreign", "half", "garbage"],
)
def test_what_would_overwrite_a_newer_replica_blocks_the_pod_until_its_owner_decides(
    lives: Lives, tmp_path: Path, spoil: Callable[[Path], None], why: str
) -> None:
    lives.live()
    last = elsewhere(lives, tmp_path)
    spoil(lives.claim)
    for file in lives.claim.glob("**/*"):
        shutil.chown(file, 1000, 1000)
    before = (lives.claim / "app.db").read_bytes()
    log = lives.blocked()
    assert why in log
    assert 'Set the annotation local-database to "replace"' in log
    assert (lives.claim / "app.db").read_bytes() == before
    assert lives.live(local_database="replace")[0] == last
    assert [file.read_bytes() for file in lives.claim.glob("app.db.2*")] == [before]


def test_an_older_database_that_is_kept_becomes_the_newest_state(lives: Lives, tmp_path: Path) -> None:
    _, first = lives.live()
    elsewhere(lives, tmp_path)
    assert lives.live(local_database="keep")[0] == first
    _, last = lives.live()
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.chown(empty, 1000, 1000)
    assert lives.live(empty)[0] == last


def test_a_removed_database_is_restored_and_what_it_left_behind_is_moved_aside(lives: Lives) -> None:
    _, last = lives.live(kill=True)
    _, last = lives.live()
    (lives.claim / "app.db").unlink()
    (lives.claim / "app.db-wal").write_bytes(b"left behind")
    shutil.chown(lives.claim / "app.db-wal", 1000, 1000)
    assert lives.live()[0] == last
    assert [file.read_bytes() for file in lives.claim.glob("app.db-wal.2*")] == [b"left behind"]
    assert len(list(lives.claim.glob(".app.db-litestream.2*"))) == 1


def test_an_empty_database_left_behind_does_not_replace_the_replica(lives: Lives) -> None:
    _, last = lives.live()
    for file in lives.claim.glob("app.db*"):
        file.unlink()
    (lives.claim / "app.db").touch()
    shutil.chown(lives.claim / "app.db", 1000, 1000)
    assert lives.live()[0] == last
