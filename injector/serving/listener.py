"""One port: accepts connections, bounds their number and their memory, and ends those that are overdue."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from injector.serving import log, metrics
from injector.serving.connection import CLOSING_SECONDS, HANDSHAKE_SECONDS, SECONDS, Connection, Phase

if TYPE_CHECKING:
    from collections.abc import Generator

BACKLOG: Final = 1024
HELD_BYTES: Final = 64 * 2**20  # of bodies in memory at once: nine of the largest
STOP_SECONDS: Final = 20
LOOK_SECONDS: Final = 1.0


class Server(uvicorn.Server):
    """uvicorn's server without its signal handling: who runs several of them stops them together."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals alone."""
        yield


class Listener:
    """A listening socket and the connections that came through it.

    uvicorn's own listening socket can't bound handshakes in number or time, so connections are accepted here
    and handed to uvicorn's protocol and server, which run them and end them.
    """

    def __init__(
        self,
        name: str,
        address: tuple[str, int],
        app: Any,  # noqa: ANN401 (an ASGI application)
        limit: int,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Bind `address`, without serving yet; at most `limit` connections are kept. Raises OSError."""
        self.name = name
        self.limit = limit
        self.connections: set[Connection] = set()
        self._context = context
        self._held = 0
        self._stopping = False
        self._opening: dict[Connection, socket.socket] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket = _listen(address)
        self.port: int = self._socket.getsockname()[1]
        self._server = Server(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=int(SECONDS[Phase.IDLE]),
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )
        metrics.connections.labels(name).set_function(lambda: len(self.connections))

    async def run(self) -> None:
        """Serve until `stop`, then until every request is answered, or STOP_SECONDS have passed."""
        server = asyncio.create_task(self._server.serve(sockets=[]))
        self._accepting = asyncio.create_task(self._accept())
        expiring = asyncio.create_task(self._expire())
        try:
            await server
        finally:
            self._accepting.cancel()
            expiring.cancel()
            self._socket.close()
            for connection in list(self.connections):
                connection.end("stopped")

    async def stop(self) -> None:
        """Take in what already waits in the backlog, accept nothing more, and finish what is open."""
        self._stopping = True
        self._accepting.cancel()
        with contextlib.suppress(OSError):
            while True:
                self._admit(self._socket.accept()[0])
        self._socket.close()
        for connection in list(self.connections):
            connection.shutdown()
        if self._opening:
            await asyncio.wait(self._tasks)
        self._server.should_exit = True

    def ended(self, reason: str) -> None:
        """Count a connection that the webhook ended, by a word from a closed set."""
        metrics.connections_ended.labels(self.name, reason).inc()

    def closed(self, connection: Connection) -> None:
        """Forget a connection that is gone."""
        self.connections.discard(connection)

    def abandon(self, connection: Connection) -> None:
        """End a connection whose handshake is not complete."""
        if opening := self._opening.get(connection):
            with contextlib.suppress(OSError):
                opening.shutdown(socket.SHUT_RDWR)

    def hold(self, count: int) -> None:
        """Count bytes of bodies that are in memory; too many of them end the largest unfinished request."""
        self._held += count
        if count > 0 and self._held > HELD_BYTES:
            receiving = [c for c in self.connections if c.phase is Phase.RECEIVING]
            if receiving:
                max(receiving, key=lambda c: c.held).end("memory")

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(self._socket)
            except OSError as problem:
                # Out of file descriptors or memory: connections that wait are taken when there are some.
                log.event(logging.WARNING, f"a connection can't be accepted: {problem.strerror}", repeats="accept")
                await asyncio.sleep(0.1)
            else:
                self._admit(accepted)

    def _admit(self, accepted: socket.socket) -> None:
        if len(self.connections) >= self.limit and not self._shed():
            self.ended("refused")
            accepted.close()
            return
        connection = Connection(self._server.config, self._server.server_state, {}, owner=self)
        connection.stopping = self._stopping
        self.connections.add(connection)
        self._opening[connection] = accepted
        task = asyncio.create_task(self._open(connection, accepted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _shed(self) -> bool:
        """Make room: end the connection of least use, for longest; False if all are being answered."""
        least = min(self.connections, key=lambda c: (c.phase, c.since))
        if least.phase is Phase.ANSWERING:
            return False
        self.connections.discard(least)
        least.end("shed")
        return True

    async def _open(self, connection: Connection, accepted: socket.socket) -> None:
        try:
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if self._context else None,
                ssl_shutdown_timeout=CLOSING_SECONDS if self._context else None,
            )
        except ssl.SSLError as problem:
            self.connections.discard(connection)
            self.ended("handshake")
            log.event(
                logging.WARNING,
                f"TLS handshake failed: {problem.reason or problem.strerror}",
                repeats="handshake",
            )
            accepted.close()
        except OSError:  # a timeout too
            self.connections.discard(connection)
            self.ended("handshake")
            accepted.close()
        finally:
            del self._opening[connection]

    async def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        before = loop.time()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = loop.time()
            late = now - before - LOOK_SECONDS
            before = now
            for connection in list(self.connections):
                if late > LOOK_SECONDS:
                    # The process or its node was stopped: what clients sent meanwhile is not read yet.
                    connection.deadline += late
                elif connection.connected and (reason := connection.overdue(now)):
                    connection.end(reason)


def _listen(address: tuple[str, int]) -> socket.socket:
    family, kind, protocol, _, place = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind(place)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening
