"""A port whose every place is taken: more connections, or more bytes of bodies, than it keeps."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from injector.admission.webhook import LARGEST_BODY
from injector.serving.large import BYTES
from tests.faults.conftest import connections, unharmed
from tests.running import Replica, running

pytestmark = pytest.mark.slow

DEADLINE_SECONDS = 30


def ended_above(replica: Replica, reason: str, count: int) -> float:
    """How many connections were ended for a reason: once that is more than `count`, or after a while."""
    end = time.monotonic() + DEADLINE_SECONDS
    name = f'litestream_hook_connections_ended_total{{port="https",reason="{reason}"}}'
    while (ended := replica.metric(name)) <= count and time.monotonic() < end:
        time.sleep(0.05)
    return ended


def test_silent_connections_are_ended_and_hurt_nobody(replica: Replica) -> None:
    ended = 'litestream_hook_connections_ended_total{port="https",reason="handshake"}'
    with unharmed(replica), connections(replica, 500) as silent:
        end = time.monotonic() + DEADLINE_SECONDS
        # In this order: one that ends in between must not count twice.
        while replica.metric(ended) + replica.metric('litestream_hook_connections{port="https"}') < 500:
            assert time.monotonic() < end
            time.sleep(0.05)
        for one in silent:
            assert one.recv(1) == b""
    assert replica.metric(ended) == 500


def test_when_descriptors_run_out_the_silent_make_room(tmp_path: Path) -> None:
    """The oldest of some 90 is ended for each that comes: a handshake takes less time than 90 take to come."""
    few = ["prlimit", "--nofile=256:256"]
    with running(tmp_path, prefix=few) as replica, unharmed(replica), connections(replica, 300, pause=0.01):
        assert ended_above(replica, "shed", 100) > 100


def test_probes_answer_while_their_port_is_flooded(replica: Replica) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection(("127.0.0.1", replica.health_port), 30))
        assert replica.get("readyz") == (200, "ok\n")
        assert replica.get("healthz") == (200, "ok\n")
        assert replica.metric('litestream_hook_connections_ended_total{port="health",reason="shed"}') >= 150


@contextlib.contextmanager
def unfinished(replica: Replica, count: int, announced: int, sent: int) -> Iterator[None]:
    """So many clients at once that announce a body, and never send the last of it."""

    def send(one: ssl.SSLSocket) -> None:
        with contextlib.suppress(OSError):
            one.sendall(b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % announced)
            one.sendall(b" " * sent)
            one.recv(1)

    with contextlib.ExitStack() as stack:
        open_ = [stack.enter_context(replica.connect()) for _ in range(count)]
        threads = [threading.Thread(target=send, args=(one,)) for one in open_]
        for thread in threads:
            thread.start()
        yield
        for one in open_:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def test_bodies_that_never_end_share_a_bounded_memory(tmp_path: Path) -> None:
    little = "from injector.serving import listener\nlistener.HELD_BYTES = 2 * 2**20\n"
    with (
        running(tmp_path, prelude=little) as replica,
        unharmed(replica),
        unfinished(replica, 60, BYTES, BYTES - 1000),
    ):
        assert ended_above(replica, "memory", 10) > 10


def test_large_bodies_that_never_end_wait_for_each_other(replica: Replica) -> None:
    before = replica.metric("process_resident_memory_bytes")
    with unharmed(replica), unfinished(replica, 30, LARGEST_BODY, 6 * 2**20):
        time.sleep(3)  # what is taken of the bodies comes meanwhile
        assert 0 < replica.metric("process_resident_memory_bytes") < before + 80 * 2**20
