"""The script of the first init container, run for real by each shell that is here.

One thing is replaced: `/etc/litestream`, which tests don't write to, by a folder of the test.
"""

import os
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from injector import values
from injector.pod import scripts

pytestmark = pytest.mark.slow
SHELLS = {"busybox": ["busybox", "sh"], "dash": ["dash"], "sh": ["/bin/sh"], "bash": ["bash", "--posix"]}
DATED = re.compile(r"\.\d{8}T\d{6}Z(\.\d+)?$")
# Whatever a path of a database may hold: see values.database_paths.
NAMES = [
    "app.db",
    "with space.db",
    "  two  spaces  .db",
    "-rf",
    "--help.db",
    "it's.db",
    'quo"te.db',
    "back\\slash\\n.db",
    "trailing\\",
    "semi;touch owned;.db",
    "amp&ersand|pipe.db",
    "(sub) `touch owned`.db",
    "*.db",
    "[a-z]?.db",
    "{a,b}.db",
    "~root.db",
    "!history.db",
    "ünï.db",
    "=.db",
]


@dataclass
class Shell:
    command: list[str]
    config: Path
    folder: Path

    def run(self, databases: list[Path], **environment: str) -> "subprocess.CompletedProcess[str]":
        assert "/etc/litestream" in scripts.INIT
        script = scripts.INIT.replace("/etc/litestream", str(self.config))
        return subprocess.run(
            [*self.command, "-eu", "-c", script],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "LITESTREAM_STATUS": "{}",
                "LITESTREAM_CONFIG": '{"dbs": []}',
                "LITESTREAM_DATABASES": "\n".join(map(str, databases)),
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ends_well(self, databases: list[Path], **environment: str) -> str:
        done = self.run(databases, **environment)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Shell:
    command = SHELLS[request.param]
    if shutil.which(command[0]) is None:
        pytest.skip(f"the shell {command[0]} is not installed")
    for name in ("config", "data"):
        (tmp_path / name).mkdir()
    return Shell(command, tmp_path / "config", tmp_path / "data")


def left(folder: Path) -> set[str]:
    """Names in a folder, with the dates of what was moved aside cut."""
    return {DATED.sub(".DATED", path.name) for path in folder.iterdir()}


@pytest.mark.parametrize(
    "text", ['{"path": "/data/a b.db"}', "$HOME `id` \\n %s %% \"'", "-n", "a\nb\n\n", "ü" * 30_000]
)
def test_the_config_is_written_byte_for_byte_for_its_owner_alone(shell: Shell, text: str) -> None:
    shell.ends_well([], LITESTREAM_CONFIG=text)
    written = shell.config / "litestream.yml"
    assert written.read_bytes() == text.encode()
    assert stat.S_IMODE(written.stat().st_mode) == 0o400
    assert left(shell.config) - {"database-0.yml"} == {"litestream.yml"}


def test_a_config_that_is_there_is_replaced_at_once_and_not_written_into(shell: Shell) -> None:
    old = shell.config / "litestream.yml"
    old.write_text("old")
    os.link(old, shell.config / "held open")
    shell.ends_well([], LITESTREAM_CONFIG="new", LITESTREAM_RESTORE_FROM="from")
    assert old.read_text() == "new"
    assert (shell.config / "held open").read_text() == "old", "the old file was written into"
    assert (shell.config / "restore-from.yml").read_text() == "from"
    assert stat.S_IMODE((shell.config / "restore-from.yml").stat().st_mode) == 0o400


def test_without_databases_nothing_is_touched(shell: Shell) -> None:
    (shell.folder / "app.db-wal").write_text("x")
    for environment in ({}, {"LITESTREAM_DATABASES": ""}):
        shell.ends_well([], **environment)
    assert left(shell.folder) == {"app.db-wal"}


@pytest.mark.parametrize("name", NAMES)
def test_leftovers_of_a_missing_database_are_moved_aside_and_not_deleted(shell: Shell, name: str) -> None:
    database = shell.folder / name
    for side in ("-wal", "-shm", "-journal"):
        (shell.folder / (name + side)).write_text(side)
    (shell.folder / f".{name}-litestream").mkdir()
    (shell.folder / f".{name}-litestream" / "ltx").write_text("ltx")
    shell.ends_well([database])
    dated = {f"{name}-wal.DATED", f"{name}-shm.DATED", f"{name}-journal.DATED", f".{name}-litestream.DATED"}
    assert left(shell.folder) == dated
    assert {path.read_text() for path in shell.folder.iterdir() if path.is_file()} == {"-wal", "-shm", "-journal"}


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_database_is_removed_and_its_neighbours_stay(shell: Shell, name: str) -> None:
    (shell.folder / name).touch()
    for neighbour in ("other.db", "a.db", "x.db-wal"):
        (shell.folder / neighbour).write_text("")
    shell.ends_well([shell.folder / name])
    assert left(shell.folder) == {"other.db", "a.db", "x.db-wal"} - {name}


@pytest.mark.parametrize("name", NAMES)
def test_a_database_with_content_and_its_log_stay(shell: Shell, name: str) -> None:
    files = {name: "content", f"{name}-wal": "log", f"{name}-shm": "index", f"{name}-journal": "journal"}
    for file, text in files.items():
        (shell.folder / file).write_text(text)
    assert shell.ends_well([shell.folder / name]) == ""
    assert {path.name: path.read_text() for path in shell.folder.iterdir()} == files


def test_each_of_many_databases_is_looked_at(shell: Shell) -> None:
    databases = [shell.folder / name for name in NAMES]
    for database in databases:
        database.touch()
        database.with_name(database.name + "-wal").write_text("x")
    shell.ends_well(databases)
    assert left(shell.folder) == {f"{name}-wal.DATED" for name in NAMES}


def test_what_was_moved_aside_before_is_not_overwritten(shell: Shell) -> None:
    """Lives that follow each other within one second, each with a leftover of its own."""
    database = shell.folder / "app.db"
    for life in range(5):
        (shell.folder / "app.db-wal").write_text(f"life {life}")
        shell.ends_well([database])
    assert {path.read_text() for path in shell.folder.iterdir()} == {f"life {life}" for life in range(5)}


def test_a_second_run_changes_nothing(shell: Shell) -> None:
    (shell.folder / "app.db-wal").write_text("x")
    shell.ends_well([shell.folder / "app.db"])
    before = sorted(path.name for path in shell.folder.iterdir())
    assert shell.ends_well([shell.folder / "app.db"]) == ""
    assert sorted(path.name for path in shell.folder.iterdir()) == before


def test_a_folder_that_is_not_there_yet_is_no_mistake(shell: Shell) -> None:
    shell.ends_well([shell.folder / "new" / "deep" / "app.db"])
    assert left(shell.folder) == set()


def test_a_folder_in_the_place_of_a_database_is_left_alone(shell: Shell) -> None:
    (shell.folder / "app.db").mkdir()
    shell.ends_well([shell.folder / "app.db"])
    assert left(shell.folder) == {"app.db"}


@pytest.mark.parametrize("shell", [name for name in SHELLS if name != "busybox"], indirect=True)
@pytest.mark.parametrize("command", ["mv", "rm", "date"])
def test_a_command_that_fails_fails_the_container(shell: Shell, tmp_path: Path, command: str) -> None:
    """Judged by the shells that look commands up: busybox has its own."""
    broken = tmp_path / "bin"
    broken.mkdir()
    (broken / command).write_text("#!/bin/sh\nexit 7\n")
    (broken / command).chmod(0o755)
    (shell.folder / "app.db").touch()
    (shell.folder / "app.db-wal").write_text("x")
    done = shell.run([shell.folder / "app.db"], PATH=f"{broken}:{os.environ['PATH']}")
    assert done.returncode == 7
    assert (shell.folder / "app.db-wal").read_text() == "x"


def test_a_config_that_can_not_be_written_fails_the_container(shell: Shell) -> None:
    (shell.config / "litestream.yml.new").mkdir()
    (shell.folder / "app.db").touch()
    assert shell.run([shell.folder / "app.db"]).returncode != 0
    assert left(shell.folder) == {"app.db"}, "nothing is removed before the config is there"


def test_a_missing_variable_fails_the_container(shell: Shell) -> None:
    done = subprocess.run(
        [*shell.command, "-eu", "-c", scripts.INIT.replace("/etc/litestream", str(shell.config))],
        env={"PATH": os.environ["PATH"], "LITESTREAM_STATUS": "{}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "LITESTREAM_CONFIG" in done.stderr


def test_a_copy_of_a_pod_without_a_status_does_nothing(shell: Shell) -> None:
    (shell.folder / "app.db").touch()
    done = shell.run([shell.folder / "app.db"], LITESTREAM_STATUS="")
    assert (done.returncode, left(shell.folder), left(shell.config)) == (1, {"app.db"}, set())
    assert "no status annotation" in done.stderr


def test_each_database_gets_a_config_of_its_own(shell: Shell) -> None:
    config = '{"logging":{},\n"socket":{},\n"dbs":[\n{"path":"/a b/*.db","x":1},\n{"path":"/c.db"}\n]}'
    shell.ends_well([], LITESTREAM_CONFIG=config, LITESTREAM_SIDECAR_SCRIPT="run")
    made = {path.name: path.read_text() for path in shell.config.iterdir()}
    assert made.pop("litestream.yml") == config
    assert made.pop("sidecar.sh") == "run"
    assert made == {
        "database-0.yml": '{"logging":{},"dbs":[{"path":"/a b/*.db","x":1}]}',
        "database-1.yml": '{"logging":{},"dbs":[{"path":"/c.db"}]}',
    }


def test_a_tool_that_the_image_lacks_is_named(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    command = [shutil.which(shell.command[0]) or "", *shell.command[1:]]
    done = Shell(command, shell.config, shell.folder).run([], PATH=str(tmp_path / "empty"))
    if command[0].endswith("busybox"):  # which has its own
        assert (done.returncode, done.stderr) == (0, "")
        return
    assert (done.returncode, done.stderr) == (1, "The image has no cat: use one with coreutils or busybox.\n")


@pytest.mark.parametrize("shell", [name for name in SHELLS if name != "busybox"], indirect=True)
@pytest.mark.parametrize("missing", ["head", "id", "sleep", "stat", "timeout"])
def test_a_tool_that_the_sidecar_lacks_is_named_before_it_starts(shell: Shell, tmp_path: Path, missing: str) -> None:
    (tmp_path / "some").mkdir()
    for tool in {"cat", "date", "head", "id", "mv", "rm", "sleep", "stat", "timeout"} - {missing}:
        (tmp_path / "some" / tool).symlink_to(shutil.which(tool) or "")
    command = [shutil.which(shell.command[0]) or "", *shell.command[1:]]
    found = Shell(command, shell.config, shell.folder)
    done = found.run([], PATH=str(tmp_path / "some"), LITESTREAM_SIDECAR_SCRIPT="run")
    assert (done.returncode, done.stderr) == (1, f"The image has no {missing}: use one with coreutils or busybox.\n")
    assert found.run([], PATH=str(tmp_path / "some")).returncode == 0, (
        "without a sidecar's script none of them is needed"
    )


def test_links_and_what_a_killed_restore_left_do_not_lead_elsewhere(shell: Shell, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("outside")
    for name in ("app.db-wal", "app.db.tmp", ".app.db-litestream"):
        (shell.folder / name).symlink_to(outside)
    os.mkfifo(shell.folder / "app.db-shm")
    shell.ends_well([shell.folder / "app.db"])
    assert outside.read_text() == "outside"
    assert left(shell.folder) == {"app.db-wal.DATED", "app.db-shm.DATED", ".app.db-litestream.DATED"}


def test_the_longest_name_can_be_moved_aside(shell: Shell) -> None:
    name = "n" * values.LONGEST_FILE_NAME
    for life in range(3):
        (shell.folder / f".{name}-litestream").mkdir()
        (shell.folder / f".{name}-litestream" / "life").write_text(str(life))
        shell.ends_well([shell.folder / name])
    assert left(shell.folder) == {f".{name}-litestream.DATED"}
    assert len(list(shell.folder.iterdir())) == 3
