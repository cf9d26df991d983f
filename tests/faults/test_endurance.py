"""Many admissions: what a process holds does not grow with what it has answered."""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from pathlib import Path

import pytest

from injector import GROUP
from tests.running import Replica, receive, review

pytestmark = pytest.mark.slow

ADMISSIONS = int(os.environ.get("ADMISSIONS", "10000"))  # `make endurance` sends 100,000
WARM_UP = 3000
A_CONNECTION = 200
GROWTH_BYTES = 6 * 2**20
SETTLE_SECONDS = 30


def requests() -> list[bytes]:
    """Plain Pods, Pods to inject, Pods to deny, and what is no review."""
    asks = json.loads(review())
    asks["request"]["object"]["metadata"]["annotations"] = {f"{GROUP}/inject": "true", f"{GROUP}/run-as-user": "1000"}
    wrong = json.loads(json.dumps(asks))
    wrong["request"]["object"]["metadata"]["annotations"][f"{GROUP}/path"] = "relative"
    bodies = [review(), json.dumps(asks).encode(), json.dumps(wrong).encode(), b'{"kind": "Pod"}', b"\x00"]
    return [b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body for body in bodies]


def open_files(replica: Replica) -> int:
    """How many files the webhook holds once it has closed its ends of the connections, which it does after us."""
    end = time.monotonic() + SETTLE_SECONDS
    while replica.metric('litestream_hook_connections{port="https"}'):
        assert time.monotonic() < end
        time.sleep(0.05)
    folder, last = Path(f"/proc/{replica.process.pid}/fd"), 0
    while (count := len(list(folder.iterdir()))) != last:
        assert time.monotonic() < end
        last = count
        time.sleep(0.05)
    return count


def held(replica: Replica) -> tuple[float, int, int]:
    """Resident bytes, open files and threads."""
    files = open_files(replica)
    status = Path(f"/proc/{replica.process.pid}/status").read_text()
    threads = re.search(r"^Threads:\s*(\d+)$", status, re.MULTILINE)
    assert threads is not None
    return replica.metric("process_resident_memory_bytes"), files, int(threads[1])


def send(replica: Replica, count: int) -> None:
    shapes = requests()
    for _ in range(0, count, A_CONNECTION):
        with replica.connect() as client:
            for request in itertools.islice(itertools.cycle(shapes), A_CONNECTION):
                client.sendall(request)
                assert receive(client).split(b" ")[1] in {b"200", b"400"}


def test_many_admissions_leave_memory_files_and_threads_as_they_were(replica: Replica) -> None:
    send(replica, WARM_UP)
    before = held(replica)
    send(replica, ADMISSIONS)
    after = held(replica)
    assert 0 < after[0] < before[0] + GROWTH_BYTES
    assert after[1:] == before[1:]
    counted = replica.get("metrics")[1].splitlines()
    answered = sum(float(line.split()[1]) for line in counted if line.startswith("litestream_hook_requests_total"))
    assert answered == WARM_UP + ADMISSIONS
