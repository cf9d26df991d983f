"""The webhook as a real process on ports of the kernel's choice, and the certificates that it serves with."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).resolve().parent.parent
NAME = "litestream-hook.litestream-hook.svc"
START_SECONDS = 60
HASTY = """
from injector.serving import connection
connection.SECONDS[connection.Phase.RECEIVING] = connection.SECONDS[connection.Phase.ANSWERING] = 2.0
"""
EAGER = """
import sys
from injector.tls import rotation
rotation.POLL = 0.1
import runpy
sys.argv = ["injector", "serve"]
runpy.run_module("injector", run_name="__main__", alter_sys=True)
"""


def write_pair(folder: Path) -> None:
    """A fresh pair by the folder's own CA (`ca.crt`), swapped in as kubelet does: both files at once."""
    now = datetime.now(UTC)
    ca_files = folder.parent / f"{folder.name}-ca.crt", folder.parent / f"{folder.name}-ca.key"
    if not ca_files[0].exists():
        ca_key = ec.generate_private_key(ec.SECP256R1())
        ca = _signed(_builder("Test CA", ca_key, now), ca_key, ca_key)
        ca_files[0].write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        ca_files[1].write_bytes(_pem(ca_key))
    signer = serialization.load_pem_private_key(ca_files[1].read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = _signed(_builder(NAME, key, now), key, signer)
    version = folder / f"..{time.monotonic_ns()}"
    version.mkdir(parents=True)
    (version / "tls.crt").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    (version / "tls.key").write_bytes(_pem(key))
    for file in ("tls.crt", "tls.key"):
        if not (folder / file).is_symlink():
            (folder / file).symlink_to(f"..data/{file}")
    link = folder / "..data_tmp"
    link.symlink_to(version.name)
    link.rename(folder / "..data")


def _builder(subject: str, key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.CertificateBuilder:
    ca = subject != NAME
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False),
            critical=True,
        )
    )
    return builder if ca else builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)


def _signed(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    if key is not signer:
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    return builder.sign(signer, hashes.SHA256())


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def review(uid: str = "1", **request: Any) -> bytes:
    """An AdmissionReview for a Pod that asks for nothing."""
    metadata = {"name": "web", "namespace": "default"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    }
    asked = {
        "uid": uid,
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "operation": "CREATE",
        "name": "web",
        "namespace": "default",
        "object": pod,
        **request,
    }
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": asked}).encode()


def receive(client: socket.socket) -> bytes:
    """One whole answer."""
    answer = b""
    while b"\r\n\r\n" not in answer and (piece := client.recv(65536)):
        answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or b"0")
    while len(body) < length and (piece := client.recv(65536)):
        body += piece
    return head + b"\r\n\r\n" + body


class Replica:
    """A running webhook."""

    def __init__(self, process: subprocess.Popen[bytes], stderr: Path, certificates: Path) -> None:
        self.process = process
        self.stderr = stderr
        self.certificates = certificates
        self.port = self.metrics_port = self.health_port = 0

    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self.stderr.read_text().splitlines(keepends=True) if line[-1] == "\n"]

    def wait_ready(self) -> None:
        """Wait until the ports are known and /readyz answers 200."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            assert self.process.poll() is None, self.stderr.read_text()
            for line in self.lines():
                if line["message"] == "serving":
                    self.port, self.metrics_port, self.health_port = (
                        int(line[name].rsplit(":", 1)[1].split("/")[0]) for name in ("mutate", "metrics", "readyz")
                    )
            if self.port and self.get("readyz")[0] == 200:
                return
            time.sleep(0.05)
        raise TimeoutError(self.stderr.read_text())

    def get(self, page: str) -> tuple[int, str]:
        """Status and body of /metrics, /healthz or /readyz; status 0 if nobody answers."""
        port = self.metrics_port if page == "metrics" else self.health_port
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, answer.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str) -> float:
        """The value of a sample, written as on the page: `name{label="value"}`; 0 if it isn't there."""
        for line in self.get("metrics")[1].splitlines():
            sample, _, value = line.rpartition(" ")
            if sample == name:
                return float(value)
        return 0.0

    @property
    def ca(self) -> Path:
        """The CA of what is served."""
        return self.certificates.parent / f"{self.certificates.name}-ca.crt"

    def connect(self, timeout: float = 30, receive_buffer: int | None = None) -> ssl.SSLSocket:
        """A client's end of a new connection to /mutate, after the handshake."""
        context = ssl.create_default_context(cafile=str(self.ca))
        plain = socket.socket()
        plain.settimeout(timeout)
        if receive_buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            plain.connect(("127.0.0.1", self.port))
            return context.wrap_socket(plain, server_hostname=NAME)
        except BaseException:
            plain.close()
            raise

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextlib.contextmanager
def running(
    folder: Path,
    *,
    prelude: str = "",
    prefix: Sequence[str] = (),
    pipe: bool = False,
    **settings: str | int,
) -> Iterator[Replica]:
    """A webhook with its own certificates in `folder`; `settings` are variables of its environment.

    `prefix` is a command that starts it, `prelude` Python that runs before it, such as HASTY, which shortens
    its patience. It looks at its certificate files every 0.1 s rather than every 30. With `pipe` its standard
    error is a pipe that nobody reads after the start.
    """
    certificates = folder / "certificates"
    if not certificates.exists():
        write_pair(certificates)
    environment = {
        "PATH": os.environ["PATH"],
        "HOST": "127.0.0.1",
        "PORT": "0",
        "METRICS_BIND_ADDRESS": "127.0.0.1:0",
        "HEALTH_PROBE_BIND_ADDRESS": "127.0.0.1:0",
        "CERT_DIR": str(certificates),
        "LOG_FORMAT": "json",
        **{name: str(value) for name, value in settings.items()},
    }
    log = folder / f"stderr-{time.monotonic_ns()}"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-c", prelude + EAGER],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE if pipe else out,
        )
        if process.stderr is not None:
            fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
            while b'"serving"' not in (line := process.stderr.readline()):
                pass
            out.write(line)
    replica = Replica(process, log, certificates)
    try:
        replica.wait_ready()
        yield replica
    finally:
        if process.stderr is not None:
            process.stderr.close()
        process.kill()
        process.wait()
