"""The server as an API server meets it: start, memory, CPU, how long answers take, and what happens in bad moments."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from tests import reviews, standin
from tests.bench import load
from tests.bench.page import Table, percentile, spread, told
from tests.podrunner.s3 import free_ports
from tests.running import ROOT, Replica, running, write_pair

STARTS, ROUNDS, REQUESTS = 5, 5, 2000
AT_SIXTEEN = 1000  # requests of 6 KB in a round that counts CPU; of larger ones, a third
MANY = 10_000
ANEW = 250
PODS, NAMESPACES, REPLICAS = 1000, 20, 2
RELOAD_SECONDS, RELOADS = 0.25, 20
START_SECONDS = 60.0
CORES = os.sched_getaffinity(0)
Bodies = Mapping[str, bytes]
Result = TypeVar("Result")
# The same server, and instead of the webhook something that reads a body and answers 150 bytes.
EMPTY = """
from injector.serving import application
BODY = b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"1","allowed":true}}'.ljust(150)
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"150")]
async def empty(self, scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})
application.Application.__call__ = empty
"""
ACCOUNT = """
from pathlib import Path
from injector.cluster import client
client.in_cluster.__defaults__ = (Path({folder!r}),)
"""


def measured(bodies: Bodies) -> Iterator[Table]:
    """Each table, as soon as it is measured."""
    yield start()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        webhook, empty = (
            stack.enter_context(_serving(Path(folder) / name, prelude))
            for name, prelude in {"webhook": "", "empty": EMPTY}.items()
        )
        yield memory(webhook, bodies)
        yield cpu(webhook, empty, bodies)
        yield answers(webhook, empty, next(iter(bodies.values())))
        yield new_connections(webhook, empty, next(iter(bodies.values())))
        yield reloads(webhook, next(iter(bodies.values())))
    yield at_once()


def start() -> Table:
    """From the start of the process until /readyz answers 200."""
    ready, said = [], []
    for _ in told(range(STARTS), "starts"):
        seconds, busy = _cold_start()
        ready.append(seconds * 1000)
        said.append(busy * 1000)
    return Table(
        "Start",
        "A process without a cluster, which makes a certificate of its own, until `/readyz` answers 200.",
        ("", "ms", "of these on a processor"),
        [("cold start", spread(ready), spread(said))],
    )


def memory(webhook: Replica, bodies: Bodies) -> Table:
    """Resident memory of a process, before and after many requests."""
    idle = resident(webhook)
    rounds = 5
    for _ in told(range(rounds), "requests for the memory"):
        for sent in map(load.request, bodies.values()):
            _run(_on_kept(webhook, sent, MANY // rounds // len(bodies), 16))
    return Table(
        "Memory",
        "Resident, of one process: once it is ready, and after requests of the three kinds below.",
        ("", "MiB"),
        [("idle", f"{idle:.1f}"), (f"after {MANY:,} requests", f"{resident(webhook):.1f}")],
    )


def cpu(webhook: Replica, empty: Replica, bodies: Bodies) -> Table:
    """What a request costs the server, beside a handler that does nothing."""
    found: dict[tuple[str, str], list[float]] = {}
    for _ in told(range(ROUNDS), "rounds of CPU"):
        for what, body in bodies.items():
            count = AT_SIXTEEN if len(body) < 20_000 else AT_SIXTEEN // 3
            for name, replica in {"webhook": webhook, "empty": empty}.items():
                _, busy = _run(_on_kept(replica, load.request(body), count, 16))
                found.setdefault((what, name), []).append(busy / count * 1e6)
    rows = []
    for what in bodies:
        ours, nothing = found[what, "webhook"], found[what, "empty"]
        ratio = statistics.median(ours) / statistics.median(nothing)
        rows.append((what, spread(ours), spread(nothing), f"{ratio:.1f}"))
    return Table(
        "CPU of a request",
        "Microseconds of the server's process, TLS 1.3 and 16 kept connections. The empty handler is served by the "
        "same server, reads the body, and answers 150 bytes.",
        ("review", "webhook", "empty handler", "ratio"),
        rows,
    )


def answers(webhook: Replica, empty: Replica, body: bytes) -> Table:
    """How long clients wait, by how many ask at the same time."""
    connections = (1, 8, 64)
    found: dict[tuple[int, str], list[load.Seen]] = {}
    for _ in told(range(ROUNDS), "rounds of answers"):
        for count in connections:
            for name, replica in {"webhook": webhook, "empty handler": empty}.items():
                seen, _ = _run(_on_kept(replica, load.request(body), REQUESTS, count))
                found.setdefault((count, name), []).append(seen)
    rows = [(f"{count}, {name}", *_times(seen)) for (count, name), seen in found.items()]
    return Table(
        "Answers",
        f"Kept connections, each of which always has a 6 KB review to inject under way, {REQUESTS:,} requests a round: "
        "milliseconds that the client waits.",
        ("connections", "requests a second", "p50", "p99", "p99.9"),
        rows,
    )


def new_connections(webhook: Replica, empty: Replica, body: bytes) -> Table:
    """How long clients wait that keep no connection."""
    found: dict[str, list[load.Seen]] = {}
    for _ in told(range(ROUNDS), "rounds of new connections"):
        for name, replica in {"webhook": webhook, "empty handler": empty}.items():
            context = load.trusting(replica.ca)
            seen = _run(load.anew(replica.port, context, load.request(body), ANEW, workers=8))
            assert not seen.failed, seen.failed[0]
            found.setdefault(name, []).append(seen)
    return Table(
        "New connections",
        "Eight clients that make a connection for each request, the handshake included.",
        ("", "requests a second", "p50", "p99", "p99.9"),
        [(name, *_times(seen)) for name, seen in found.items()],
    )


def reloads(webhook: Replica, body: bytes) -> Table:
    """What clients see of a certificate that is replaced again and again."""

    async def run() -> load.Seen:
        async def renew() -> None:
            for _ in range(RELOADS):
                await asyncio.sleep(RELOAD_SECONDS)
                await asyncio.to_thread(write_pair, webhook.certificates)
            ended.set()

        async def work() -> None:
            while not ended.is_set():
                one = await load.anew(webhook.port, context, load.request(body), 4, workers=4, each=10)
                seen.append(one)

        ended, context = asyncio.Event(), load.trusting(webhook.ca)
        seen: list[load.Seen] = []
        start = time.perf_counter()
        await asyncio.gather(renew(), work(), work())
        took = [one for each in seen for one in each.took]
        return load.Seen(took, time.perf_counter() - start, [one for each in seen for one in each.failed])

    for _ in told(range(1), "certificates reloaded under load"):
        seen = _run(run())
    return Table(
        "Certificates reloaded under load",
        f"{RELOADS} new pairs of files, one every {RELOAD_SECONDS} s, under eight clients that make a new connection "
        "every ten requests and believe the CA alone: milliseconds that they wait.",
        ("requests", "failed", "p50", "p99", "p99.9"),
        [(f"{len(seen.took):,}", str(len(seen.failed)), *_percentiles(seen.took))],
    )


def at_once() -> Table:
    """Very many Pods at the same moment, two replicas, and the guard's questions to a stand-in for the API server."""
    pods = [
        load.request(
            json.dumps(reviews.review(reviews.pod(None, {"name": f"web-{n}"}), namespace=f"n{n % NAMESPACES}")).encode()
        )
        for n in range(PODS)
    ]
    found: list[tuple[load.Seen, int]] = []
    for _ in told(range(3), f"rounds of {PODS} Pods at once"):
        with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
            folder = Path(name)
            write_pair(folder / "certificates")
            host, port = stack.enter_context(_api(folder))
            prelude = ACCOUNT.format(folder=str(folder / "account"))
            there = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": str(port)}
            replicas = [stack.enter_context(_serving(folder, prelude, there)) for _ in range(REPLICAS)]
            context = load.trusting(replicas[0].ca)
            seen, bodies = _run(load.at_once([replica.port for replica in replicas], context, pods))
        found.append((seen, sum(b'"allowed":true' in body for body in bodies)))
    rows = []
    for number, (seen, let_in) in enumerate(found, 1):
        times = [f"{seconds:.2f}" for seconds in (seen.seconds, *(percentile(seen.took, p) for p in (50, 99, 100)))]
        lost = len(seen.failed)
        rows.append((str(number), *times, str(let_in), str(PODS - let_in - lost), str(lost)))
    return Table(
        f"{PODS:,} Pods at once",
        f"{PODS:,} different Pods in {NAMESPACES} namespaces at the same moment, each on a connection of its own, to "
        f"{REPLICAS} processes that ask a stand-in for the API server (in Python, a process of its own) for each Pod's "
        "Lease: seconds. Clients, stand-in and both processes share this machine. Who is refused (403) waits for the "
        "next try of its controller.",
        ("round", "until the last", "p50", "p99", "slowest", "let in", "refused", "without an answer"),
        rows,
    )


