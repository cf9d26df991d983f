"""The scripts that ask a running Litestream, by each shell that is here: a real Litestream with a replica of files.

Two things are replaced: `/etc/litestream`, which tests don't write to, and the place of the binary.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sysconfig
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from injector.pod import litestream, scripts, volumes

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow
SHELLS = {"busybox": ["busybox", "sh"], "dash": ["dash"], "bash": ["bash", "--posix"]}
BINARY = str(Path(sysconfig.get_path("scripts"), "litestream"))
ENVIRONMENT = {"PATH": os.environ["PATH"]}


class Litestream:
    """A database, its replica, and Litestream between them until `stop`."""

    def __init__(self, folder: Path, shell: list[str]) -> None:
        self.folder, self.shell = folder, shell
        self.database, self.note = folder / "my app.db", folder / ".my app.db-litestream" / "restored-txid"
        replica = {"type": "file", "path": str(folder / "replica"), "sync-interval": "1s"}
        config = {
            "socket": {"enabled": True, "path": str(folder / "litestream.sock")},
            "dbs": [{"path": str(self.database), "replicas": [replica]}],
        }
        (folder / "litestream.yml").write_text(json.dumps(config))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [BINARY, "replicate", "-config", str(self.folder / "litestream.yml")]
        self.process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait()
            self.process = None

    def write(self) -> None:
        with closing(sqlite3.connect(self.database, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode=wal")
            database.execute("CREATE TABLE IF NOT EXISTS t (a)")
            database.execute("INSERT INTO t VALUES (1)")

    def begin(self, script: str, **environment: str) -> subprocess.Popen[str]:
        for there, here in ((litestream.BINARY, BINARY), (volumes.CONFIG_DIRECTORY, str(self.folder))):
            assert there in script
            script = script.replace(there, here)
        everything = {**ENVIRONMENT, "LITESTREAM_DATABASES": f"{self.folder}/absent.db\n{self.database}", **environment}
        command = [*self.shell, "-eu", "-c", script]
        return subprocess.Popen(
            command, env=everything, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )

    def run(self, script: str, **environment: str) -> int:
        process = self.begin(script, **environment)
        process.communicate(timeout=60)
        return process.returncode

    def replicated(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "replica").rglob("*.ltx"))


@pytest.fixture(params=SHELLS)
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Litestream]:
    found = Litestream(tmp_path, SHELLS[request.param])
    yield found
    found.stop()


def test_a_database_that_was_just_made_is_seen_before_the_hook_is_done(running: Litestream) -> None:
    running.start()
    while not (running.folder / "litestream.sock").exists():
        time.sleep(0.01)
    running.write()
    assert running.run(scripts.SEEN, LITESTREAM_SECONDS="30") == 0
    assert running.replicated()


def test_the_hook_gives_up_in_time_when_litestream_does_not_answer(running: Litestream) -> None:
    running.write()
    began = time.monotonic()
    assert running.run(scripts.SEEN, LITESTREAM_SECONDS="2") == 0
    assert time.monotonic() - began >= 2


def test_the_hook_of_an_ordinary_sidecar_looks_when_the_application_has_written_its_last(running: Litestream) -> None:
    running.start()
    while not (running.folder / "litestream.sock").exists():
        time.sleep(0.01)
    hook = running.begin(scripts.SEEN, LITESTREAM_SECONDS="30", LITESTREAM_DRAIN_SECONDS="2")
    time.sleep(1)
    running.write()
    hook.communicate(timeout=60)
    assert (hook.returncode, bool(running.replicated())) == (0, True)


def test_the_application_waits_for_a_transaction_that_was_not_there_before_the_restore(running: Litestream) -> None:
    running.write()
    running.start()
    while not running.replicated():
        time.sleep(0.05)
    running.stop()
    newest = running.replicated()[-1].partition("-")[2].removesuffix(".ltx")
    running.note.write_text(newest)
    waiting = running.begin(scripts.FIRST_SYNC)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(2.5)
    running.write()
    running.start()
    output, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, output
    assert f"after transaction {newest}\n" in output
    assert running.replicated()[-1] > f"{newest}-"


def test_nothing_waits_for_a_database_that_was_not_restored(running: Litestream) -> None:
    running.write()
    assert running.run(scripts.FIRST_SYNC) == 0


def test_who_waits_for_the_first_sync_ends_when_told_to(running: Litestream) -> None:
    running.write()
    running.note.parent.mkdir()
    running.note.write_text("0" * 16)
    waiting = running.begin(scripts.FIRST_SYNC)
    assert waiting.stdout is not None
    assert "waiting" in waiting.stdout.readline()
    waiting.terminate()
    waiting.communicate(timeout=60)
    assert waiting.returncode == 143
