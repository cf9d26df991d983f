"""The script of the sidecar, by each shell that is here: hostile volumes, and a Litestream that dies.

Three things are replaced: `/etc/litestream` by a folder of the test, the place of the binary, and how long SQLite may
take.
"""

from __future__ import annotations

import contextlib
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
from typing import TYPE_CHECKING, Any

import pytest

from injector.pod import litestream, scripts, volumes
from tests.test_init_script import NAMES, SHELLS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

pytestmark = pytest.mark.slow
BINARY = Path(sysconfig.get_path("scripts"), "litestream")
SECRET = "very secret"
SECONDS = 60
# Lives until SIGTERM, and says what it was asked to do; with a file `dies` beside it, its replication ends at once.
STAND_IN = """#!/bin/sh
echo "stand-in: $*"
[ "$1" = replicate ] || exit 0
[ ! -e "${0%/*}/dies" ] || exit 3
case $* in *-once*) exit 0 ;; esac
trap 'exit 0' TERM
while :; do sleep 0.1; done
"""


class Sidecar:
    """A volume, the files of the config volume, and the script between them."""

    def __init__(self, folder: Path, shell: list[str]) -> None:
        self.folder, self.shell = folder, [shutil.which(shell[0]) or "", *shell[1:]]
        self.data, self.config = folder / "data", folder / "config"
        for made in (self.data, self.config):
            made.mkdir()
        self.database = self.data / "app.db"
        self.databases = [self.database]
        self.binary = BINARY
        self.path = os.environ["PATH"]
        self.outside = folder / "outside"
        self.outside.write_text(SECRET)
        self.output = folder / "output"
        self.process: subprocess.Popen[bytes] | None = None
        self.configured({})

    @property
    def metadata(self) -> Path:
        return self.data / ".app.db-litestream"

    @property
    def note(self) -> Path:
        return self.metadata / "ended-in-order"

    def configured(self, replicas: dict[Path, Path]) -> None:
        """Write the configs as the first init container does; a replica is a folder."""
        common = {"shutdown-sync-timeout": "3s"}
        socket = {"enabled": True, "path": str(self.config / "litestream.sock")}
        dbs = []
        for number, database in enumerate(self.databases):
            path = replicas.get(database, self.folder / "replica" / database.name)
            dbs.append(
                {"path": str(database), "replicas": [{"type": "file", "path": str(path), "sync-interval": "1s"}]}
            )
            (self.config / f"database-{number}.yml").write_text(json.dumps({**common, "dbs": dbs[-1:]}))
        (self.config / "litestream.yml").write_text(json.dumps({**common, "socket": socket, "dbs": dbs}))

    def stand_in(self) -> None:
        """Replace Litestream, which itself would follow a link or wait for a pipe."""
        self.binary = self.folder / "litestream"
        self.binary.write_text(STAND_IN)
        self.binary.chmod(0o755)

    def naps(self, seconds: str) -> None:
        """Let every `sleep` of the script take that long."""
        tools = self.folder / "bin"
        tools.mkdir()
        (tools / "sleep").write_text(f"#!/bin/sh\nexec {shutil.which('sleep')} {seconds}\n")
        (tools / "sleep").chmod(0o755)
        self.path = f"{tools}:{self.path}"

    def command(self, *arguments: str) -> list[str]:
        script = scripts.SIDECAR.replace(litestream.BINARY, str(self.binary))
        script = re.sub("timeout [0-9]+ sqlite3", "timeout 1 sqlite3", script)
        (self.config / "sidecar.sh").write_text(script.replace(volumes.CONFIG_DIRECTORY, str(self.config)))
        return [*self.shell, str(self.config / "sidecar.sh"), *arguments]

    def environment(self) -> dict[str, str]:
        databases = "\n".join(map(str, self.databases))
        return {"PATH": self.path, "LITESTREAM_DATABASES": databases, "AWS_SECRET_ACCESS_KEY": SECRET}

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Call a mode of the script, or one of its functions."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def start(self) -> None:
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                self.command("run"),
                env=self.environment(),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def log(self) -> str:
        return self.output.read_text()

    def wait_log(self, text: str, times: int = 1) -> None:
        until(lambda: self.log().count(text) >= times, self.log)

    def pid(self) -> int:
        """The process of Litestream, once it has the databases open."""
        file = self.config / "pid"
        until(lambda: content(file) != "", self.log)
        return int(content(file))

    def opened(self) -> None:
        """Wait until Litestream replicates."""
        until(lambda: list((self.folder / "replica").rglob("*.ltx")) != [], self.log)

    def kill(self) -> None:
        """Litestream alone dies, and is noticed."""
        pid = self.pid()
        os.kill(pid, signal.SIGKILL)
        file = self.config / "pid"
        until(lambda: content(file) != str(pid), self.log)

    def end(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(SECONDS)

    def write(self, number: int, database: Path | None = None) -> None:
        with closing(sqlite3.connect(database or self.database, isolation_level=None, timeout=20)) as rows:
            rows.execute("PRAGMA journal_mode=wal")
            rows.execute("CREATE TABLE IF NOT EXISTS t (a)")
            rows.execute("INSERT INTO t VALUES (?)", (number,))

    def log_left(self) -> None:
        """A WAL with content, as a killed application leaves it."""
        copy = self.folder / "copy"
        copy.mkdir()
        with closing(sqlite3.connect(self.database, isolation_level=None)) as rows:
            rows.execute("PRAGMA journal_mode=wal")
            rows.execute("CREATE TABLE t (a)")
            for file in self.data.iterdir():
                shutil.copy(file, copy)
        for file in copy.iterdir():
            shutil.move(file, self.data / file.name)

    def restored(self, name: str = "app.db") -> list[int]:
        """The rows in a replica."""
        target = self.folder / "restored.db"
        target.unlink(missing_ok=True)
        command = [str(BINARY), "restore", "-o", str(target), f"file://{self.folder}/replica/{name}"]
        subprocess.run(command, check=True, env={"PATH": os.environ["PATH"]}, capture_output=True, timeout=SECONDS)
        with closing(sqlite3.connect(target)) as rows:
            return [number for (number,) in rows.execute("SELECT a FROM t ORDER BY a")]


def content(file: Path) -> str:
    """What is in a file; nothing, if it is not there, also if it goes this very moment."""
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def until(happened: Any, tell: Any) -> None:
    """Wait until something has happened; what is told is in the failure."""
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < deadline, tell()
        time.sleep(0.02)


@pytest.fixture(params=[name for name in SHELLS if name != "sh"])
def sidecar(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sidecar]:
    for needed in (SHELLS[request.param][0], "sqlite3"):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not installed")
    found = Sidecar(tmp_path, SHELLS[request.param])
    yield found
    if found.process is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(found.process.pid, signal.SIGKILL)
        found.process.wait()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "file").write_text("x")


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


