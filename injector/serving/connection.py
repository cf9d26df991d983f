"""One client's connection: uvicorn's HTTP/1.1 with the deadlines and sizes that it does not set itself.

uvicorn counts its keep-alive time only after a first response and sets no limit to headers, to trailers or
to what is pipelined. Every phase of a connection has one deadline here, fixed when the phase begins, so that
a byte a second wins nothing; `Listener` looks at them once a second.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, Protocol

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

    from uvicorn import Config
    from uvicorn.server import ServerState


HEADER_BYTES: Final = 64 * 1024
MESSAGE_BYTES: Final = 64 * 2**20  # what is read, and thrown away, of a body that was refused for its size
UNSENT_BYTES: Final = 16 * 1024  # of answers to one client, beside what the network holds: then sending waits for it
PIPELINED: Final = 16  # requests that may wait behind the one being answered


class Phase(enum.IntEnum):
    """What a connection is doing; when there is no room for a new one, lower values make room first."""

    SILENT = 0
    RECEIVING = 1
    IDLE = 2
    ANSWERING = 3


SECONDS: Final = {
    Phase.SILENT: 20.0,  # from accepting to the first byte of a request, handshake included
    Phase.RECEIVING: 10.0,  # from the first byte of a request to the last one
    Phase.ANSWERING: 20.0,  # from the last byte of a request to the last one of the answer
    Phase.IDLE: 150.0,  # Go's http.Transport, in the API server, gives up idle connections after 90 s
}
HANDSHAKE_SECONDS: Final = 5.0
CLOSING_SECONDS: Final = 5.0
LINGER_SECONDS: Final = 1.0  # after SIGTERM, in which a request may be on its way on a connection that looks idle


class Owner(Protocol):
    """Whoever accepted a connection, and is told what becomes of it."""

    def ended(self, reason: str) -> None:
        """The webhook ends a connection, for a reason of a closed set."""

    def abandon(self, connection: Connection) -> None:
        """A connection whose handshake is not complete is to be ended."""

    def hold(self, count: int) -> None:
        """So many more (or, below 0, fewer) bytes of bodies are in memory."""

    def closed(self, connection: Connection) -> None:
        """A connection is gone, whoever ended it."""


class Connection(HttpToolsProtocol):
    """A connection from being accepted to being closed, in one of the phases."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        owner: Owner,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.owner = owner
        self.connected = False  # the handshake is complete
        self.stopping = False
        self._received = 0  # bytes since the last request was complete
        self.held = 0  # bytes of bodies that wait for an answer
        self._in_headers = True
        self._in_message = False
        self.enter(Phase.SILENT)

    def enter(self, phase: Phase) -> None:
        """Begin a phase, and with it its deadline."""
        self.phase = phase
        self.since = self.loop.time()
        self.deadline = self.since + SECONDS[phase]

    def overdue(self, now: float) -> str | None:
        """Why the connection must end at `now` (the loop's clock), as a word; None if it may go on."""
        if now >= self.deadline:
            return f"{self.phase.name.lower()}-too-long"
        if self.phase is not Phase.IDLE or now - self.since < CLOSING_SECONDS:
            return None
        return "not-reading" if self.transport.is_closing() or self.transport.get_write_buffer_size() else None

    def end(self, reason: str) -> None:
        """Close at once, without waiting for the client to read what was sent."""
        if self.stopping and self.phase is Phase.IDLE and not self.transport.get_write_buffer_size():
            self.transport.close()  # nothing is left to be told or lost
            return
        self.owner.ended(reason)
        if self.connected:
            self.transport.abort()
        else:
            self.owner.abandon(self)

    def shutdown(self) -> None:
        """Finish: a connection closes after the next answer, or when it has been idle for LINGER_SECONDS more.

        An API server keeps connections, and sends nothing twice: a request that is lost is a Pod that is refused.
        """
        self.stopping = True
        if self.phase in (Phase.SILENT, Phase.IDLE):
            self.deadline = min(self.deadline, self.loop.time() + LINGER_SECONDS)
        elif self.cycle is not None:
            self.cycle.keep_alive = False

    # asyncio.Protocol
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The handshake is complete, and so is the transport."""
        self.connected = True
        transport.set_write_buffer_limits(UNSENT_BYTES)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, whoever ended it."""
        super().connection_lost(exc)
        self._release()
        self.owner.closed(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request; too many of them end the connection."""
        if self.phase in (Phase.SILENT, Phase.IDLE):
            self._received = 0
            self.enter(Phase.RECEIVING)
        self._received += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_headers and self._received > HEADER_BYTES:
            self.owner.ended("headers-too-long")
            self.send_400_response(f"The headers are longer than {HEADER_BYTES // 1024} KiB.")
        elif self._received > MESSAGE_BYTES:
            self.end("request-too-long")

    # Callbacks of the HTTP parser
    def on_message_begin(self) -> None:
        """The first byte of a request line."""
        if len(self.pipeline) >= PIPELINED:
            raise OverflowError("too many pipelined requests")
        self._in_headers = self._in_message = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; one behind the body, which nobody needs, would have no bound."""
        if not self._in_headers:
            raise OverflowError("trailers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The empty line after the headers: the application starts."""
        self._in_headers = False
        super().on_headers_complete()
        if self.stopping and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A piece of a body, counted until the request is answered."""
        super().on_body(body)
        if not self.cycle.response_complete:
            self.held += len(body)
            self.owner.hold(len(body))

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        self._in_message = False
        self._received = 0
        super().on_message_complete()
        if self.phase is Phase.RECEIVING:
            self.enter(Phase.IDLE if self.cycle.response_complete else Phase.ANSWERING)

    # Callback of the answer
    def on_response_complete(self) -> None:
        """The answer was handed to the network; the next request may wait already."""
        following = self.pipeline[-1][0] if self.pipeline else None
        self._release()
        super().on_response_complete()
        if following is not None and not following.more_body:
            self.enter(Phase.ANSWERING)
        elif not self._in_message:
            self.enter(Phase.IDLE)
        elif self.phase is Phase.ANSWERING:
            self.enter(Phase.RECEIVING)

    def _release(self) -> None:
        self.owner.hold(-self.held)
        self.held = 0
