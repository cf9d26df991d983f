"""A container of a Pod over all its lives: what it is, in which state, and how a life is started."""

from __future__ import annotations

import shutil
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.podrunner import mounts
from tests.podrunner.bundle import Command, config
from tests.podrunner.environment import Facts, environment, expand
from tests.podrunner.identity import identity
from tests.podrunner.runc import Life
from tests.podrunner.volumes import Volume, bound

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.podrunner.images import Image

LOG_BYTES, LOG_LINES, MESSAGE_BYTES = 2048, 80, 4096


class Kind(Enum):
    """Which part a container has in its Pod."""

    INIT = "init container"
    SIDECAR = "native sidecar"
    MAIN = "container"


class Ended(NamedTuple):
    """How one life of a container ended, as `status.containerStatuses` tells it.

    `seconds` is how long it lived; the peaks are bytes.
    """

    exit_code: int
    reason: str
    message: str
    seconds: float
    rss_peak: int
    memory_peak: int


class Site(NamedTuple):
    """Where the containers of one Pod are made: directories on disk and in memory, cgroup, runc's state.

    `page_cache`: bytes that cgroup v1 adds to their memory limits. `oom_group`: whether a container that needs too
    much memory is killed as a whole.
    """

    directory: Path
    memory: Path
    state: Path
    cgroup: str
    page_cache: int = 0
    oom_group: bool = True


class Container:
    """One entry of `containers` or `initContainers`, and what has become of it so far.

    `greeted`: its postStart hook is done; `started`: its startup probe has passed, and it lives (`has_started`:
    that was so once); `ready`: it passes its readiness probe; `done`: it will not be started again.
    """

    def __init__(self, spec: dict[str, Any], kind: Kind, image: Image, site: Site) -> None:
        self.spec, self.kind, self.image, self.site = spec, kind, image, site
        self.name: str = spec["name"]
        self.life: Life | None = None
        self.lives = 0
        self.past: list[Ended] = []
        self.greeted = self.started = self.has_started = self.ready = self.done = False

    @property
    def greeting(self) -> bool:
        """Whether its postStart hook runs."""
        hooked = "postStart" in (self.spec.get("lifecycle") or {})
        return hooked and self.life is not None and not self.greeted and not self.life.ended.is_set()

    @property
    def running(self) -> bool:
        """Whether it has a life whose end nobody has taken note of yet."""
        return self.life is not None and self.lives > len(self.past)

    def lets_next_start(self) -> bool:
        """Whether the container after it may start: a sidecar must have started, others must have been begun."""
        return self.done or (self.started if self.kind is Kind.SIDECAR else self.greeted or bool(self.past))

    def logs(self, life: int | None = None) -> str:
        """What one of its lives printed (0 is the first, -1 the latest), or all of them in a row."""
        numbers = range(self.lives) if life is None else [range(self.lives)[life]]
        return "".join(self._log(number).read_text(errors="replace") for number in numbers)

    def start(self, facts: Facts, volumes: Mapping[str, Volume]) -> Life:
        """Begin a new life on a fresh root; InvalidContainer if the specification does not allow one."""
        who = identity(self.spec, facts.pod, self.image)
        variables = {"HOSTNAME": hostname(facts.pod), **dict(self.image.environment)}
        of_pod = environment(self.spec, facts)
        own_mounts = bound(self.spec, volumes, of_pod)
        number, bundle = self.lives, self.site.memory / f"{self.name}-{self.lives}"
        bundle.mkdir(parents=True)
        root = bundle / "root"
        mounts.overlay(self.image.root, bundle / "upper", root)
        self._log(number).parent.mkdir(exist_ok=True)
        self._log(number).touch()
        message = bundle / "termination-log"
        message.touch()
        message.chmod(0o666)
        cgroup = f"{self.site.cgroup}/{self.name}-{number}"
        settings = config(
            Command(
                self._arguments(of_pod),
                variables | of_pod,
                self.spec.get("workingDir") or self.image.directory,
            ),
            who,
            root=root,
            hostname=hostname(facts.pod),
            cgroup=cgroup,
            mounts=[
                *own_mounts,
                _file(self.site.directory / "hosts", "/etc/hosts"),
                _file(message, self.spec.get("terminationMessagePath") or "/dev/termination-log"),
            ],
            resources=self.spec.get("resources") or {},
            page_cache=self.site.page_cache,
        )
        identifier = f"{self.site.cgroup.strip('/').replace('/', '-')}-{self.name}-{number}"
        life = Life(identifier, bundle, self.site.state, self._log(number), cgroup, oom_group=self.site.oom_group)
        self.lives += 1
        self.greeted = self.started = self.ready = False
        self.life = life
        life.start(settings)
        return life

    def end(self, life: Life) -> Ended:
        """Take note of the end of its latest life, and clear away what that left."""
        assert life.exit_code is not None
        reason = "Completed" if life.exit_code == 0 else "Error"
        if life.oom_killed:
            reason = "OOMKilled"
        if life.error:
            reason = "StartError"
        seconds = life.finished - life.started
        ended = Ended(life.exit_code, reason, self._message(life), seconds, life.rss_peak, life.memory_peak)
        self.past.append(ended)
        self.started = self.ready = False
        mounts.unmount_below(life.bundle)
        shutil.rmtree(life.bundle, ignore_errors=True)
        return ended

    def _arguments(self, variables: Mapping[str, str]) -> list[str]:
        command, arguments = self.spec.get("command"), self.spec.get("args")
        first = list(self.image.entrypoint) if not command else [expand(item, variables) for item in command]
        if arguments:
            return first + [expand(item, variables) for item in arguments]
        return first if command else first + list(self.image.command)

    def _message(self, life: Life) -> str:
        if life.error:
            return life.error
        with (life.bundle / "termination-log").open("rb") as file:
            text = file.read(MESSAGE_BYTES).decode(errors="replace")
        if not text and life.exit_code != 0 and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            lines = life.log.read_text(errors="replace").splitlines(keepends=True)[-LOG_LINES:]
            text = "".join(lines).encode()[-LOG_BYTES:].decode(errors="replace")
        return text

    def _log(self, number: int) -> Path:
        return self.site.directory / "logs" / f"{self.name}-{number}.log"


def hostname(pod: dict[str, Any]) -> str:
    """The host name that the Pod's containers see."""
    return str(pod["spec"].get("hostname") or pod["metadata"]["name"])[:63]


def _file(source: Path, destination: str) -> dict[str, Any]:
    return {
        "destination": destination,
        "type": "bind",
        "source": str(source),
        "options": ["rbind", "rprivate", "rw"],
    }
