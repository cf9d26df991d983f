"""Requests that are made to take memory, to a webhook that has no more of it than in a cluster."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from injector.admission.webhook import LARGEST_BODY
from tests import costly, reviews
from tests.faults.cgroup import Limited, limited
from tests.faults.conftest import unharmed
from tests.running import Replica, receive

pytestmark = [pytest.mark.slow, pytest.mark.containers]

AT_ONCE = 8
OBJECT_BYTES = 3 * 2**20 - 100_000


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Limited]:
    """A webhook with the memory of k8s/base."""
    with limited(tmp_path) as found:
        yield found
        assert found.replica.process.poll() is None, "it was killed"
        print(f"peak: {found.peak() / 2**20:.0f} MiB")


def ask(replica: Replica, body: bytes) -> bytes:
    """The status of the answer to a body, or how the connection ended."""
    try:
        with replica.connect(timeout=30) as client:
            client.sendall(b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            return receive(client).split(b" ")[1]
    except (OSError, IndexError) as problem:
        return type(problem).__name__.encode()


def all_at_once(replica: Replica, bodies: list[bytes], rounds: int = 1) -> list[bytes]:
    """The answers to all bodies, each sent by a client of its own."""
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda body=body: found.extend(ask(replica, body) for _ in range(rounds)))
        for body in bodies
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_lists_of_nothing_are_refused_before_they_take_memory(inside: Limited) -> None:
    with unharmed(inside.replica):
        too_long, long = (b"[" + b",".join([b"[[]]"] * (size // 5)) + b"]" for size in (8 * 2**20, LARGEST_BODY))
        assert set(all_at_once(inside.replica, [too_long] * AT_ONCE)) <= {b"413"}
        assert all_at_once(inside.replica, [long] * AT_ONCE) == [b"400"] * AT_ONCE


def test_tolerations_of_nothing_are_refused_before_they_take_memory(inside: Limited) -> None:
    body = json.dumps(reviews.review(reviews.pod({"tolerations": [{}] * (OBJECT_BYTES // 4)}))).encode()
    with unharmed(inside.replica):
        assert all_at_once(inside.replica, [body] * AT_ONCE) == [b"400"] * AT_ONCE


DENSE: dict[str, Callable[[], bytes]] = {
    # As many small objects as are taken, and the rest a text that takes four bytes for each of its letters.
    "objects": lambda: json.dumps(
        reviews.review(reviews.pod({"tolerations": [{"key": ""}] * 49_000, "x": "\U0001f600" + "x" * 1_500_000})),
        ensure_ascii=False,
    ).encode(),
    "an update": lambda: costly.body(costly.SHAPES["a rolling Deployment with 500 databases"], OBJECT_BYTES),
    "mounts": lambda: costly.sized(costly.SHAPES["mounts beside 500 databases"], OBJECT_BYTES),
    "a wide text": lambda: json.dumps(
        reviews.review(reviews.pod({"x": "\U0001f600" + "x" * (LARGEST_BODY - 2000)})), ensure_ascii=False
    ).encode(),
}


@pytest.mark.parametrize("what", DENSE)
def test_large_requests_are_answered_one_after_another(inside: Limited, what: str) -> None:
    body = DENSE[what]()
    assert len(body) <= LARGEST_BODY
    with unharmed(inside.replica):
        answers = all_at_once(inside.replica, [body] * AT_ONCE, rounds=2)
    assert b"200" in answers  # others may have waited too long for their turn
    assert not {b"400", b"413", b"500"}.intersection(answers)


def test_answers_that_nobody_reads_share_a_bounded_memory(inside: Limited) -> None:
    """A request of 12 KB that has an answer of 3.6 MB, by many clients that don't read it."""
    body = costly.body(costly.SHAPES["a long subPath"], 2000)
    request = b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with contextlib.ExitStack() as stack:
        deaf: list[ssl.SSLSocket] = []
        with unharmed(inside.replica):
            for _ in range(150):
                deaf.append(stack.enter_context(inside.replica.connect(receive_buffer=4096)))
                with contextlib.suppress(OSError):
                    deaf[-1].sendall(request)
            time.sleep(1)


def test_many_requests_of_a_moderate_size_at_once(inside: Limited) -> None:
    body = json.dumps(reviews.review(reviews.pod({"tolerations": [{"key": ""}] * 1_900, "x": "x" * 80_000}))).encode()
    with unharmed(inside.replica):
        assert set(all_at_once(inside.replica, [body] * 30, rounds=5)) == {b"200"}
