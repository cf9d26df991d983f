"""Nothing of a node is left on the machine, however the test ends."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.podrunner import Node
from tests.podrunner.node import sweep
from tests.podrunner.runc import CGROUPS, Life
from tests.podrunner.specs import UNTIL_TERM, container, pod, sidecar

pytestmark = [pytest.mark.containers, pytest.mark.slow]

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
        cwd=Path(__file__).parents[2],
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
