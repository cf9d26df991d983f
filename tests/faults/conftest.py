"""A webhook under attack, and the client that must not notice."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import ROOT, Replica, running


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    """One webhook."""
    with running(tmp_path) as replica:
        yield replica


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """One webhook for all tests of a module that do it no lasting harm."""
    with running(tmp_path_factory.mktemp("shared")) as replica:
        yield replica


@contextlib.contextmanager
def unharmed(*replicas: Replica) -> Iterator[None]:
    """While this lasts, a client sends 100 requests a second; each is answered while an API server would still wait.

    `pytest -rP` shows what it saw: docs/security.md has these numbers.
    """
    ports = [str(replica.port) for replica in replicas]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.client", str(replicas[0].ca), *ports],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as client:
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == b"started\n"
            yield
            out, _ = client.communicate(timeout=30)
        except BaseException:
            client.kill()
            raise
    seen = json.loads(out)
    print(f"{seen['answers']} answers, p99 {seen['p99'] * 1000:.0f} ms, slowest {seen['slowest'] * 1000:.0f} ms")
    assert seen["problems"] == []
    assert seen["answers"] > 0


@contextlib.contextmanager
def connections(replica: Replica, count: int, *, pause: float = 0) -> Iterator[list[socket.socket]]:
    """Connections that send nothing, opened one after the other."""
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            opened.append(stack.enter_context(socket.create_connection(("127.0.0.1", replica.port), 30)))
            time.sleep(pause)
        yield opened
