"""Load: many clients in one event loop, which send what an API server sends, and how long each answer took."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from pathlib import Path
from typing import NamedTuple, Self, cast

from tests.running import NAME

PATIENCE_SECONDS = 10.0  # the timeoutSeconds of k8s/base/webhook.yaml
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class Seen(NamedTuple):
    """What clients saw: seconds of each answer, seconds of all together, and what failed."""

    took: list[float]
    seconds: float
    failed: list[str]


def request(body: bytes) -> bytes:
    """The bytes of an API server's call."""
    head = (
        f"POST /mutate?timeout=10s HTTP/1.1\r\nHost: {NAME}:443\r\nUser-Agent: kube-apiserver-admission\r\n"
        f"Content-Length: {len(body)}\r\nAccept: application/json, */*\r\nContent-Type: application/json\r\n"
        "Accept-Encoding: gzip\r\n\r\n"
    )
    return head.encode() + body


def trusting(ca: Path) -> ssl.SSLContext:
    """A client's context that believes one CA."""
    return ssl.create_default_context(cafile=str(ca))


class Client(asyncio.Protocol):
    """One kept connection; asks one thing at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._whole = 0
        self._answer: asyncio.Future[bytes] | None = None
        self._transport: asyncio.WriteTransport | None = None

    @classmethod
    async def to(cls, port: int, context: ssl.SSLContext) -> Client:
        """A new connection, after its handshake."""
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(cls, "127.0.0.1", port, ssl=context, server_hostname=NAME))[1]

    async def ask(self, sent: bytes) -> bytes:
        """The whole answer. Raises OSError if there is none, or another status than 200."""
        self._answer = asyncio.get_running_loop().create_future()
        assert self._transport is not None
        self._transport.write(sent)
        answer = await self._answer
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise OSError(answer[:100].decode(errors="replace"))
        return answer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        assert self._transport is not None
        self._transport.abort()

    # asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._whole and (end := self._received.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._received, 0, end + 2)
            self._whole = end + 4 + (int(length[1]) if length else 0)
        if self._whole and len(self._received) >= self._whole:
            answer = bytes(self._received)
            self._received.clear()
            self._whole = 0
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc if isinstance(exc, OSError) else ConnectionResetError("connection closed"))


async def kept(clients: list[Client], sent: bytes, count: int) -> Seen:
    """So many requests on kept connections, each of which has one under way at all times."""
    took: list[float] = []
    left = iter(range(count))

    async def work(client: Client) -> None:
        for _ in left:
            start = time.perf_counter()
            await client.ask(sent)
            took.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*map(work, clients))
    return Seen(took, time.perf_counter() - start, [])


async def anew(port: int, context: ssl.SSLContext, sent: bytes, count: int, workers: int, each: int = 1) -> Seen:
    """So many connections, each for a few requests; the first answer's time has the handshake in it."""
    took: list[float] = []
    failed: list[str] = []
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            start = time.perf_counter()
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    async with await Client.to(port, context) as client:
                        for _ in range(each):
                            await client.ask(sent)
                            took.append(time.perf_counter() - start)
                            start = time.perf_counter()
            except OSError as problem:  # a timeout too
                failed.append(f"{type(problem).__name__}: {problem}")

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(workers)))
    return Seen(took, time.perf_counter() - start, failed)


async def at_once(ports: list[int], context: ssl.SSLContext, requests: list[bytes]) -> tuple[Seen, list[bytes]]:
    """All requests at the same moment, each on a connection of its own (as HTTP/1.1 needs), to the ports in turn."""
    took: list[float] = []
    failed: list[str] = []
    answers: list[bytes] = []

    async def one(number: int, sent: bytes) -> None:
        start = time.perf_counter()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                async with await Client.to(ports[number % len(ports)], context) as client:
                    answers.append(await client.ask(sent))
        except OSError as problem:
            failed.append(f"{type(problem).__name__}: {problem}")
        else:
            took.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(one(number, sent) for number, sent in enumerate(requests)))
    return Seen(took, time.perf_counter() - start, failed), answers
