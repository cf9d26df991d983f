"""A Pod that runs: its containers are started, watched, restarted and ended in the kubelet's order."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.podrunner import mounts
from tests.podrunner.container import Container, Ended, Kind, Site
from tests.podrunner.environment import Facts, InvalidContainer, expand
from tests.podrunner.environment import environment as variables_of
from tests.podrunner.probes import handled
from tests.podrunner.volumes import Places, Volume, prepared, too_full

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tests.podrunner.images import Image
    from tests.podrunner.runc import Life, Output

MINIMUM_GRACE = 2  # the kubelet always leaves a container this many seconds after SIGTERM
EVICTION_GRACE = 1
LONGEST_BACK_OFF = 300.0
STABLE_SECONDS = 600.0
EXEC_SECONDS = 60.0


class Event(NamedTuple):
    """Something that happened: seconds since the Pod was started, container (or empty), what."""

    at: float
    container: str
    what: str


class Result(NamedTuple):
    """How a Pod ended: phase, reason (`Evicted`, or empty), seconds it took to end, each container's last end."""

    phase: str
    reason: str
    message: str
    seconds: float
    containers: dict[str, Ended]


class BlockedPod(Exception):
    """The Pod does not get to run its containers. `container`, `ended` (None: not even started) and `log` say why."""

    def __init__(self, container: str, ended: Ended | None, log: str, why: str) -> None:
        super().__init__(f"container {container!r}: {why}" + (f"\n{log}" if log else ""))
        self.container, self.ended, self.log = container, ended, log


class Rhythm(NamedTuple):
    """Seconds of the kubelet's loops.

    The first back-off of a crashing container, between looks at volumes, and between looks at which containers have
    ended (`relist`: a kubelet's 1; 0 sees each end at once).
    """

    back_off: float = 10.0
    volume_check: float = 1.0
    relist: float = 0.0


