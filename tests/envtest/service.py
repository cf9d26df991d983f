"""What kube-proxy is in a cluster: connections to one port go to the webhook's replicas in turn."""

from __future__ import annotations

import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Service(socketserver.ThreadingTCPServer):
    """A port of localhost in front of `backends`, which can be changed while connections are open."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Connection)
        self.backends: list[int] = []
        self._turn = 0

    @property
    def port(self) -> int:
        """The port that clients connect to."""
        return int(self.server_address[1])

    def next(self) -> int:
        """The replica whose turn it is."""
        self._turn += 1
        return self.backends[self._turn % len(self.backends)]


class _Connection(socketserver.BaseRequestHandler):
    server: Service
    request: socket.socket

    def handle(self) -> None:
        """Copy what comes from either side to the other until one of them closes."""
        try:
            with socket.create_connection(("127.0.0.1", self.server.next())) as backend:
                other = {self.request: backend, backend: self.request}
                for each in other:  # else each answer waits 40 ms for an acknowledgement
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while True:
                    for ready in select.select(list(other), [], [])[0]:
                        content = ready.recv(65536)
                        if not content:
                            return
                        other[ready].sendall(content)
        except ConnectionError:
            return


@contextmanager
def serving(port: int = 0) -> Iterator[Service]:
    """A Service on a port (0: a free one), without replicas yet."""
    with Service(port) as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        try:
            yield service
        finally:
            service.shutdown()
            thread.join()