def resident(replica: Replica) -> float:
    """MiB of memory that a process has."""
    status = Path(f"/proc/{replica.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


def on_processor(replica: Replica) -> float:
    """Seconds that a process has been on a processor, all its threads together."""
    tasks = Path(f"/proc/{replica.process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


@contextlib.contextmanager
def _serving(folder: Path, prelude: str, environment: Mapping[str, str] = {}) -> Iterator[Replica]:
    """A webhook on the first of our processors, where there are several; the load is on the others."""
    folder.mkdir(exist_ok=True)
    cores = sorted(CORES)
    prefix = ["taskset", "--cpu-list", str(cores[0])] if len(cores) > 1 and shutil.which("taskset") else []
    with running(folder, prelude=prelude, prefix=prefix, pipe=False, **environment) as replica:
        yield replica


def _cold_start() -> tuple[float, float]:
    """Seconds until a new process is ready, and those that it was on a processor."""
    port = free_ports(1)[0]
    environment = {
        "PATH": os.environ["PATH"],
        "HOST": "127.0.0.1",
        "PORT": "0",
        "METRICS_BIND_ADDRESS": "127.0.0.1:0",
        "HEALTH_PROBE_BIND_ADDRESS": f"127.0.0.1:{port}",
    }
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "injector", "serve"], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
    ) as process:
        try:
            while not _ready(port):
                assert process.poll() is None
                assert time.perf_counter() - start < START_SECONDS
                time.sleep(0.002)
            seconds = time.perf_counter() - start
            tasks = Path(f"/proc/{process.pid}/task").iterdir()
            busy = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
        finally:
            process.send_signal(signal.SIGKILL)
    return seconds, busy