def link_to_environment(path: Path) -> None:
    path.symlink_to("/proc/self/environ")


def dangling(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


def link_outside(path: Path) -> None:
    path.symlink_to(path.parents[2] / "outside" if path.parent.name.startswith(".") else path.parents[1] / "outside")


HOSTILE = [pipe, folder, huge, link_to_environment, link_outside, dangling]


@pytest.mark.parametrize("put", HOSTILE)
def test_nothing_in_the_place_of_a_note_is_believed_told_or_written_through(sidecar: Sidecar, put: Any) -> None:
    sidecar.stand_in()
    sidecar.log_left()
    sidecar.metadata.mkdir()
    put(sidecar.note)
    put(sidecar.metadata / "ended-in-order.new")
    sidecar.start()
    sidecar.wait_log("stand-in: replicate")
    assert "app.db: WAL emptied, so that all of it is uploaded" in sidecar.log()
    assert sidecar.end() == 0
    assert SECRET not in sidecar.log()
    assert sidecar.outside.read_text() == SECRET
    assert (sidecar.note.is_symlink(), sidecar.note.is_file()) == (False, True)
    assert sidecar.note.read_text().startswith(f"{sidecar.database.stat().st_ino} ")
    assert not (sidecar.metadata / "ended-in-order.new").exists()


def test_no_note_is_written_through_a_link_in_the_place_of_the_metadata(sidecar: Sidecar) -> None:
    sidecar.stand_in()
    sidecar.write(1)
    elsewhere = sidecar.folder / "elsewhere"
    elsewhere.mkdir()
    sidecar.metadata.symlink_to(elsewhere)
    sidecar.start()
    sidecar.wait_log("stand-in: replicate")
    assert sidecar.end() == 0
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("put", HOSTILE)
@pytest.mark.parametrize("side", ["-wal", "-shm", "-journal"])
def test_nothing_hangs_on_what_lies_beside_a_database(sidecar: Sidecar, side: str, put: Any) -> None:
    sidecar.stand_in()
    sidecar.log_left()
    beside = sidecar.data / f"app.db{side}"
    beside.unlink(missing_ok=True)
    put(beside)
    if put is pipe:
        beside.chmod(0o400)  # SQLite opens it for reading only then, and waits for somebody who writes
    sidecar.start()
    sidecar.wait_log("stand-in: replicate")
    assert sidecar.call("fault", str(sidecar.database)).returncode == 0
    assert sidecar.end() == 0
    assert SECRET not in sidecar.log()
    assert sidecar.outside.read_text() == SECRET


@pytest.mark.parametrize("put", HOSTILE)
def test_nothing_in_the_place_of_a_database_hangs_or_is_told(sidecar: Sidecar, put: Any) -> None:
    sidecar.stand_in()
    put(sidecar.database)
    sidecar.start()
    sidecar.wait_log("stand-in: replicate")
    said = sidecar.call("fault", str(sidecar.database))
    known = put is not dangling and put is not link_to_environment
    assert ("is encrypted or no SQLite database" in said.stdout) == known, said.stdout
    assert SECRET not in said.stdout
    assert sidecar.end() == 0
    assert SECRET not in sidecar.log()
    assert sidecar.outside.read_text() == SECRET


@pytest.mark.parametrize("name", [name for name in NAMES if name != "app.db"])
def test_a_name_is_told_as_it_is(sidecar: Sidecar, name: str) -> None:
    database = sidecar.data / name
    database.write_text("no database")
    sidecar.databases = [database]
    said = sidecar.call("fault", str(database)).stdout
    assert said == f"litestream-hook: {database} is encrypted or no SQLite database: write the path of one that is\n"
    database.unlink()
    sidecar.write(1, database)
    (sidecar.data / f".{name}-litestream").mkdir()
    assert sidecar.call("note", str(database)).stdout == ""
    note = sidecar.data / f".{name}-litestream" / "ended-in-order"
    assert note.read_text().startswith(f"{database.stat().st_ino} ")


@pytest.mark.parametrize(
    "name", ["new\nline.db", "\x1b[31mred.db", "re\rturn.db"], ids=["a new line", "an escape", "a return"]
)
def test_a_neighbour_whose_name_could_forge_lines_is_not_told(sidecar: Sidecar, name: str) -> None:
    sidecar.write(1, sidecar.data / name)
    assert sidecar.call("fault", str(sidecar.database)).stdout == ""
    sidecar.write(1, sidecar.data / "typo.db")
    said = sidecar.call("fault", str(sidecar.database)).stdout
    assert said.startswith(f"litestream-hook: {sidecar.database} is missing, but {sidecar.data}/typo.db is there")


def test_what_litestream_writes_through_a_link_does_not_become_a_script_that_is_run(sidecar: Sidecar) -> None:
    """The names of its next files are known, and their bytes are the application's."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to take root's capabilities away")
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"]
    init = scripts.INIT.replace(volumes.CONFIG_DIRECTORY, str(sidecar.config))
    text = "exit 0 # of the sidecar"
    environment = {
        "PATH": os.environ["PATH"],
        "LITESTREAM_STATUS": "{}",
        "LITESTREAM_CONFIG": (sidecar.config / "litestream.yml").read_text(),
        "LITESTREAM_SIDECAR_SCRIPT": text,
    }
    subprocess.run([*without, *sidecar.shell, "-euc", init], env=environment, check=True, timeout=SECONDS)
    script = sidecar.config / "sidecar.sh"
    sidecar.write(1)
    command = [*without, str(BINARY), "replicate", "-config", str(sidecar.config / "litestream.yml")]
    with sidecar.output.open("ab") as output:
        sidecar.process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    sidecar.opened()
    for number in range(2, 9):
        (sidecar.metadata / "ltx/0" / f"{number:016x}-{number:016x}.ltx.tmp").symlink_to(script)
    sidecar.write(2)
    until(lambda: "permission denied" in sidecar.log() or script.read_bytes() != text.encode(), sidecar.log)
    assert script.read_bytes() == text.encode()


def test_an_end_in_order_is_noted_and_the_next_life_uploads_nothing_anew(sidecar: Sidecar) -> None:
    sidecar.write(1)
    sidecar.start()
    sidecar.opened()
    sidecar.write(2)
    assert sidecar.end() == 0, sidecar.log()
    assert sidecar.restored() == [1, 2]
    assert sidecar.note.exists()
    sidecar.start()
    sidecar.pid()
    assert sidecar.end() == 0, sidecar.log()
    assert "WAL emptied" not in sidecar.log()


def test_without_sqlite3_the_container_ends_so_that_the_kubelet_starts_it(sidecar: Sidecar) -> None:
    tools = sidecar.folder / "bin"
    tools.mkdir()
    for tool in ("cat", "date", "head", "id", "mv", "rm", "sleep", "stat", "timeout"):
        (tools / tool).symlink_to(shutil.which(tool) or "")
    sidecar.path = str(tools)
    sidecar.write(1)
    sidecar.start()
    sidecar.opened()
    os.kill(sidecar.pid(), signal.SIGKILL)
    assert sidecar.process is not None
    assert sidecar.process.wait(SECONDS) == 128 + signal.SIGKILL


def test_five_deaths_in_ten_minutes_fail_readiness_with_the_reason_until_they_are_long_ago(sidecar: Sidecar) -> None:
    sidecar.naps("0.5")  # but in busybox, which has a `sleep` of its own
    sidecar.stand_in()
    (sidecar.folder / "dies").touch()
    sidecar.start()
    sidecar.wait_log("Litestream ended with 3, 4 times in ten minutes: it starts again in 4 s")
    sidecar.wait_log("Litestream ended with 3, 5 times in ten minutes: it starts again in 8 s")
    deaths = sidecar.config / "deaths"
    until(lambda: content(deaths).count("\n") == 2, sidecar.log)
    dead = sidecar.call("ready")
    assert (dead.returncode, dead.stdout) == (
        1,
        "litestream-hook: Litestream ended with 3, 5 times in ten minutes: its log says why; after 137 write a higher"
        " memory-limit\n",
    )
    first, why = deaths.read_text().splitlines()
    (sidecar.config / "fault").write_text("litestream-hook: a sentence")
    assert sidecar.call("ready").stdout == f"litestream-hook: a sentence\n{why}\n"
    (sidecar.config / "fault").unlink()
    deaths.write_text(f"{int(first) - 601}\n{why}\n")
    assert sidecar.call("ready").returncode == 0
    assert sidecar.call("alive").returncode == 0, "what restarts the container costs rows"


@pytest.mark.parametrize("sidecar", ["dash", "bash"], indirect=True)
def test_deaths_that_are_long_ago_do_not_count(sidecar: Sidecar) -> None:
    """200 s pass at each look at the clock; busybox has one of its own."""
    sidecar.naps("0.1")
    tools = sidecar.folder / "bin"
    clock = tools / "date"
    clock.write_text(f'#!/bin/sh\nread -r now < {tools}/now\necho $((now + 200)) > {tools}/now\necho "$now"\n')
    clock.chmod(0o755)
    (tools / "now").write_text("1000000\n")
    sidecar.stand_in()
    (sidecar.folder / "dies").touch()
    sidecar.start()
    sidecar.wait_log("4 times in ten minutes", times=2)
    assert not (sidecar.config / "deaths").exists()


@pytest.mark.parametrize("sidecar", ["dash", "bash"], indirect=True)
def test_litestream_that_dies_before_its_watcher_looks_is_started_again_every_time(sidecar: Sidecar) -> None:
    """No pause is as long as it should be; busybox has a `sleep` of its own."""
    sidecar.naps("0.01")
    sidecar.stand_in()
    (sidecar.folder / "dies").touch()
    sidecar.start()
    sidecar.wait_log("Litestream ended with 3, 60 times in ten minutes: it starts again in 30 s")


def test_a_pod_that_ends_between_two_lives_of_litestream_gets_its_final_sync(sidecar: Sidecar) -> None:
    sidecar.write(1)
    sidecar.start()
    sidecar.opened()
    for _ in range(3):
        sidecar.kill()
    sidecar.wait_log("3 times in ten minutes: it starts again in 2 s")
    sidecar.write(2)
    assert not (sidecar.config / "pid").exists()
    assert sidecar.end() == 0, sidecar.log()
    assert sidecar.restored() == [1, 2]
    assert sidecar.note.exists()


def test_a_database_that_can_not_be_synced_holds_up_no_other_one(sidecar: Sidecar) -> None:
    bad, good = sidecar.data / "bad.db", sidecar.database
    # Four are synced at a time: the last one has to wait for the first.
    sidecar.databases = [bad, *(sidecar.data / f"later-{number}.db" for number in range(3)), good]
    sidecar.configured({bad: sidecar.outside / "replica"})  # a file, so that nothing can be made there
    for database in (bad, good):
        sidecar.write(1, database)
    sidecar.start()
    sidecar.opened()
    for _ in range(3):
        sidecar.kill()
    sidecar.wait_log("3 times in ten minutes")
    sidecar.write(2)
    assert sidecar.process is not None
    sidecar.process.terminate()
    sidecar.wait_log(f"{bad}: its final sync failed and is tried again", times=2)
    until(sidecar.note.exists, sidecar.log)
    assert sidecar.restored() == [1, 2]
    assert sidecar.process.poll() is None, "it tries until the kubelet's patience ends"


def test_a_file_that_is_replaced_is_replicated_from_then_on(sidecar: Sidecar) -> None:
    sidecar.write(1)
    sidecar.start()
    sidecar.opened()
    new = sidecar.data / "new.db"
    sidecar.write(7, new)
    until(lambda: f"{sidecar.database}" in str(links(sidecar.pid())), sidecar.log)
    time.sleep(3)  # the shell, too, has to have seen the first file: it looks every two seconds
    for side in ("-wal", "-shm"):
        (sidecar.data / f"app.db{side}").unlink()
    new.rename(sidecar.database)
    sidecar.wait_log("app.db is another file now")
    sidecar.wait_log("control socket listening", times=2)
    sidecar.write(8)
    assert sidecar.end() == 0
    assert sidecar.restored() == [7, 8]


def links(pid: int) -> Iterable[str]:
    with contextlib.suppress(OSError):
        return [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    return []


def test_a_database_that_litestream_does_not_open_is_told_after_a_while(sidecar: Sidecar) -> None:
    sidecar.write(1)
    assert sidecar.call("eval", f"shut=19 && fault '{sidecar.database}'").stdout == ""
    said = sidecar.call("eval", f"shut=20 && fault '{sidecar.database}'").stdout
    assert said == f"litestream-hook: {sidecar.database} is not opened by Litestream: its log says why\n"


@pytest.fixture
def barred(sidecar: Sidecar) -> Sidecar:
    """The first of two databases can't be opened by Litestream, and that is known: looks are soon one after another."""
    sidecar.naps("0.1")
    sidecar.databases = [sidecar.database, sidecar.data / "good.db"]
    sidecar.configured({})
    for database in sidecar.databases:
        sidecar.write(1, database)
    sidecar.metadata.touch()  # Litestream can't make its folder there
    sidecar.start()
    sidecar.opened()
    until(lambda: sidecar.call("ready").returncode == 1, sidecar.log)
    return sidecar


@pytest.mark.parametrize("sidecar", ["dash", "bash"], indirect=True)
def test_why_litestream_does_not_open_a_database_is_told_by_readiness(barred: Sidecar) -> None:
    """Busybox has a `sleep` of its own."""
    said = barred.call("ready").stdout
    assert said == f"litestream-hook: {barred.database} is not opened by Litestream: its log says why\n"
    assert said in barred.log()
    barred.metadata.unlink()
    until(lambda: barred.call("ready").returncode == 0, barred.log)
    assert "litestream-hook: nothing is wrong any more" in barred.log()


@pytest.mark.parametrize("sidecar", ["dash", "bash"], indirect=True)
def test_a_database_that_litestream_does_not_open_does_not_hold_up_the_end(barred: Sidecar) -> None:
    barred.write(2, barred.databases[1])
    assert barred.end() == 0, barred.log()
    assert barred.restored("good.db") == [1, 2]
    assert (barred.data / ".good.db-litestream" / "ended-in-order").exists()


def test_what_is_known_to_be_wrong_fails_readiness(sidecar: Sidecar) -> None:
    assert sidecar.call("ready").returncode == 0
    (sidecar.config / "fault").write_text("litestream-hook: a sentence")
    said = sidecar.call("ready")
    assert (said.returncode, said.stdout) == (1, "litestream-hook: a sentence\n")
    (sidecar.config / "fault").write_text("")
    assert sidecar.call("ready").returncode == 0


def test_the_application_is_held_back_until_litestream_goes_on_but_not_for_long(sidecar: Sidecar) -> None:
    sidecar.write(1)
    assert sidecar.call("started").returncode == 0, "Litestream begins anew with it"
    (sidecar.metadata / "ltx").mkdir(parents=True)
    assert sidecar.call("started").returncode == 0, "it returns, whether Litestream has it open or not"
    shutil.rmtree(sidecar.metadata)
    sidecar.start()
    sidecar.opened()
    assert sidecar.call("started").returncode == 0
    assert str(sidecar.database) in links(sidecar.pid())