class Run:
    """One Pod on a node, from its start until `delete`, `kill_node` or its own completion.

    `started_seconds` is how long it took until every container had started (0 before that).
    """

    def __init__(
        self,
        facts: Facts,
        images: Mapping[str, Image],
        site: Site,
        places: Places,
        rhythm: Rhythm,
    ) -> None:
        self.facts, self._rhythm = facts, rhythm
        self.pod = facts.pod
        self.name: str = self.pod["metadata"]["name"]
        self.events: list[Event] = []
        self.started_seconds = 0.0
        self._site = site
        self._began = time.monotonic()
        self._changed = threading.Condition()
        self._launching = threading.Lock()
        self._ending = threading.Lock()
        self._stopping = False
        self._blocked: tuple[Container, str] | None = None
        self._crash: BaseException | None = None
        self._result: Result | None = None
        site.directory.mkdir(parents=True)
        (site.directory / "hosts").write_text(f"127.0.0.1\tlocalhost\n127.0.0.1\t{self.name}\n")
        self.containers = {
            spec["name"]: Container(spec, kind, images[spec["image"]], site) for kind, spec in _containers(self.pod)
        }
        self.volumes: dict[str, Volume] = prepared(facts, site.directory / "volumes", places)
        self._threads = [threading.Thread(target=self._guarded, args=(self._sync,), daemon=True)]
        if any(volume.limit is not None for volume in self.volumes.values()):
            self._threads.append(threading.Thread(target=self._guarded, args=(self._watch_volumes,), daemon=True))

    def begin(self) -> None:
        """Start to run the Pod; returns at once."""
        for thread in tuple(self._threads):  # each may add more
            thread.start()

    # What a test does with it.

    def wait_started(self, seconds: float = 60, *, failures: int = 0) -> float:
        """Wait until every container has started (and passed its startup probe); returns the seconds it took.

        BlockedPod when an init container has failed more than `failures` times, when a container can't be
        made, or when the Pod ended instead; TimeoutError, telling the state, after `seconds`.
        """
        self._await(lambda: self.started_seconds > 0 or self._hindrance(failures) is not None, seconds)
        if self.started_seconds:
            return self.started_seconds
        hindrance = self._hindrance(failures)
        assert hindrance is not None
        container, why = hindrance
        # Of the life that ended: by now the next one may have begun, and have said nothing yet.
        log = container.logs(len(container.past) - 1) if container.lives else ""
        raise BlockedPod(container.name, container.past[-1] if container.past else None, log, why)

    def wait_ready(self, seconds: float = 60) -> None:
        """Wait until every container with a readiness probe has passed it, and every other one has started."""
        self._await(lambda: all(c.ready for c in self.containers.values() if c.kind is not Kind.INIT), seconds)

    def wait_ended(self, seconds: float = 60) -> Result:
        """Wait until the Pod has ended by itself (completed, failed or evicted)."""
        self._await(lambda: self._result is not None, seconds)
        assert self._result is not None
        return self._result

    def wait_log(self, container: str, text: str, seconds: float = 30) -> str:
        """Wait until `container` has printed `text`; returns its log."""
        deadline = time.monotonic() + seconds
        while text not in (log := self.logs(container)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{text!r} is not in the log of {container!r} after {seconds} s:\n{log[-4000:]}")
            time.sleep(0.02)
        return log

    def wait_event(self, container: str, what: str, seconds: float = 30) -> None:
        """Wait until something happened to `container` whose description begins with `what`."""
        self._await(lambda: any(e.container == container and e.what.startswith(what) for e in self.events), seconds)

    def logs(self, container: str, life: int | None = None) -> str:
        """What `container` printed: in one of its lives (-1: the latest), or in all of them."""
        return self.containers[container].logs(life)

    def exec(self, container: str, arguments: Sequence[str], seconds: float = EXEC_SECONDS) -> Output:
        """Run a command in a running container, as its user."""
        life = self.containers[container].life
        if life is None or life.ended.is_set():
            raise RuntimeError(f"container {container!r} does not run; {self.state()}")
        return life.execute(arguments, seconds)

    def kill(self, container: str, program: str, number: signal.Signals = signal.SIGKILL) -> list[int]:
        """Send a signal to the processes of a container that run `program`; their numbers on this machine."""
        life = self.containers[container].life
        found = life.processes(program) if life is not None else []
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return found

    def volume(self, name: str) -> Path:
        """Where the volume `name` is on this machine, until the Pod is deleted."""
        return self.volumes[name].path

    def state(self) -> str:
        """Each container's state in a line, for messages."""
        words = []
        for c in self.containers.values():
            now = "running" if c.running else "ended" if c.past else "waiting"
            last = f", last exit {c.past[-1].exit_code} {c.past[-1].reason}" if c.past else ""
            words.append(f"{c.name}: {now}, {c.lives} lives{last}")
        return "; ".join(words)

    def delete(self, grace: float | None = None) -> Result:
        """End the Pod as `kubectl delete` does, within its grace period (or `grace` seconds), and clear it away."""
        self._end("Failed", "", "", self._grace() if grace is None else grace)
        return self._cleared()

    def kill_node(self) -> Result:
        """Kill every process of the Pod at once, without a warning, and clear it away."""
        self._stopping = True
        for life in [c.life for c in self.containers.values()]:
            if life is not None:
                life.signal(signal.SIGKILL)
        self._end("Unknown", "NodeLost", "", 0, kill=True)
        return self._cleared()

    # How it is started.

    def _sync(self) -> None:
        for container in self.containers.values():
            if container.kind is Kind.INIT:
                if not self._run_to_completion(container):
                    return
            else:
                self._spawn(self._keep, container)
                self._until(container.lets_next_start)
            if self._stopping or self._blocked is not None:
                return
        mains = [c for c in self.containers.values() if c.kind is Kind.MAIN]
        self._until(lambda: all(c.has_started or c.done for c in mains))
        if not self._stopping and self._blocked is None:
            with self._changed:
                self.started_seconds = time.monotonic() - self._began
                self._changed.notify_all()
            self._event("", "started")
        self._until(lambda: all(c.done for c in mains))
        if not self._stopping and self._blocked is None:
            failed = any(c.past[-1].exit_code for c in mains)
            self._end("Failed" if failed else "Succeeded", "", "", self._grace())

    def _run_to_completion(self, container: Container) -> bool:
        """Run an init container until it succeeds; False if it never will."""
        while True:
            life = self._launch(container)
            if life is None:
                return False
            life.wait()
            ended = self._note_end(container, life)
            self._until_tick(self._rhythm.relist)
            if self._stopping:
                return False
            if ended.exit_code == 0:
                return True
            if self.pod["spec"].get("restartPolicy") == "Never":
                self._end("Failed", "", f"init container {container.name} failed", self._grace())
                return False
            self._back_off(container, ended)

    def _keep(self, container: Container) -> None:
        """Run a container, again and again as the restart policy says."""
        while (life := self._launch(container)) is not None:
            self._spawn(self._attend, container, life)
            life.wait()
            ended = self._note_end(container, life)
            if self._stopping or not self._restarts(container, ended):
                break
            self._back_off(container, ended)
        with self._changed:
            container.done = True
            self._changed.notify_all()

    def _launch(self, container: Container) -> Life | None:
        """Start a life of a container; None if the Pod is ending or the container can't be made."""
        with self._launching:
            if self._stopping:
                return None
            try:
                life = container.start(self.facts, self.volumes)
            except InvalidContainer as error:
                with self._changed:
                    self._blocked = (container, f"CreateContainerConfigError: {error}")
                    self._changed.notify_all()
                return None
        self._event(container.name, f"not started: {life.error}" if life.error else "runs")
        return life

    def _attend(self, container: Container, life: Life) -> None:
        """See a new life through its postStart hook, then its probes."""
        hook = (container.spec.get("lifecycle") or {}).get("postStart")
        if hook is not None:
            good, said = handled(hook, container.spec, life, LONGEST_BACK_OFF)
            if not good and not life.ended.is_set():
                self._event(container.name, f"postStart failed: {said}")
                self._stop(container, life, self._grace(), "FailedPostStartHook")
                return
        with self._changed:
            container.greeted = True
            self._changed.notify_all()
        if life.error:
            return
        probe = container.spec.get("startupProbe")
        if probe and not self._probed(container, life, "startupProbe", probe):
            return
        with self._changed:
            container.has_started = True
            container.started = not life.ended.is_set()
            container.ready = container.started and not container.spec.get("readinessProbe")
            self._changed.notify_all()
        for kind in ("livenessProbe", "readinessProbe"):
            if probe := container.spec.get(kind):
                self._spawn(self._probed, container, life, kind, probe)

    def _probed(self, container: Container, life: Life, kind: str, probe: dict[str, Any]) -> bool:
        """Probe until a startup probe has passed (True) or the life is over (False); end it when it fails."""
        command = self._probe_command(container, probe)
        seconds, period = float(probe.get("timeoutSeconds") or 1), float(probe.get("periodSeconds") or 10)
        needed, allowed = int(probe.get("successThreshold") or 1), int(probe.get("failureThreshold") or 3)
        passed = failed = 0
        self._over(life, float(probe.get("initialDelaySeconds") or 0))
        # A new container that is not ready makes the kubelet ask at once; else it asks when its ticker says so.
        if kind != "readinessProbe":
            self._until_tick(period, life)
        while not self._over(life, 0):
            good, said = handled(command, container.spec, life, seconds)
            if self._over(life, 0):
                return False
            passed, failed = (passed + 1, 0) if good else (0, failed + 1)
            if not good:
                self._event(container.name, f"{kind} failed ({failed} of {allowed}): {said}")
            if kind == "startupProbe" and passed >= needed:
                self._event(container.name, "startupProbe passed")
                return True
            if kind == "readinessProbe" and (passed >= needed or failed >= allowed):
                with self._changed:
                    container.ready = good
                    self._changed.notify_all()
            elif failed >= allowed:
                grace = probe.get("terminationGracePeriodSeconds")
                self._stop(container, life, self._grace() if grace is None else grace, kind)
                return False
            self._until_tick(period, life)
        return False

    def _probe_command(self, container: Container, probe: dict[str, Any]) -> dict[str, Any]:
        """The probe with `$(NAME)` of plain variables expanded in its command, as the kubelet does for probes."""
        if "exec" not in probe:
            return probe
        plain = [v for v in container.spec.get("env") or [] if "valueFrom" not in v]
        known = variables_of({"env": plain}, self.facts)
        return {"exec": {"command": [expand(item, known) for item in probe["exec"]["command"]]}}

    def _until_tick(self, period: float, life: Life | None = None) -> None:
        """Wait for the next multiple of `period` in the Pod's life: tickers begin with the Pod."""
        if period:
            left = period - (time.monotonic() - self._began) % period
            self._until(life.ended.is_set if life else lambda: False, left)

    def _over(self, life: Life, seconds: float) -> bool:
        """Whether the life (or the Pod) ends within `seconds`."""
        self._until(life.ended.is_set, seconds)
        return life.ended.is_set() or self._stopping

    def _restarts(self, container: Container, ended: Ended) -> bool:
        policy = self.pod["spec"].get("restartPolicy", "Always")
        return container.kind is Kind.SIDECAR or policy == "Always" or (policy == "OnFailure" and ended.exit_code != 0)

    def _back_off(self, container: Container, ended: Ended) -> None:
        """Wait before the next life: not at all before the second, then 10 s, doubled each time, 5 minutes at most."""
        recent = 0
        for past in reversed(container.past):
            if past.seconds > STABLE_SECONDS:
                break
            recent += 1
        pause = 0.0 if recent <= 1 else min(self._rhythm.back_off * 2 ** (recent - 2), LONGEST_BACK_OFF)
        self._event(container.name, f"restarts in {pause:g} s after exit code {ended.exit_code}")
        self._until(lambda: False, pause)

    # How it is ended.

    def _end(self, phase: str, reason: str, message: str, grace: float, *, kill: bool = False) -> None:
        """End every container in order; who calls while that is under way waits for it."""
        with self._launching:
            self._stopping = True
        with self._changed:
            self._changed.notify_all()
        with self._ending:
            if self._result is not None:
                return
            began = time.monotonic()
            self._event("", "is killed" if kill else f"ends, within {grace:g} s")
            if not kill:  # the one worker of the Pod is busy until then
                self._await_quietly(lambda: not any(c.greeting for c in self.containers.values()), None)
            stopping = [(c, c.life) for c in self.containers.values() if c.life is not None and c.running]
            if kill:
                for _, life in stopping:
                    life.signal(signal.SIGKILL)
            else:
                threads = [
                    threading.Thread(
                        target=self._stop, args=(c, life, grace, ""), kwargs={"in_turn": True}, daemon=True
                    )
                    for c, life in stopping
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            for container, life in stopping:
                life.wait()
                self._until_noted(container)
            seconds = time.monotonic() - began
            last = {c.name: c.past[-1] for c in self.containers.values() if c.past}
            with self._changed:
                self._result = Result(phase, reason, message, seconds, last)
                self._changed.notify_all()
            self._event("", f"ended after {seconds:.1f} s")

    def _stop(self, container: Container, life: Life, grace: float, why: str, *, in_turn: bool = False) -> None:
        """End one life as the kubelet does: preStop, its turn, SIGTERM, the rest of the grace period, SIGKILL."""
        if life.ended.is_set():
            return
        left = grace
        hook = (container.spec.get("lifecycle") or {}).get("preStop")
        if hook is not None and left > 0:
            began = time.monotonic()
            self._event(container.name, "preStop")
            good, said = handled(hook, container.spec, life, left)
            if not good:
                self._event(container.name, f"preStop failed: {said}")
            left -= int(time.monotonic() - began)  # whole seconds, as the kubelet counts
        if in_turn and left > 0:
            began = time.monotonic()
            before = self._before(container)
            self._await_quietly(lambda: not any(c.running for c in before), left)
            left -= int(time.monotonic() - began)
        left = max(left, MINIMUM_GRACE)
        if life.ended.is_set():
            return
        self._event(container.name, f"SIGTERM{' for ' + why if why else ''}, {left:g} s left")
        life.signal(signal.SIGTERM)
        if not life.wait(left):
            self._event(container.name, "SIGKILL")
            life.signal(signal.SIGKILL)
            life.wait()

    def _before(self, container: Container) -> list[Container]:
        """Whose end a container waits for: a native sidecar for the main containers and the sidecars after it."""
        if container.kind is not Kind.SIDECAR:
            return []
        every = list(self.containers.values())
        later = every[every.index(container) + 1 :]
        return [c for c in later if c.kind is not Kind.INIT]

    def _watch_volumes(self) -> None:
        while not self._stopping:
            if (message := too_full(self.volumes)) is not None:
                self._event("", f"Evicted: {message}")
                self._end("Failed", "Evicted", message, EVICTION_GRACE)
            self._until(lambda: False, self._rhythm.volume_check)

    def _cleared(self) -> Result:
        for thread in self._threads:
            thread.join()
        volumes = self._site.directory / "volumes"
        mounts.unmount_below(volumes)
        shutil.rmtree(volumes, ignore_errors=True)
        if self._crash is not None:
            raise self._crash
        assert self._result is not None
        return self._result

    # The threads' common ground.

    def _grace(self) -> float:
        given = self.pod["spec"].get("terminationGracePeriodSeconds")
        return 30.0 if given is None else float(given)

    def _hindrance(self, failures: int) -> tuple[Container, str] | None:
        """Which container keeps the Pod from starting, and why."""
        if self._blocked is not None:
            return self._blocked
        for container in self.containers.values():
            if container.kind is Kind.INIT and sum(e.exit_code != 0 for e in container.past) > failures:
                last = container.past[-1]
                return container, f"{last.reason}, exit code {last.exit_code}: {last.message}".rstrip(": ")
        if self._result is not None:
            last_one = next(reversed(self.containers.values()))
            return (
                last_one,
                f"the Pod has ended: {self._result.phase} {self._result.reason} {self._result.message}",
            )
        return None

    def _note_end(self, container: Container, life: Life) -> Ended:
        with self._changed:
            ended = container.end(life)
            # Told before anyone whose turn comes after this end can go on.
            self._event(container.name, f"{ended.reason}, exit code {ended.exit_code}")
            self._changed.notify_all()
        return ended

    def _until_noted(self, container: Container) -> None:
        self._await_quietly(lambda: len(container.past) == container.lives, EXEC_SECONDS)

    def _spawn(self, function: Callable[..., object], *arguments: Any) -> None:
        thread = threading.Thread(target=self._guarded, args=(function, *arguments), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _guarded(self, function: Callable[..., object], *arguments: Any) -> None:
        """A thread's body: what goes wrong in it is raised where the test waits."""
        try:
            function(*arguments)
        except BaseException as error:  # noqa: BLE001
            with self._changed:
                self._crash = self._crash or error
                self._changed.notify_all()

    def _until(self, happened: Callable[[], bool], seconds: float | None = None) -> None:
        """Wait for something, for the end of the Pod, or for `seconds`."""
        self._await_quietly(lambda: self._stopping or happened(), seconds)

    def _await(self, happened: Callable[[], bool], seconds: float) -> None:
        self._await_quietly(lambda: happened() or self._crash is not None, seconds)
        if self._crash is not None:
            raise self._crash
        if not happened():
            raise TimeoutError(f"after {seconds} s: {self.state()}")

    def _await_quietly(self, happened: Callable[[], bool], seconds: float | None) -> None:
        deadline = None if seconds is None else time.monotonic() + seconds
        with self._changed:
            while not happened():
                # A life ends without taking this lock, so look for that now and then.
                left = 0.05 if deadline is None else min(0.05, deadline - time.monotonic())
                if left <= 0:
                    return
                self._changed.wait(left)

    def _event(self, container: str, what: str) -> None:
        self.events.append(Event(time.monotonic() - self._began, container, what))


def _containers(pod: dict[str, Any]) -> list[tuple[Kind, dict[str, Any]]]:
    """The Pod's containers in the order in which they start."""
    init = [
        (Kind.SIDECAR if spec.get("restartPolicy") == "Always" else Kind.INIT, spec)
        for spec in pod["spec"].get("initContainers") or []
    ]
    return init + [(Kind.MAIN, spec) for spec in pod["spec"]["containers"]]
