"""What an operator, a node or a disk does to a running webhook."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import unharmed
from tests.running import HASTY, Replica, review, running, write_pair

pytestmark = pytest.mark.slow


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Replica, Replica]]:
    """Two replicas with one certificate."""
    with running(tmp_path) as one, running(tmp_path) as other:
        yield one, other


def test_50_new_certificates_cost_no_request(replica: Replica) -> None:
    seen = set()
    with unharmed(replica):
        for _ in range(50):
            write_pair(replica.certificates)
            time.sleep(0.1)
            with replica.connect() as client:
                seen.add(client.getpeercert(binary_form=True))
    assert len(seen) > 1


def test_sigterm_of_one_of_two_replicas_costs_no_request(pair: tuple[Replica, Replica]) -> None:
    with unharmed(*pair):
        time.sleep(1)
        assert pair[0].stop() == 0
        time.sleep(1)


def test_a_rolling_restart_costs_no_request(tmp_path: Path) -> None:
    """Behind one Service the old replica goes when the new one is ready."""
    with running(tmp_path) as old, running(tmp_path) as new, unharmed(old, new):
        assert old.stop(signal.SIGINT) == 0


def test_sigstop_of_one_of_two_replicas_costs_no_request(pair: tuple[Replica, Replica]) -> None:
    with unharmed(*pair):
        time.sleep(1)
        pair[0].process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        pair[0].process.send_signal(signal.SIGCONT)
        time.sleep(1)


def test_a_stopped_and_continued_replica_serves_on(tmp_path: Path) -> None:
    """As after a suspended node: what a client sent meanwhile is answered, although its time is over."""
    body = review("while stopped")
    request = b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with running(tmp_path, prelude=HASTY) as replica, replica.connect() as client:
        client.sendall(request[:9])
        time.sleep(0.5)
        replica.process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        client.sendall(request[9:])
        replica.process.send_signal(signal.SIGCONT)
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        with unharmed(replica):
            time.sleep(1)


def test_a_full_disk_under_the_log_costs_no_request(tmp_path: Path) -> None:
    # Without compiled modules: Python keeps a half of one that the disk has no room for, and can't be started again.
    with running(tmp_path, prefix=["prlimit", "--fsize=8192"], PYTHONDONTWRITEBYTECODE=1) as replica:
        with unharmed(replica):
            time.sleep(2)
        assert replica.stderr.stat().st_size == 8192
        assert replica.metric("litestream_hook_log_lines_dropped_total") > 50
        assert replica.stop() == 0


def test_a_log_that_nobody_reads_costs_no_request(tmp_path: Path) -> None:
    """A container runtime that hangs leaves the pipe full."""
    with running(tmp_path, pipe=True) as replica:
        with unharmed(replica):
            time.sleep(4)
        assert replica.metric("litestream_hook_log_lines_dropped_total") > 20
        assert replica.stop() == 0


def test_nothing_is_written_but_the_log(tmp_path: Path) -> None:
    """The root file system is read-only, and so is every other one below it."""
    read_only = (
        "mount --make-rprivate / && for at in / /tmp /dev/shm; do"
        " ! mountpoint -q $at || mount -o remount,bind,ro $at; done"
        " && ! touch /tmp/litestream-hook-written 2>/dev/null"
    )
    if subprocess.run(["unshare", "--mount", "sh", "-c", read_only], check=False).returncode:
        pytest.skip("a read-only file system needs root (unshare --mount)")
    with running(tmp_path, prefix=["unshare", "--mount", "sh", "-c", f'{read_only} && exec "$@"', "sh"]) as replica:
        with unharmed(replica):
            time.sleep(1)
        assert replica.stop() == 0


JUMPING_CLOCK = """
import itertools, time
real, real_ns, calls = time.time, time.time_ns, itertools.count()
jump = lambda: (0, 86400, -86400, 3e8)[next(calls) // 7 % 4]
time.time = lambda: real() + jump()
time.time_ns = lambda: real_ns() + int(jump() * 1e9)
"""


def test_clock_jumps_cost_no_request(tmp_path: Path) -> None:
    """Deadlines follow the monotonic clock.

    The machine's own clock can't be set by a test: the process's `time.time` is replaced by one that jumps by
    a day and by ten years.
    """
    with running(tmp_path, prelude=JUMPING_CLOCK) as replica:
        with unharmed(replica):
            time.sleep(3)
        assert len({line["time"][:10] for line in replica.lines()}) >= 4
