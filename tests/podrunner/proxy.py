"""A TCP proxy in front of a server, for a network that is slow or gone.

As a program it is the proxy of a service mesh in a container: `proxy.py PORT TARGET-PORT`, until SIGTERM.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

CHUNK = 64 * 1024


class Proxy:
    """Forwards connections to a port of 127.0.0.1 until the `with` block ends.

    `port` is where it listens (by default any free one); `delay` is how many seconds every piece of data waits,
    in both directions; while `swallow` is set nothing gets through and nothing is refused. Both may be changed
    at any time.
    """

    def __init__(self, target: int, *, delay: float = 0, port: int = 0) -> None:
        self.target, self.delay = target, delay
        self._open = threading.Event()
        self._open.set()
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: set[socket.socket] = {self._listener}

    @property
    def endpoint(self) -> str:
        """Its URL for HTTP clients."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def swallow(self) -> bool:
        """Whether data vanishes (until this is unset again: then it goes on)."""
        return not self._open.is_set()

    @swallow.setter
    def swallow(self, wanted: bool) -> None:
        if wanted:
            self._open.clear()
        else:
            self._open.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._open.set()
        for connection in list(self._sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            self._sockets |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                self._closed.wait(self.delay)
                self._open.wait()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
            self._sockets.discard(end)


def main() -> None:
    port, target = map(int, sys.argv[1:])
    with Proxy(target, port=port):
        signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main()
