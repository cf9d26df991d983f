"""One life of a container: a process that runc starts, watched until it has ended."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

CGROUPS = Path("/sys/fs/cgroup")
V1 = (CGROUPS / "memory").is_dir()
ENVIRONMENT = {"PATH": os.defpath + ":/usr/sbin:/sbin:/usr/local/bin:/usr/local/sbin"}
START_SECONDS = 60
REAP_SECONDS = 5
LOOK_SECONDS = 0.1
START_ERROR = 128


class Output(NamedTuple):
    """How a command in a container ended, and what it printed."""

    exit_code: int
    text: str


class Life:
    """A container from its start to its end.

    `exit_code` (128 + signal where a signal ended it), `oom_killed`, `finished` (monotonic seconds) and the
    peaks of memory in bytes (`rss_peak`: of its largest process, as seen every LOOK_SECONDS; `memory_peak`: of its
    cgroup, with page cache) are there once `ended` is set. `error` is the reason why it could not be started at all.
    With `oom_group` all of it dies when the kernel kills one of its processes for want of memory.
    """

    def __init__(
        self, identifier: str, bundle: Path, state: Path, log: Path, cgroup: str, *, oom_group: bool = True
    ) -> None:
        self.identifier, self.bundle, self.state, self.log, self.cgroup = (
            identifier,
            bundle,
            state,
            log,
            cgroup,
        )
        self._oom_group = oom_group
        self.ended = threading.Event()
        self.exit_code: int | None = None
        self.error = ""
        self.oom_killed = False
        self.rss_peak = self.memory_peak = 0
        self.finished = 0.0
        self._watched = threading.Lock()  # held by whoever uses or closes the descriptor of its process
        self._process: int | None = None
        self.started = time.monotonic()

    def start(self, config: dict[str, Any]) -> None:
        """Start it, and return as soon as it runs (or has failed to: see `error`)."""
        (self.bundle / "config.json").write_text(json.dumps(config))
        pid_file = self.bundle / "pid"
        options = ["--keep", "--no-new-keyring", "--bundle", str(self.bundle), "--pid-file", str(pid_file)]
        with self.log.open("ab") as log:
            runc = subprocess.Popen(
                self._runc("run", *options, self.identifier),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=ENVIRONMENT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not pid_file.exists() and _running(runc.pid):
            if time.monotonic() > deadline:
                os.killpg(runc.pid, signal.SIGKILL)
            time.sleep(0.004)
        if running := pid_file.exists():
            pid = int(pid_file.read_text())
            self._process = _opened(pid)
        threading.Thread(target=self._watch, args=(runc, running), name=self.identifier, daemon=True).start()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it has ended within `seconds` (None: however long that takes)."""
        return self.ended.wait(seconds)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the container's first process; nothing if it has ended."""
        with self._watched:
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._process, number)

    def execute(self, arguments: Sequence[str], seconds: float) -> Output:
        """Run a command in the container as its user; exit code 124 and no output after `seconds`."""
        pid_file = self.bundle / f"exec-{time.monotonic_ns()}"
        command = self._runc("exec", "--pid-file", str(pid_file), self.identifier, *arguments)
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            start_new_session=True,
        ) as runc:
            try:
                text, _ = runc.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                self._end_command(runc, pid_file)
                return Output(124, "")
            finally:
                pid_file.unlink(missing_ok=True)
        return Output(runc.returncode, text.decode(errors="replace"))

    def _end_command(self, runc: subprocess.Popen[bytes], pid_file: Path) -> None:
        """Kill what runc executes, or is about to; runc reaps it: a zombie would hold up the container's end."""
        deadline = time.monotonic() + REAP_SECONDS
        while not pid_file.exists() and runc.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if pid_file.exists() and not self.ended.is_set():
            _kill(int(pid_file.read_text()))
        with contextlib.suppress(subprocess.TimeoutExpired):
            runc.wait(REAP_SECONDS)
        runc.kill()

    def _runc(self, command: str, *arguments: str) -> list[str]:
        log = str(self.bundle / "runc.log")
        return ["runc", "--root", str(self.state), "--log", log, "--log-format", "json", command, *arguments]

    def _watch(self, runc: subprocess.Popen[bytes], running: bool) -> None:
        end = select.poll()
        descriptor = os.pidfd_open(runc.pid)
        end.register(descriptor, select.POLLIN)
        self._note_memory()
        while not end.poll(LOOK_SECONDS * 1000):
            self._note_memory()
            if self._oom_group and _memory(self.cgroup)[0]:
                self.signal(signal.SIGKILL)  # the first process takes the others with it
        os.close(descriptor)
        self.finished = time.monotonic()
        with self._watched:
            if self._process is not None:
                os.close(self._process)
            self._process = None
        self.exit_code = runc.wait()
        if not running:
            self.exit_code, self.error = START_ERROR, self._start_error()
        self.oom_killed, self.memory_peak = _memory(self.cgroup)
        delete = self._runc("delete", "--force", self.identifier)
        subprocess.run(delete, check=False, capture_output=True, env=ENVIRONMENT)
        self.ended.set()

    def processes(self, program: str) -> list[int]:
        """The processes of this container that run a program of this name, by their numbers on this machine."""
        return [pid for pid in _members(self.cgroup) if _name(pid) == program]

    def _note_memory(self) -> None:
        """Read the peak where the kernel keeps it for this very program: what wait4 tells counts whoever started it."""
        for pid in _members(self.cgroup):
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    # Before it becomes the container's first program, a process is runc's.
                    if line.startswith("Name:") and line.split()[1].startswith("runc"):
                        break
                    if line.startswith("VmHWM:"):
                        self.rss_peak = max(self.rss_peak, int(line.split()[1]) * 1024)

    def _start_error(self) -> str:
        try:
            lines = (self.bundle / "runc.log").read_text().splitlines()
        except FileNotFoundError:
            lines = []
        errors = [entry["msg"] for entry in map(json.loads, lines) if entry.get("level") in {"error", "fatal"}]
        return errors[-1] if errors else "runc gave no reason"


def _running(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None


def _opened(pid: int) -> int | None:
    """A descriptor that means this very process, even when its number is used again; None if it has ended."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _members(cgroup: str) -> list[int]:
    """The processes of a cgroup; none once it is gone."""
    for top in (CGROUPS / "memory", CGROUPS):
        with contextlib.suppress(OSError):
            return [int(pid) for pid in (top / cgroup.lstrip("/") / "cgroup.procs").read_text().split()]
    return []


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _memory(cgroup: str) -> tuple[bool, int]:
    """Whether the kernel killed for want of memory, and the peak in bytes: cgroup v1, else v2."""
    first, second = CGROUPS / "memory" / cgroup.lstrip("/"), CGROUPS / cgroup.lstrip("/")
    for events, peak in (
        (first / "memory.oom_control", first / "memory.max_usage_in_bytes"),
        (second / "memory.events", second / "memory.peak"),
    ):
        if events.exists():
            counts = dict(line.split() for line in events.read_text().splitlines())
            return int(counts.get("oom_kill", 0)) > 0, int(peak.read_text()) if peak.exists() else 0
    return False, 0
