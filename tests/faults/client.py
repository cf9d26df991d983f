"""A well-behaved client, as a process of its own: 100 requests a second, like an API server behind a Service.

`python -m tests.faults.client CA PORT...` sends reviews until its standard input ends, then prints what
it saw as JSON. Ten workers keep their connections alive and renew them now and then. With several ports (the
replicas of a Service) a request that gets no answer goes to the next one, as the API server's own client and
the readiness probe bring about.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.running import NAME, review

WORKERS = 10
PAUSE_SECONDS = 0.1
REQUESTS_A_CONNECTION = 20
PATIENCE_SECONDS = 10.0  # the timeoutSeconds of k8s/base/webhook.yaml
FAILOVER_SECONDS = 2.0
UNREADY_SECONDS = 2.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter, int]


class Client:
    """The workers' common memory."""

    def __init__(self, ca: Path, ports: list[int]) -> None:
        self.context = ssl.create_default_context(cafile=str(ca))
        self.failed = dict.fromkeys(ports, -math.inf)
        self.done = asyncio.Event()
        self.answers = 0
        self.took: list[float] = []
        self.problems: list[str] = []

    def port(self, tried: set[int]) -> int:
        """A replica; one that was tried, or gave no answer a moment ago, only if there is no other."""
        ago = time.monotonic() - UNREADY_SECONDS
        untried = {port: at for port, at in self.failed.items() if port not in tried} or self.failed
        return random.choice([port for port, at in untried.items() if at < ago] or list(untried))

    async def work(self, number: int) -> None:
        """Send requests until done."""
        streams: Streams | None = None
        for count in itertools.count(number):
            if self.done.is_set():
                break
            start = time.perf_counter()
            try:
                streams = await self.ask(f"{number}-{count}", streams)
            except (OSError, EOFError, ValueError) as problem:
                streams = None
                self.problems.append(f"{type(problem).__name__}: {problem}")
            took = time.perf_counter() - start
            self.took.append(took)
            if streams is not None and count % REQUESTS_A_CONNECTION == 0:
                streams[1].close()
                streams = None
            await asyncio.sleep(max(0.0, PAUSE_SECONDS - took))
        if streams is not None:
            streams[1].close()

    async def ask(self, uid: str, streams: Streams | None) -> Streams | None:
        """One request: on the connection at hand, else on a new one, else on one to another replica."""
        attempts = (streams is not None) + len(self.failed)
        tried: set[int] = set()
        for attempt in range(attempts):
            port = self.port(tried)
            last = attempt == attempts - 1
            patience = PATIENCE_SECONDS if last or len(self.failed) == 1 else FAILOVER_SECONDS
            try:
                async with asyncio.timeout(patience):
                    if streams is None:
                        reader, writer = await asyncio.open_connection(
                            "127.0.0.1", port, ssl=self.context, server_hostname=NAME
                        )
                        streams = reader, writer, port
                    port = streams[2]
                    return await self.exchange(uid, streams)
            except (OSError, EOFError):  # no answer: timeouts and handshakes that end are OSErrors too
                if streams is not None:
                    streams[1].close()
                streams = None
                self.failed[port] = time.monotonic()
                tried.add(port)
                if last:
                    raise
        return None

    async def exchange(self, uid: str, streams: Streams) -> Streams | None:
        """A request and its answer; the connection, if it stays open."""
        reader, writer, _ = streams
        body = review(uid)
        writer.write(
            f"POST /mutate?timeout=10s HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        answer: Any = json.loads(await reader.readexactly(length))
        if not head.startswith("http/1.1 200") or answer["response"]["uid"] != uid:
            raise ValueError(f"wrong answer: {head.splitlines()[0]} {answer}")
        self.answers += 1
        if "connection: close" in head:
            writer.close()
            return None
        return streams


async def main(ca: Path, ports: list[int]) -> None:
    """Work until standard input ends."""
    client = Client(ca, ports)
    loop = asyncio.get_running_loop()

    def wait() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(client.done.set)

    await client.ask("first", None)
    threading.Thread(target=wait, daemon=True).start()
    workers = asyncio.gather(*(client.work(number) for number in range(WORKERS)))
    print("started", flush=True)
    await workers
    took = sorted(client.took)
    seen = {"answers": client.answers, "p99": took[len(took) * 99 // 100], "slowest": took[-1]}
    print(json.dumps({**seen, "problems": client.problems[:5]}))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), [int(port) for port in sys.argv[2:]]))
