"""HTTP/1.1 to one server: the connections, kept for the next request, and the answers that come on them.

Code of our own, because a Pod's creation waits for three or four requests, and each costs the processor a quarter of
what it costs with httpx2, whose layers, parser and pool are Python. httptools parses here as it does for uvicorn.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import httptools

IDLE = 60.0  # seconds that a connection is kept for the next request


class Answer(NamedTuple):
    """An answer; `headers` by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connections:
    """Connections to the server of an address, such as https://10.0.0.1:443.

    Every method raises OSError where there is no answer: TimeoutError, ssl.SSLError and ConnectionError are some.
    """

    def __init__(self, address: str, context: ssl.SSLContext | None) -> None:
        """`context` is for an address of https, else None."""
        url = urlsplit(address)
        self._server = (url.hostname or "", url.port or 443)
        self._host = url.netloc
        self._context = context
        self._open = set[_Connection]()
        self._idle: list[_Connection] = []
        self._closed = False

    async def ask(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, seconds: float
    ) -> Answer:
        """The whole answer to a request, within so many seconds."""
        async with asyncio.timeout(seconds), self._connection() as connection:
            connection.send(self._request(method, target, headers, body))
            while not connection.complete:
                await connection.news()
            return Answer(connection.status, connection.headers, b"".join(connection.body))

    async def stream(
        self, target: str, headers: Mapping[str, str], seconds: float, between: float
    ) -> AsyncIterator[Answer]:
        """An answer to GET part by part: its head within so many seconds, and `between` at most from part to part."""
        async with self._connection() as connection:
            async with asyncio.timeout(seconds):
                connection.send(self._request("GET", target, headers, None))
                while not connection.status:
                    await connection.news()
            while True:
                if connection.body or connection.complete:
                    parts, connection.body = connection.body, []
                    yield Answer(connection.status, connection.headers, b"".join(parts))
                if connection.complete:
                    return
                async with asyncio.timeout(between):
                    await connection.news()

    async def close(self) -> None:
        """Close all connections, whatever happens on them."""
        self.retire()
        for connection in list(self._open):
            connection.abort()
            await connection.lost.wait()

    def retire(self) -> None:
        """Close each connection when it is not in use any more."""
        self._closed = True
        for connection in self._idle:
            connection.abort()
        self._idle.clear()

    def _request(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
        length = {} if body is None else {"Content-Length": str(len(body))}
        fields = {"Host": self._host, **length, **headers}
        head = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*head, "", ""]).encode("latin-1") + (body or b"")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Connection]:
        """A connection that nobody else uses, new or kept; it is kept again if it is whole."""
        connection = self._kept() or await self._connected()
        try:
            yield connection
        finally:
            if connection.reusable and not self._closed:
                connection.since = asyncio.get_running_loop().time()
                self._idle.append(connection)
            else:
                connection.abort()

    def _kept(self) -> _Connection | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()  # the last: those that are too many grow old
            if connection.reusable and now - connection.since < IDLE:
                return connection
            connection.abort()
        return None

    async def _connected(self) -> _Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self._open), *self._server, ssl=self._context
        )
        return connection


class _Connection(asyncio.Protocol):
    """One connection, and the answer to the last request that was sent on it."""

    def __init__(self, opened: set[_Connection]) -> None:
        self.lost = asyncio.Event()
        self.since = 0.0
        self._all = opened
        self._news = asyncio.Event()
        self._error: OSError | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._begin()

    def _begin(self) -> None:
        self.status, self.complete, self._goes_on = 0, False, False
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []

    @property
    def reusable(self) -> bool:
        """Whether another request can be sent: the last one is answered, and the server goes on."""
        return self._goes_on and self._error is None

    def send(self, request: bytes) -> None:
        """Send a request, after the one before is answered."""
        assert self._transport is not None  # noqa: S101 (connected)
        self._begin()
        self._news.clear()
        self._transport.write(request)

    async def news(self) -> None:
        """Wait until more of the answer is there; raises OSError where nothing can come."""
        if self._error is None:
            await self._news.wait()
            self._news.clear()
        if self._error is not None and not self.complete:
            raise self._error

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in deed, not in name
        self._all.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self.status and not {"content-length", "transfer-encoding"} & self.headers.keys():
            self.complete = True  # such a body ends with the connection
        self._fail(error if isinstance(error, OSError) else ConnectionResetError("the server closed the connection"))
        self._all.discard(self)
        self.lost.set()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"the answer is not HTTP: {error}"))
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._news.set()

    def on_body(self, part: bytes) -> None:
        self.body.append(part)
        self._news.set()

    def on_message_complete(self) -> None:
        self.complete, self._goes_on = True, self._parser.should_keep_alive()
        self._news.set()

    def _fail(self, error: OSError) -> None:
        self._error = self._error or error
        self._news.set()
