"""Nothing of a node is left on the machine, however the test ends."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.podrunner import Node
from tests.podrunner.node import sweep
from tests.podrunner.runc import CGROUPS, Life
from tests.podrunner.specs import UNTIL_TERM, container, pod, sidecar

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.containers, pytest.mark.slow]

SWEEPS = "from tests.podrunner.node import sweep; sweep()"
LEAVES = """
import sys
from tests.podrunner import Node
from tests.podrunner.specs import UNTIL_TERM, container, pod
with Node() as node:
    run = node.start(pod(container(UNTIL_TERM)))
    run.wait_started()
    life = run.containers["main"].life
    print(node.directory, (life.bundle / "pid").read_text(), flush=True)
    sys.stdin.read()
"""


def left(directory: Path) -> list[str]:
    """What is there of a node: files, mounts, cgroups."""
    found = [str(directory)] if directory.exists() else []
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(directory) in line]
    return found + [str(path) for path in CGROUPS.glob(f"*/{directory.name}")]


def test_a_test_that_fails_leaves_nothing() -> None:
    memory = [{"name": "m", "emptyDir": {"medium": "Memory"}}]
    mounted = container(UNTIL_TERM, volumeMounts=[{"name": "m", "mountPath": "/m"}])
    node = Node()

    def interrupted() -> None:
        with node:
            run = node.start(pod(mounted, init=(sidecar(UNTIL_TERM, "side"),), volumes=memory))
            run.wait_started()
            assert left(node.directory)
            lives.extend(c.life for c in run.containers.values() if c.life is not None)
            raise KeyboardInterrupt

    lives: list[Life] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert left(node.directory) == []
    assert [life.exit_code for life in lives] == [137, 137]


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits for its parent to take note of its end does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("forgotten", [False, True], ids=["known to runc", "forgotten by runc"])
def test_what_a_killed_process_leaves_is_swept_by_the_next_node(forgotten: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LEAVES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as test:
        assert test.stdout is not None
        directory, pid = test.stdout.readline().split()
        sweep()
        assert left(Path(directory)), "a living node must not be swept"
        test.send_signal(signal.SIGKILL)
        test.wait()
        assert test.stdin is not None
        test.stdin.close()
    assert alive(int(pid))
    if forgotten:
        shutil.rmtree(Path(directory, "memory", "runc"))
    with Node():
        pass
    assert left(Path(directory)) == []
    assert not alive(int(pid))


def test_a_node_that_just_begins_is_not_swept_by_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    make = tempfile.mkdtemp
    sweeps: list[subprocess.Popen[bytes]] = []

    def make_while_another_sweeps(prefix: str) -> str:
        made = make(prefix=prefix)
        sweeps.append(subprocess.Popen([sys.executable, "-c", SWEEPS], cwd=ROOT))
        with contextlib.suppress(subprocess.TimeoutExpired):  # it waits for this node
            sweeps[-1].wait(2)
        return made

    monkeypatch.setattr(tempfile, "mkdtemp", make_while_another_sweeps)
    with Node() as node:
        assert sweeps[0].wait(10) == 0
        assert (node.directory / "memory").is_mount()
