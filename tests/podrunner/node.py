"""A node of one test: where Pods run, and where everything they leave on this machine is taken away again."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.podrunner import fields, images, mounts
from tests.podrunner.container import Site
from tests.podrunner.environment import Facts, Objects
from tests.podrunner.images import qualified
from tests.podrunner.pod import Rhythm, Run
from tests.podrunner.runc import CGROUPS, ENVIRONMENT
from tests.podrunner.volumes import Places

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

PREFIX = "podrunner-"
REMOVE_SECONDS = 10


class Node:
    """Runs Pods until the `with` block ends; then nothing of them is left: no process, mount, cgroup or file.

    `images` gives images to names, short or full, besides those that `images.image` knows. `secrets` and `config_maps`
    are those of the Pods' namespace. `token` is the text of a ServiceAccount token. `back_off` are the seconds
    before the second restart of a crashing container (a kubelet's 10), `relist` those between looks at which containers
    have ended (a kubelet's 1). `oom_group`: as on cgroup v2, where the kubelet sets `memory.oom.group`, a container
    that needs too much memory dies as a whole; else only the process that the kernel picks. `page_cache` are bytes
    that cgroup v1 adds
    to memory limits: it counts page cache and, unlike v2, lets written pages fill a limit, at which a container that
    writes much can hold up every write to the disk for minutes.
    """

    def __init__(
        self,
        *,
        images: Mapping[str, images.Image] | None = None,
        secrets: Objects | None = None,
        config_maps: Objects | None = None,
        token: str | None = None,
        back_off: float = 10.0,
        relist: float = 0.0,
        oom_group: bool = True,
        page_cache: int = 0,
    ) -> None:
        self._images = {qualified(name): given for name, given in (images or {}).items()}
        self.secrets, self.config_maps = dict(secrets or {}), dict(config_maps or {})
        self._token, self._page_cache, self._oom_group = token, page_cache, oom_group
        self._rhythm = Rhythm(back_off=back_off, relist=relist)
        self._runs: list[Run] = []
        self.directory = Path()
        self._lock = -1

    def __enter__(self) -> Self:
        sweep()
        with _nobody_sweeps():
            self.directory = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
            self._lock = _locked(self.directory)
        self.directory.chmod(0o755)
        mounts.tmpfs(self.directory / "memory", mode=0o755)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for run in self._runs:
                with contextlib.suppress(Exception):
                    run.kill_node()
        finally:
            remove(self.directory)
            os.close(self._lock)

    def start(
        self,
        pod: dict[str, Any],
        *,
        namespace: str = "default",
        name: str | None = None,
        claims: Mapping[str, Path] | None = None,
    ) -> Run:
        """Start a Pod; returns at once. UnsupportedPod, UnknownImage or InvalidContainer if it can't be run.

        `name` is for Pods that have a generateName only. `claims` says which folder stands for a
        PersistentVolumeClaim of that name; it outlives the Pod.
        """
        fields.check(pod)
        pod = copy.deepcopy(pod)
        metadata = pod.setdefault("metadata", {})
        metadata["uid"] = metadata.get("uid") or str(uuid.uuid4())
        metadata["namespace"] = metadata.get("namespace") or namespace
        metadata["name"] = metadata.get("name") or name or metadata.get("generateName", "pod-") + uuid.uuid4().hex[:5]
        spec = pod["spec"]
        names = {c["image"] for c in [*(spec.get("initContainers") or []), *spec["containers"]]}
        place = f"{metadata['name']}-{uuid.uuid4().hex[:8]}"
        run = Run(
            Facts(pod, self.secrets, self.config_maps),
            {name: self._images.get(qualified(name)) or images.image(name) for name in names},
            Site(
                self.directory / "pods" / place,
                self.directory / "memory" / place,
                self.directory / "memory" / "runc",
                f"/{self.directory.name}/{place}",
                self._page_cache,
                self._oom_group,
            ),
            Places(claims or {}, self.host, self._token),
            self._rhythm,
        )
        self._runs.append(run)  # before anything runs that would have to be ended
        run.begin()
        return run

    @property
    def host(self) -> Path:
        """The folder that stands for the node's root: a hostPath `/srv` is `srv` below it."""
        return self.directory / "host"


def sweep() -> None:
    """Take away what nodes left whose process was killed before it could."""
    with _nobody_sweeps():
        for directory in Path(tempfile.gettempdir()).resolve().glob(f"{PREFIX}*"):
            with _abandoned(directory) as abandoned:
                if abandoned:
                    remove(directory)


def remove(directory: Path) -> None:
    """Take away a node: its containers (also one that is just being started), mounts, cgroups and files."""
    state = directory / "memory" / "runc"
    for pid in _starters(state):  # first, so that nothing more begins
        _kill(pid)
    for container in state.iterdir() if state.is_dir() else ():
        delete = ["runc", "--root", str(state), "delete", "--force", container.name]
        subprocess.run(delete, check=False, capture_output=True, env=ENVIRONMENT)
    deadline = time.monotonic() + REMOVE_SECONDS
    while (groups := _cgroups(directory.name)) and time.monotonic() < deadline:
        for group in groups:
            with contextlib.suppress(OSError):
                for member in (group / "cgroup.procs").read_text().split():
                    _kill(int(member))
            with contextlib.suppress(OSError):  # busy until its processes are gone
                group.rmdir()
        time.sleep(0.02)
    mounts.unmount_below(directory)
    shutil.rmtree(directory, ignore_errors=True)


def _starters(state: Path) -> list[int]:
    """The runc processes that use a state directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().split(b"\0")[:3] == [b"runc", b"--root", os.fsencode(state)]:
                found.append(int(path.parent.name))
    return found


def _cgroups(name: str) -> list[Path]:
    """A node's cgroups in every hierarchy, the innermost first."""
    tops = [controller / name for controller in (CGROUPS, *CGROUPS.iterdir())]
    return [Path(group) for top in tops for group, _, _ in os.walk(top, topdown=False)]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _locked(directory: Path) -> int:
    lock = os.open(directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


@contextlib.contextmanager
def _nobody_sweeps() -> Iterator[None]:
    """Wait for other sweeps and keep them off: one would take a directory that is not locked yet for abandoned."""
    folder = os.open(tempfile.gettempdir(), os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


@contextlib.contextmanager
def _abandoned(directory: Path) -> Iterator[bool]:
    """Whether no living process holds the lock of a node's directory."""
    try:
        lock = _locked(directory)
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        os.close(lock)
