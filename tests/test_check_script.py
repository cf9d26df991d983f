"""The part of the first init container that looks at volumes which outlive the Pod: hostile ones, by each shell.

Litestream is replaced by a script that lists a replica; `/etc/litestream` by a folder of the test.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from injector.pod import litestream, scripts, volumes

pytestmark = pytest.mark.slow
SHELLS = {"busybox": ["busybox", "sh"], "dash": ["dash"], "bash": ["bash", "--posix"]}
HEAD = "level  min_txid          max_txid          size     created\n"
TOOLS = ("cat", "date", "head", "mkdir", "mv", "od", "rm", "rmdir", "sleep", "sort", "stat", "timeout")


def row(transaction: int, size: int = 100, level: int = 0) -> str:
    """A line of Litestream's list."""
    return f"{level}      {transaction:016x}  {transaction:016x}  {size}  2026-11-24T12:00:00Z\n"


class Volume:
    """A database's volume, and the script over it."""

    def __init__(self, shell: list[str], folder: Path) -> None:
        self.shell, self.folder = shell, folder
        self.data, self.config, self.bin = folder / "data", folder / "config", folder / "bin"
        for made in (self.data, self.config, self.bin):
            made.mkdir()
        self.database, self.metadata = self.data / "app.db", self.data / ".app.db-litestream"
        self.note = self.metadata / "restored-txid"
        # Nothing but what the scripts name: no awk, no sed, no grep.
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or "")

    def write(self) -> None:
        with closing(sqlite3.connect(self.database)) as database:
            database.execute("CREATE TABLE t (a)")
            database.commit()

    def run(self, listed: str = HEAD, *, status: int = 0, **environment: Any) -> subprocess.CompletedProcess[str]:
        binary = self.folder / "litestream"
        (self.folder / "listed").write_text(listed)
        binary.write_text(f"#!/bin/sh\ncat '{self.folder}/listed'\nexit {status}\n")
        binary.chmod(0o755)
        script = scripts.CHECK + scripts.INIT
        script = script.replace(litestream.BINARY, str(binary)).replace(volumes.CONFIG_DIRECTORY, str(self.config))
        everything = {
            "PATH": str(self.bin),
            "LITESTREAM_STATUS": "{}",
            "LITESTREAM_CONFIG": '{"dbs":[\n]}',
            "LITESTREAM_DATABASES": str(self.database),
            "LITESTREAM_BUCKET": "litestream at http://127.0.0.1:1",
            "LITESTREAM_LOCAL_DATABASE": "ask",
            **environment,
        }
        command = [shutil.which(self.shell[0]) or "", *self.shell[1:], "-euc", script]
        return subprocess.run(command, env=everything, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(params=SHELLS)
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Volume:
    if shutil.which(SHELLS[request.param][0]) is None:
        pytest.skip(f"the shell {SHELLS[request.param][0]} is not installed")
    return Volume(SHELLS[request.param], tmp_path)


def test_a_database_that_continues_its_replica_goes_on(volume: Volume) -> None:
    volume.write()
    (volume.metadata / "ltx/0").mkdir(parents=True)
    (volume.metadata / "ltx/0" / f"{7:016x}-{7:016x}.ltx").write_bytes(b"x" * 100)
    done = volume.run(HEAD + row(6) + row(7) + row(5, level=9))
    assert (done.returncode, done.stderr) == (0, "")
    assert "(transaction 0000000000000007) continues its replica (transaction 0000000000000007)" in done.stdout


@pytest.mark.parametrize(
    ("listed", "why"), [(row(7) + row(8), "is older"), (row(7, size=101), "took another course than its replica")]
)
def test_a_database_that_is_older_or_another_one_holds_up_the_pod(volume: Volume, listed: str, why: str) -> None:
    volume.write()
    (volume.metadata / "ltx/0").mkdir(parents=True)
    (volume.metadata / "ltx/0" / f"{7:016x}-{7:016x}.ltx").write_bytes(b"x" * 100)
    before = volume.database.read_bytes()
    done = volume.run(HEAD + listed)
    assert (done.returncode, why in done.stderr) == (1, True)
    assert volume.database.read_bytes() == before


def test_a_note_says_what_was_restored(volume: Volume) -> None:
    assert volume.run(HEAD + row(9)).returncode == 0
    assert volume.note.read_text() == f"{9:016x}\n"
    volume.write()
    assert "continues its replica" in volume.run(HEAD + row(9)).stdout


def test_a_link_in_the_place_of_a_note_is_neither_read_nor_written(volume: Volume) -> None:
    volume.write()
    volume.metadata.mkdir()
    volume.note.symlink_to("/proc/self/environ")
    done = volume.run(HEAD + row(9), AWS_SECRET_ACCESS_KEY="very secret")
    assert done.returncode == 1
    assert "very secret" not in done.stdout + done.stderr
    outside = volume.folder / "outside"
    outside.write_text("outside")
    volume.note.unlink()
    volume.note.symlink_to(outside)
    assert volume.run(HEAD + row(9), LITESTREAM_LOCAL_DATABASE="keep").returncode == 0
    assert (outside.read_text(), volume.note.read_text()) == ("outside", f"{9:016x}\n")


@pytest.mark.parametrize("text", ["", "no transaction", "0" * 15, "fffffffffffffffg", "\x1b[31m", "9" * 5000])
def test_a_note_of_another_form_says_nothing(volume: Volume, text: str) -> None:
    volume.write()
    volume.metadata.mkdir()
    volume.note.write_text(text)
    done = volume.run(HEAD + row(0xFFFF_FFFF_FFFF_FFFF >> 1))
    assert done.returncode == 1
    assert "\x1b" not in done.stderr


def test_nothing_hangs_on_a_pipe_or_a_folder_in_the_place_of_a_file(volume: Volume) -> None:
    volume.metadata.mkdir()
    os.mkfifo(volume.note)
    os.mkfifo(volume.database)
    done = volume.run(HEAD + row(9))
    assert (done.returncode, "is no file" in done.stderr) == (1, True)
    volume.database.unlink()
    volume.database.mkdir()
    assert volume.run(HEAD + row(9), LITESTREAM_LOCAL_DATABASE="replace").returncode == 0
    assert not volume.database.exists()
    assert volume.note.read_text() == f"{9:016x}\n"


def test_what_is_no_database_holds_up_only_where_there_is_a_backup_to_lose(volume: Volume) -> None:
    volume.database.write_bytes(b"no database at all" * 300)
    assert "is not an SQLite database" in volume.run(HEAD + row(9)).stderr
    done = volume.run()
    assert (done.returncode, "Litestream can't replicate it" in done.stdout) == (0, True)


def test_a_database_that_is_cut_off_is_told(volume: Volume) -> None:
    volume.write()
    volume.database.write_bytes(volume.database.read_bytes()[:4096])
    assert "is cut off" in volume.run(HEAD + row(9)).stderr


def test_a_directory_that_is_not_ours_holds_up_only_where_there_is_something_to_restore(volume: Volume) -> None:
    if os.geteuid() != 0:
        pytest.skip("root alone can give a directory away")
    user = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "--"]
    shell = [*user, shutil.which(volume.shell[0]) or "", *volume.shell[1:]]
    with tempfile.TemporaryDirectory() as folder:  # nobody but root may enter pytest's own
        volume = Volume(shell, Path(folder))
        volume.config.chmod(0o777)
        volume.folder.chmod(0o755)
        done = volume.run(HEAD + row(9))
        assert done.returncode == 1
        assert 'set fsGroup, or init-first: "false"' in done.stderr
        done = volume.run()
        assert (done.returncode, "so the Pod goes on" in done.stdout) == (0, True)


