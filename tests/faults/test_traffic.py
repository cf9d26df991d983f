"""Bytes that are not what they should be, or too many of them."""

from __future__ import annotations

import contextlib
import json
import random
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from injector import GROUP
from injector.serving.connection import PIPELINED
from injector.serving.large import READ_AT_ONCE
from tests.faults.conftest import unharmed
from tests.running import HASTY, Replica, receive, review, running

pytestmark = pytest.mark.slow

POST = b"POST /mutate HTTP/1.1\r\nHost: x\r\n"


def send(replica: Replica, data: bytes) -> bytes:
    """What comes back for `data` until the server closes, or is silent for a while."""
    answer = b""
    with (
        replica.connect(timeout=2) as client,
        contextlib.suppress(TimeoutError, ConnectionError, ssl.SSLError),
    ):
        client.sendall(data)
        while piece := client.recv(65536):
            answer += piece
    return answer


def in_threads(count: int, action: Callable[[int], object]) -> None:
    threads = [threading.Thread(target=action, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_bodies_of_40_mb_are_refused_and_not_kept(replica: Replica) -> None:
    before = replica.metric("process_resident_memory_bytes")
    body = b" " * 40 * 10**6
    announced = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    answers = []
    with unharmed(replica):
        for _ in range(3):
            in_threads(2, lambda number: answers.append(send(replica, (announced, chunked)[number])))
    assert [answer.split(b" ")[1] for answer in answers if answer] == [b"413"] * 6
    assert replica.metric("process_resident_memory_bytes") - before < 100 * 2**20


@pytest.mark.parametrize("megabytes", [8, 40])
@pytest.mark.parametrize("how", ["announced", "in chunks"])
def test_a_client_that_sends_on_reads_why_its_upload_was_refused(shared: Replica, megabytes: int, how: str) -> None:
    size = megabytes * 2**20
    head, tail = b"Content-Length: %d\r\n\r\n" % size, b""
    if how == "in chunks":
        head, tail = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size, b"\r\n0\r\n\r\n"
    with shared.connect() as client:
        client.sendall(POST + head)
        for _ in range(megabytes):
            client.sendall(b" " * 2**20)  # whoever closed too early would break the pipe
        client.sendall(tail)
        answer = receive(client)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"at most 7340032 bytes" in answer
        client.sendall(POST + b"Content-Length: 2\r\n\r\n{}")
        assert receive(client).startswith(b"HTTP/1.1 400 ")


def test_an_upload_is_not_read_on_for_ever(shared: Replica) -> None:
    sent: list[int] = []
    with shared.connect() as client, contextlib.suppress(OSError):
        client.sendall(POST + b"Content-Length: 1000000000\r\n\r\n")
        for megabyte in range(900):
            client.sendall(b" " * 2**20)
            sent.append(megabyte)
    assert len(sent) < 200


def test_large_requests_for_which_there_is_no_room_are_told_while_they_send(tmp_path: Path) -> None:
    size, impatient = 2**20, "from injector.serving import large\nlarge.WAIT_SECONDS = 0.2\n"
    head = POST + b"Content-Length: %d\r\n\r\n" % size
    with running(tmp_path, prelude=impatient) as replica, contextlib.ExitStack() as stack:
        for _ in range(READ_AT_ONCE):
            half = stack.enter_context(replica.connect())
            half.sendall(head + b" " * (size // 2))
        with replica.connect() as client:
            for _ in range(2):
                client.sendall(head + b" " * size)
                assert receive(client).startswith(b"HTTP/1.1 503 ")


MALFORMED = {
    "no HTTP": b"\x00\x01\x02 hello\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "negative length": POST + b"Content-Length: -1\r\n\r\n",
    "huge length": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "bad chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "control characters": b"POST /mutate HTTP/1.1\r\nHost: x\r\nX: \x00\x07\r\n\r\n",
    "no host, odd method": b"BREW /mutate HTTP/1.1\r\n\r\n",
    "headers without end": POST + b"X: " + b"a" * 200_000,
    "many headers": POST + b"".join(b"X-%d: 1\r\n" % n for n in range(50_000)),
    "trailers without end": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: 1\r\n" * 50_000,
    "authority for a path": b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_http_is_answered_400_and_closed(shared: Replica, what: str) -> None:
    answer = send(shared, MALFORMED[what])
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert shared.get("healthz")[0] == 200


def test_malformed_http_hurts_nobody(replica: Replica) -> None:
    with unharmed(replica):
        in_threads(8, lambda number: [send(replica, data) for data in list(MALFORMED.values())[number::8]])


def test_an_upgrade_is_not_made(shared: Replica) -> None:
    """No WebSocket, no HTTP/2 in the clear: the request is answered as if nothing had been asked."""
    for protocol in (b"websocket", b"h2c"):
        head = POST + b"Connection: Upgrade, close\r\nUpgrade: " + protocol + b"\r\nContent-Length: 2\r\n\r\n{}"
        assert send(shared, head).split(b" ")[1] in {b"400", b""}


def test_pipelined_requests_are_answered_in_order(shared: Replica) -> None:
    count = 10
    requests = []
    for number in range(count):
        body = review(f"uid-{number}")
        last = b"Connection: close\r\n" if number == count - 1 else b""
        requests.append(POST + last + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    answer = send(shared, b"".join(requests))
    places = [answer.find(f'"uid-{number}"'.encode()) for number in range(count)]
    assert answer.count(b"HTTP/1.1 200 OK") == count
    assert places == sorted(places)
    assert places[0] > 0


def test_endless_pipelining_hurts_nobody(replica: Replica) -> None:
    body = review()
    request = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    before = replica.metric("process_resident_memory_bytes")
    with unharmed(replica):
        in_threads(4, lambda _: [send(replica, request * 2000) for _ in range(2)])
    assert replica.metric("process_resident_memory_bytes") - before < 100 * 2**20


def test_a_client_that_does_not_read_its_answers_is_ended_and_hurts_nobody(tmp_path: Path) -> None:
    asked = json.loads(review())
    asked["request"]["object"]["metadata"]["annotations"] = {f"{GROUP}/inject": "true", f"{GROUP}/run-as-user": "1"}
    body = json.dumps(asked).encode()
    request = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def ask_on(replica: Replica) -> None:
        with replica.connect(receive_buffer=4096) as client:
            client.settimeout(10)
            with contextlib.suppress(OSError):
                while True:
                    client.sendall(request * PIPELINED)
                    time.sleep(0.02)

    with running(tmp_path, prelude=HASTY) as replica:
        with unharmed(replica):
            in_threads(2, lambda _: ask_on(replica))
        ended = 'litestream_hook_connections_ended_total{port="https",reason="answering-too-long"}'
        assert replica.metric(ended) == 2


def test_1000_garbage_requests_a_second_fill_no_disk(replica: Replica) -> None:
    seconds, workers = 4, 2
    log_before = replica.stderr.stat().st_size
    sent = [0] * workers

    def litter(number: int) -> None:
        chance = random.Random(number)
        end = time.monotonic() + seconds
        client = replica.connect()
        while time.monotonic() < end:
            begun = time.monotonic()
            for kind in range(50):
                body = chance.randbytes(200) if kind % 2 else b'{"request": []}'
                client.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                client.recv(65536)
                sent[number] += 1
            client.close()
            client = replica.connect()
            client.sendall(b"\x00\r\n\r\n")
            client.close()
            client = replica.connect()
            time.sleep(max(0.0, 0.1 - (time.monotonic() - begun)))
        client.close()

    with unharmed(replica):
        in_threads(workers, litter)
    admissions = sum(line["message"] == "admission" for line in replica.lines())
    written = replica.stderr.stat().st_size - log_before - admissions * 400
    assert sum(sent) > 500
    assert written < 20_000


def test_thousands_of_reviews_a_second_fill_no_disk(replica: Replica) -> None:
    """Well-formed ones, of one namespace and then of as many as there are requests."""
    count, workers, before = 2000, 2, replica.stderr.stat().st_size

    def ask(number: int) -> None:
        with replica.connect() as client:
            for each in range(count):
                body = review("1", namespace=f"made-up-{each}" if number else "loud")
                client.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                receive(client)

    with unharmed(replica):
        in_threads(workers, ask)
        asked = replica.stderr.stat().st_size - before
        body = review("2", namespace="quiet")
        with replica.connect() as client:
            client.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            receive(client)
    assert asked < 600_000  # all of them would be more than a megabyte
    assert replica.metric("litestream_hook_log_lines_held_back_total") > workers * count / 4
