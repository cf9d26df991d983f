"""A client that keeps a connection, on purpose or not, without sending what it should."""

from __future__ import annotations

import contextlib
import ssl
import time
from pathlib import Path

import pytest

from tests.faults.conftest import connections, unharmed
from tests.running import HASTY, NAME, Replica, receive, review, running

pytestmark = pytest.mark.slow


def hello() -> bytes:
    """The first message of a TLS client."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=NAME)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_half_handshakes_are_ended_and_hurt_nobody(replica: Replica) -> None:
    with unharmed(replica), connections(replica, 200) as half:
        for number, one in enumerate(half):
            one.sendall(hello()[: 50 if number % 2 else None])
        for one in half:
            with contextlib.suppress(ConnectionResetError):
                while one.recv(65536):
                    pass
    assert replica.metric('litestream_hook_connections_ended_total{port="https",reason="handshake"}') == 200


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_byte_a_second_wins_no_time(tmp_path: Path, part: str) -> None:
    body = review()
    head = f"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with running(tmp_path, prelude=HASTY) as replica, unharmed(replica), contextlib.ExitStack() as stack:
        slow = [stack.enter_context(replica.connect()) for _ in range(20)]
        if part == "body":
            for one in slow:
                one.sendall(head)
        start = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in b"POST /mutate?timeout=10s HTTP/1.1" if part == "headers" else body:
                for one in slow:
                    one.sendall(bytes([byte]))
                time.sleep(1)
        assert time.monotonic() - start < 20
        ended = 'litestream_hook_connections_ended_total{port="https",reason="receiving-too-long"}'
        assert replica.metric(ended) == 20


def test_a_body_that_comes_behind_another_request_has_no_longer(tmp_path: Path) -> None:
    request = f"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: {len(review())}\r\n\r\n".encode()
    with running(tmp_path, prelude=HASTY) as replica, replica.connect() as client:
        client.sendall(request + review() + request + review()[:5])
        assert b" 200 " in receive(client)
        assert client.recv(1) == b""
        assert replica.metric('litestream_hook_connections_ended_total{port="https",reason="receiving-too-long"}') == 1