def test_a_database_of_another_user_is_told(volume: Volume) -> None:
    if os.geteuid() != 0:
        pytest.skip("root alone can give a file away")
    volume.write()
    os.chown(volume.database, 1000, 1000)
    done = volume.run(HEAD + row(9))
    assert done.returncode == 1
    assert 'belongs to uid 1000, Litestream runs as 0: write run-as-user: "1000"' in done.stderr


def test_a_volume_that_is_too_small_is_told_before_the_restore(volume: Volume) -> None:
    storage = f"{1 << 30}\n{volume.database}"
    listed = HEAD + row(9, size=1_300_000_000, level=9)
    done = volume.run(listed, LITESTREAM_STORAGE=storage)
    assert (done.returncode, 'write storage: "3Gi"' in done.stderr) == (1, True)
    assert volume.run(listed, LITESTREAM_STORAGE=f"{3 << 30}\n{volume.database}").returncode == 0
    assert volume.run(listed, LITESTREAM_STORAGE=f"{1 << 30}\n/another.db").returncode == 0


def test_a_bucket_that_refuses_is_told_at_once(volume: Volume) -> None:
    done = volume.run("Error: SignatureDoesNotMatch\n", status=1)
    assert done.returncode == 1
    assert (
        "the bucket litestream at http://127.0.0.1:1 can't be read: Error: SignatureDoesNotMatch"
        in done.stderr.replace(": bucket", ": the bucket")
    )


def test_a_bucket_that_never_answers_is_told_as_well(volume: Volume) -> None:
    done = volume.run("", status=124)
    assert (done.returncode, "can't be read: no answer within 130 s\n" in done.stderr) == (1, True)


def test_of_an_answer_in_xml_the_summary_is_enough(volume: Volume) -> None:
    done = volume.run("Error: GET http://a\nERROR CODE: ContainerNotFound\n<?xml version='1.0'?>\n<Error>\n", status=1)
    assert done.stderr.endswith("can't be read: Error: GET http://a\nERROR CODE: ContainerNotFound\n\n")


def test_a_moment_is_restored_once_and_only_where_the_database_may_be_moved_aside(volume: Volume) -> None:
    moment: dict[str, Any] = {"LITESTREAM_MOMENT": "old/app.db at 2026-11-24T12:00:00Z"}
    volume.write()
    done = volume.run(**moment)
    assert (done.returncode, "and restore-from (old/app.db at 2026" in done.stderr) == (1, True)
    assert 'Set the annotation local-database to "replace"' in done.stderr
    before = volume.database.read_bytes()
    assert volume.run(LITESTREAM_LOCAL_DATABASE="replace", **moment).returncode == 0
    assert [path.read_bytes() for path in volume.data.glob("app.db.2*")] == [before]
    volume.write()
    done = volume.run(LITESTREAM_LOCAL_DATABASE="replace", **moment)
    assert (done.returncode, volume.database.exists()) == (0, True), "a second start must not rewind it"
    later: dict[str, Any] = {"LITESTREAM_MOMENT": "old/app.db at 2026-11-24T13:00:00Z"}
    assert volume.run(LITESTREAM_LOCAL_DATABASE="replace", **later).returncode == 0
    assert not volume.database.exists()
