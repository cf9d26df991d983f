"""Another team's mutating webhook: adds a container to every Pod, after ours or before."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from tests.envtest import keys

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTAINER = {"name": "neighbour", "image": "neighbour:1"}


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = review["request"]
        response = {"uid": request["uid"], "allowed": True}
        pod = request["object"]
        if CONTAINER["name"] not in [one["name"] for one in pod["spec"]["containers"]]:
            # In front, so that every index of a patch that was made before is another one now.
            patch = [{"op": "add", "path": "/spec/containers/0", "value": CONTAINER}]
            response |= {
                "patchType": "JSONPatch",
                "patch": base64.b64encode(json.dumps(patch).encode()).decode(),
            }
        body = json.dumps({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, keys.Authority]]:
    """Serve it on a free port; gives its URL and CA."""
    ca = keys.authority("neighbour")
    certificate, key = keys.serving(ca, folder, "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}/", ca
        finally:
            server.shutdown()
            thread.join()
