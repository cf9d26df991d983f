"""The script of `status`, by each shell that is here: a real Litestream, volumes that lie, buckets that do not answer.

Replaced are `/etc/litestream` by a folder of the test, and the place of the binary.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sysconfig
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from injector.command import sidecar
from injector.command.sidecar import SILENT, Report
from injector.pod import litestream, scripts, volumes
from tests.test_init_script import SHELLS
from tests.test_sidecar_script import Sidecar, until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow
BINARY = Path(sysconfig.get_path("scripts"), "litestream")
# Answers what the file beside it with the command's name says, ends as that says, and notes that it was asked.
STAND_IN = """#!/bin/sh
echo "$1" >> "${0%/*}/asked"
. "${0%/*}/$1"
"""


class Asked(Sidecar):
    """A sidecar that can be asked for its state."""

    def report(self) -> Report:
        script = scripts.read("report").replace(litestream.BINARY, str(self.binary))
        command = [*self.shell, "-c", script.replace(volumes.CONFIG_DIRECTORY, str(self.config)), "report"]
        paths = list(map(str, self.databases))
        environment = {**self.environment(), "PATH": self.path}
        done = subprocess.run([*command, *paths], env=environment, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return sidecar.read(done.stdout, paths)

    def answers(self, **commands: str) -> None:
        self.binary = self.folder / "litestream"
        self.binary.write_text(STAND_IN)
        self.binary.chmod(0o755)
        self.command("run")  # writes the script that says what is wrong
        for name, text in {
            "info": 'echo \'{"version": "0.5.17"}\'',
            "list": "echo '{}'",
            "ltx": "",
            **commands,
        }.items():
            (self.folder / name).write_text(text)

    def seen(self, *names: str) -> None:
        folder = self.metadata / "ltx" / "0"
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()

    def asked(self, command: str) -> int:
        return (self.folder / "asked").read_text().split().count(command)


@pytest.fixture(params=[name for name in SHELLS if name != "sh"])
def asked(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Asked]:
    for needed in (SHELLS[request.param][0], "sqlite3"):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not installed")
    found = Asked(tmp_path, SHELLS[request.param])
    yield found
    if found.process is not None:
        os.killpg(found.process.pid, 9)
        found.process.wait()


def transaction(number: int) -> str:
    return f"{number:016x}"


def test_a_real_litestream_says_where_each_database_is(asked: Asked) -> None:
    asked.databases = [asked.data / "app.db", asked.data / "my $(other) 'db'", asked.data / "none.db"]
    asked.configured({})
    for database in asked.databases[:2]:
        with closing(sqlite3.connect(database)) as rows:
            rows.execute("PRAGMA journal_mode=wal")
            rows.execute("CREATE TABLE t (a)")
    asked.start()
    until(lambda: all(each.replica_position for each in asked.report().databases[:2]), asked.log)
    report = asked.report()
    assert (report.version, report.wrong) == ("0.5.17", [])
    for found in report.databases[:2]:
        assert found.size
        assert found.position == found.replica_position == transaction(1)
        assert found.age is not None
        assert found.written is not None
        assert not found.bucket
    none = report.databases[2]
    assert none == sidecar.Database(str(asked.databases[2]))


def test_what_the_sidecar_says_is_wrong_is_told(asked: Asked) -> None:
    asked.answers()
    (asked.config / "fault").write_text("litestream-hook: /data/app.db is locked\nlitestream-hook: so is another\n")
    assert asked.report().wrong == ["/data/app.db is locked", "so is another"]


def test_a_litestream_that_is_away_is_told_once(asked: Asked) -> None:
    gone = "echo 'Error: failed to connect to control socket' >&2; exit 1"
    asked.answers(info=gone, list=gone)
    assert asked.report().wrong == ["Litestream does not answer: failed to connect to control socket"]


@pytest.mark.parametrize("code", [124, 143])
def test_a_bucket_that_is_silent_is_asked_once_and_is_the_reason_for_all_else(asked: Asked, code: int) -> None:
    """143 is what older releases of busybox make of it."""
    asked.databases = [asked.data / "a.db", asked.data / "b.db"]
    asked.answers(ltx=f"exit {code}", list="echo 'Error: deadline exceeded' >&2; exit 1")
    report = asked.report()
    assert [database.bucket for database in report.databases] == [SILENT, SILENT]
    assert report.wrong == []
    assert asked.asked("ltx") == 1


def test_a_bucket_that_refuses_is_quoted_in_one_line(asked: Asked) -> None:
    asked.answers(ltx="echo 'Error: operation error S3: AccessDenied:' >&2; echo '  you may not' >&2; exit 1")
    assert [each.bucket for each in asked.report().databases] == ["operation error S3: AccessDenied: you may not"]


@pytest.mark.parametrize(
    "names",
    [(), ("-n",), ("zz.ltx",), ("\x1ereplica",), ("z\n\x1ereplica 0",), (f"{transaction(3)}-{transaction(4)}.ltx 1",)],
    ids=["none", "flag", "word", "separator", "line", "time"],
)
def test_names_that_the_application_made_up_are_no_position(asked: Asked, names: tuple[str, ...]) -> None:
    asked.answers(ltx="echo 'level  min_txid  max_txid  size  created'")
    asked.seen(*names)
    assert len(asked.report().databases) == 1
    (database,) = asked.report().databases
    assert (database.position, database.replica_position) == (None, None)


def test_the_newest_of_each_is_the_position(asked: Asked) -> None:
    row = f"0      {transaction(2)}  {transaction(9)}  567   2026-11-29T23:16:19Z"
    asked.answers(ltx=f"echo 'level  min_txid'; echo '0 {transaction(1)} {transaction(1)} 5 t'; echo '{row}'")
    asked.seen(f"{transaction(9)}-{transaction(9)}.ltx", f"{transaction(10)}-{transaction(10)}.ltx")
    (database,) = asked.report().databases
    assert (database.position, database.replica_position) == (transaction(10), transaction(9))


def test_it_writes_nothing(asked: Asked) -> None:
    asked.answers(ltx="exit 1")
    before = sorted(path.name for path in (*asked.data.iterdir(), *asked.config.iterdir()))
    asked.report()
    assert sorted(path.name for path in (*asked.data.iterdir(), *asked.config.iterdir())) == before
