"""Many Pods of one namespace, and the single-writer guard of all the others."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import reviews, standin
from tests.running import NAME, Replica, receive, running, write_pair

pytestmark = pytest.mark.slow

CONNECTIONS = 300
PRELUDE = """
from pathlib import Path
from injector.cluster import client
client.in_cluster.__defaults__ = (Path({folder!r}),)
"""


def request(name: str, namespace: str) -> bytes:
    """A review of a Pod that asks for injection, and so for a question to the Kubernetes API."""
    body = json.dumps(reviews.review(reviews.pod(None, {"name": name}), namespace=namespace)).encode()
    return f"POST /mutate HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def outcome(replica: Replica, name: str, namespace: str) -> str:
    """What becomes of a Pod: `allowed`, or why not."""
    with replica.connect(timeout=60) as client:
        client.sendall(request(name, namespace))
        response = json.loads(receive(client).partition(b"\r\n\r\n")[2])["response"]
    return "allowed" if response["allowed"] else str(response["status"]["message"])


@contextlib.contextmanager
def configured(api: standin.Server, ca: str) -> Iterator[None]:
    """An API that calls our webhook."""
    hook = standin.webhook("pods.example.com", ca_bundle=ca)
    api.api.put("mutatingwebhookconfigurations", "", standin.configuration(hook))
    yield


def test_300_connections_of_one_namespace_cost_no_pod_of_another(tmp_path: Path) -> None:
    """More than the guard lets wait, and each sends on; the API needs 20 ms an answer."""
    account = tmp_path / "account"
    account.mkdir()
    write_pair(tmp_path / "certificates")
    ca = base64.b64encode((tmp_path / "certificates-ca.crt").read_bytes()).decode()
    with (
        standin.serving(account) as api,
        configured(api, ca),
        running(
            tmp_path,
            prelude=PRELUDE.format(folder=str(account)),
            KUBERNETES_SERVICE_HOST=api.host,
            KUBERNETES_SERVICE_PORT=api.port,
        ) as replica,
        contextlib.ExitStack() as stack,
    ):
        api.api.faults.append(standin.Fault(seconds=0.02, times=10**6))
        ended = threading.Event()
        flood = [stack.enter_context(replica.connect()) for _ in range(CONNECTIONS)]

        def litter(first: int) -> None:
            with contextlib.suppress(OSError):
                while not ended.is_set():
                    for number in range(first, CONNECTIONS, 4):
                        flood[number].sendall(request(f"made-up-{number}", "nowhere"))
                    for number in range(first, CONNECTIONS, 4):
                        receive(flood[number])

        threads = [threading.Thread(target=litter, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        found = [outcome(replica, f"web-{number}", "apps") for number in range(7)]
        ended.set()
        for one in flood:
            one.close()
        for thread in threads:
            thread.join()
    assert found == ["allowed"] * 7
