"""The script of a restore, by each shell that is here: a real Litestream with a replica of files.

One thing is replaced: the place of the binary.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sysconfig
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from injector.pod import litestream, scripts

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow
SHELLS = {"busybox": ["busybox", "sh"], "dash": ["dash"], "bash": ["bash", "--posix"]}
NAMES = ("init", "check", "sidecar", "restore")
BINARY = str(Path(sysconfig.get_path("scripts"), "litestream"))
ENVIRONMENT = {"PATH": os.environ["PATH"]}


class Litestream:
    """A database, its replica, and Litestream between them until `stop`."""

    def __init__(self, folder: Path, shell: list[str]) -> None:
        self.folder, self.shell = folder, shell
        self.database, self.ended = folder / "my app.db", folder / ".my app.db-litestream" / "ended-in-order"
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

    def lose(self) -> None:
        """The database has a replica, and is gone with its volume."""
        self.write()
        self.start()
        while not self.replicated():
            time.sleep(0.05)
        self.stop()
        for left in self.folder.glob("my app.db*"):
            left.unlink()
        shutil.rmtree(self.folder / ".my app.db-litestream")

    def restore(self, least: int, *flags: str) -> subprocess.Popen[str]:
        """Start the script of a restore, as its container does; it uploads what has more than `least` bytes."""
        config = str(self.folder / "litestream.yml")
        alone = self.folder / "database-0.yml"
        if not alone.exists():
            shutil.copy(config, alone)
        script = scripts.SIDECAR.replace(litestream.BINARY, BINARY)
        arguments = [
            "restore",
            "-config",
            config,
            "-if-db-not-exists",
            "-if-replica-exists",
            *flags,
            str(self.database),
        ]
        return subprocess.Popen(
            [*self.shell, "-c", script, "sidecar.sh", "restore", str(alone), str(least), *arguments],
            env=ENVIRONMENT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def replicated(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "replica").rglob("*.ltx"))


@pytest.fixture(params=SHELLS)
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Litestream]:
    if shutil.which(SHELLS[request.param][0]) is None:
        pytest.skip(f"the shell {SHELLS[request.param][0]} is not installed")
    found = Litestream(tmp_path, SHELLS[request.param])
    yield found
    found.stop()


def test_a_restored_database_is_in_its_replica_again_before_the_restore_ends(running: Litestream) -> None:
    running.lose()
    before = running.replicated()
    process = running.restore(0)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert f"{running.database} is in its replica again" in output
    assert set(running.replicated()) > set(before)
    inode = running.database.stat().st_ino
    assert running.ended.read_text().startswith(f"{inode} ")


def test_a_small_database_is_left_to_the_sidecar(running: Litestream) -> None:
    running.lose()
    before = running.replicated()
    process = running.restore(16777216)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, running.database.exists()) == (0, True), output
    assert running.replicated() == before
    assert not running.ended.exists()


def test_the_application_starts_even_if_the_first_sync_fails(running: Litestream) -> None:
    running.lose()
    config = running.folder / "database-0.yml"
    config.write_text((running.folder / "litestream.yml").read_text().replace('/replica"', '/litestream.yml/replica"'))
    process = running.restore(0)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "the application starts all the same" in output


def test_a_restore_that_fails_fails(running: Litestream) -> None:
    running.lose()
    process = running.restore(0, "-no-such-flag")
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0, output
    assert not running.database.exists()


def test_nothing_is_uploaded_where_litestream_goes_on(running: Litestream) -> None:
    running.write()
    running.start()
    while not running.replicated():
        time.sleep(0.05)
    running.stop()
    before = running.replicated()
    process = running.restore(0)
    process.communicate(timeout=60)
    assert (process.returncode, running.replicated()) == (0, before)


def test_a_script_keeps_all_but_comments_blank_lines_and_indents() -> None:
    for name in NAMES:
        lines = scripts.read(name).splitlines()
        assert all(line == line.strip() != "" and not line.startswith("#") for line in lines)
        assert not any(line.startswith(". ./") for line in lines)


def test_kubernetes_expands_nothing_in_a_script() -> None:
    """It takes `$(NAME)` for a variable of the container's, and `$$` for a dollar sign (core/v1 EnvVar)."""
    for name in NAMES:
        assert not re.search(r"\$\$|\$\([-._a-zA-Z][-._a-zA-Z0-9]*\)", scripts.read(name))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_takes_each_script(name: str, shell: str) -> None:
    if shutil.which(SHELLS[shell][0]) is None:
        pytest.skip(f"the shell {SHELLS[shell][0]} is not installed")
    subprocess.run([*SHELLS[shell], "-n", "-c", scripts.read(name)], check=True, env=ENVIRONMENT)