def _ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@contextlib.contextmanager
def _api(folder: Path) -> Iterator[tuple[str, int]]:
    """A stand-in for the API server in a process of its own, and the ServiceAccount's files in `account`."""
    account = folder / "account"
    account.mkdir()
    ca = base64.b64encode((folder / "certificates-ca.crt").read_bytes()).decode()
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.server", str(account), ca],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        host, port = process.stdout.readline().split()
        try:
            yield host, int(port)
        finally:
            process.kill()


async def _on_kept(replica: Replica, sent: bytes, count: int, connections: int) -> tuple[load.Seen, float]:
    """What clients saw of so many requests, and how many seconds the server was on a processor for them."""
    context = load.trusting(replica.ca)
    clients = [await load.Client.to(replica.port, context) for _ in range(connections)]
    try:
        await load.kept(clients, sent, connections)
        before = on_processor(replica)
        seen = await load.kept(clients, sent, count)
        return seen, on_processor(replica) - before
    finally:
        for client in clients:
            client.close()


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """Work on another processor than the server's."""
    rest = CORES - {min(CORES)}
    os.sched_setaffinity(0, rest or CORES)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)
    finally:
        os.sched_setaffinity(0, CORES)


def _times(rounds: Sequence[load.Seen]) -> list[str]:
    """Requests a second and percentiles, each as the rounds had it."""
    rates = [len(seen.took) / seen.seconds for seen in rounds]
    return [
        spread(rates),
        *(spread([percentile(seen.took, share) * 1000 for seen in rounds], 2) for share in (50, 99, 99.9)),
    ]


def _percentiles(took: Sequence[float]) -> list[str]:
    return [f"{percentile(took, share) * 1000:.2f}" for share in (50, 99, 99.9)]


def _stand_in(account: str, ca: str) -> None:
    """Be the API server until killed."""
    with standin.serving(Path(account)) as server:
        hook = standin.webhook("pods.example.com", ca_bundle=ca)
        server.api.put("mutatingwebhookconfigurations", "", standin.configuration(hook))
        print(server.host, server.port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    _stand_in(*sys.argv[1:])
