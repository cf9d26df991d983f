"""A real S3 server (SeaweedFS) on loopback for one test: started, paused, stopped, looked into."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
import urllib.parse
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from injector import options
from injector.tls.certificate import make_ca, make_leaf

if TYPE_CHECKING:
    from types import TracebackType

REGION = "us-east-1"
DOMAIN = "s3.test"  # below which each bucket has a host name: for clients that take the server for their HTTP proxy
NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
START_SECONDS = 60
PROBE = "usable"  # an object that is there for a moment
PORTS = [
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
    "s3.port.iceberg",
    "s3.port.lance",
]
# Ends the server when standard input closes: as it does when whoever started it is gone, even by SIGKILL.
TIED = """
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
{ cat; kill -9 $server; } <&3 >/dev/null 2>&1 &
guard=$!
exec 3<&-
wait $server
kill $guard
"""


class Keys(NamedTuple):
    """An access key and its secret."""

    access: str
    secret: str


KEYS = Keys("key", "secret")


class Answer(NamedTuple):
    """HTTP status and body."""

    status: int
    body: bytes


class S3Error(Exception):
    """The server refused a request, or did not start."""


class S3:
    """An S3 server until the `with` block ends; its data outlives `stop` and `start`, not the block.

    `endpoint` is the URL for clients, `keys` what they sign with; `secret` holds them as the data of a Secret.
    With `tls` it serves HTTPS, by a certificate of a new CA: `ca` holds that as PEM.
    """

    def __init__(self, *, buckets: tuple[str, ...] = ("litestream",), keys: Keys = KEYS, tls: bool = False) -> None:
        self.keys, self._asked, self._buckets = keys, buckets, list[str]()
        self._tls, self.ca = tls, ""
        self.secret = {"AWS_ACCESS_KEY_ID": keys.access, "AWS_SECRET_ACCESS_KEY": keys.secret}
        self.config_maps: dict[str, dict[str, str]] = {}
        self.options = options.read({})  # the operator's, of Pods whose replicas are here
        self._directory = Path()
        self._ports: dict[str, int] = {}
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._directory = Path(tempfile.mkdtemp(prefix="s3-"))
        try:
            if self._tls:
                self._make_certificate()
            self._ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
            self.start()
            for bucket in self._asked:
                self.create_bucket(bucket)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)
        for port in self._ports.values():  # the server has its Unix sockets outside its directory
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)

    @property
    def port(self) -> int:
        """Its port on 127.0.0.1."""
        return self._ports["s3.port"]

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def annotations(self) -> dict[str, str]:
        """Those of a Pod whose replicas are there."""
        return {"endpoint": self.endpoint}

    def start(self) -> None:
        """Start it (again), on the same ports and with the same data; S3Error if it can't be used in time."""
        identity = {"accessKey": self.keys.access, "secretKey": self.keys.secret}
        identities = {"identities": [{"name": "test", "credentials": [identity], "actions": ["Admin"]}]}
        (self._directory / "identities.json").write_text(json.dumps(identities))
        (self._directory / "data").mkdir(exist_ok=True)
        weed = [
            str(Path(sysconfig.get_path("scripts"), "weed")),
            "server",
            "-s3",
            f"-dir={self._directory / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            "-master.electionTimeout=1s",  # one master alone needs no longer, also after a crash
            "-volume.max=0",
            "-master.volumeSizeLimitMB=64",
            f"-s3.domainName={DOMAIN}",
            f"-s3.config={self._directory / 'identities.json'}",
            *(f"-{option}={port}" for option, port in self._ports.items()),
            *([f"-s3.cert.file={self._file('tls.crt')}", f"-s3.key.file={self._file('tls.key')}"] if self._tls else []),
        ]
        with (self._directory / "log").open("ab") as log:
            self._server = subprocess.Popen(
                ["sh", "-c", TIED, "sh", *weed],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                env={"PATH": os.environ["PATH"], "HOME": str(self._directory)},
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._server.poll() is not None:
                self.stop()
                raise S3Error(f"the S3 server does not answer:\n{self.log()[-2000:]}")
            time.sleep(0.1)
        for bucket in self._buckets:
            self._wait_usable(bucket)

    def stop(self) -> None:
        """Kill it: its port refuses connections from then on."""
        if self._server is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal.SIGCONT)
            assert self._server.stdin is not None
            self._server.stdin.close()
            self._server.wait()
            self._server = None

    def pause(self) -> None:
        """Let it hang: connections are accepted and never answered, until `resume`."""
        assert self._server is not None
        os.killpg(self._server.pid, signal.SIGSTOP)
        deadline = time.monotonic() + START_SECONDS
        while not _stopped(self._server.pid):  # a thread stops when it gets a CPU next
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        assert self._server is not None
        os.killpg(self._server.pid, signal.SIGCONT)

    def log(self) -> str:
        """What the server wrote."""
        return (self._directory / "log").read_text(errors="replace")

    def create_bucket(self, bucket: str) -> None:
        """Make a bucket that can be written to; S3Error if that fails."""
        self._good("PUT", f"/{bucket}")
        self._buckets.append(bucket)
        self._wait_usable(bucket)

    def list_keys(self, bucket: str, prefix: str = "") -> list[str]:
        """The keys of the objects whose key starts with `prefix`, sorted."""
        found: list[str] = []
        while True:
            query = {"list-type": "2", "prefix": prefix, "start-after": found[-1] if found else ""}
            text = self._good(
                "GET", f"/{bucket}?{urllib.parse.urlencode(query, quote_via=urllib.parse.quote, safe='')}"
            )
            page = ElementTree.fromstring(text)
            found += [key.text or "" for key in page.iter(f"{NAMESPACE}Key")]
            if page.findtext(f"{NAMESPACE}IsTruncated") != "true":
                return sorted(found)

    def get(self, bucket: str, key: str) -> bytes:
        """An object's bytes."""
        return self._good("GET", f"/{bucket}/{urllib.parse.quote(key)}")

    def delete(self, bucket: str, key: str) -> None:
        """Take an object away."""
        self._good("DELETE", f"/{bucket}/{urllib.parse.quote(key)}")

    def request(self, method: str, path: str, content: bytes | None = None) -> Answer:
        """A signed request (curl signs it), with or without a body; S3Error if the server can't be reached."""
        command = [
            "curl",
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--config",
            "-",
            "--request",
            method,
        ]
        if self._tls:
            command += ["--cacert", str(self._file("ca.crt"))]
        if method == "HEAD":
            command += ["--head"]
        settings = f'user = "{self.keys.access}:{self.keys.secret}"\n'
        with tempfile.TemporaryDirectory() as directory:
            body = Path(directory, "body")
            if content is not None:
                sent = Path(directory, "sent")
                sent.write_bytes(content)
                digest = hashlib.sha256(content).hexdigest()
                command += ["--header", f"x-amz-content-sha256: {digest}", "--data-binary", f"@{sent}"]
            done = subprocess.run(
                [
                    *command,
                    "--aws-sigv4",
                    f"aws:amz:{REGION}:s3",
                    "--output",
                    body,
                    "--write-out",
                    "%{http_code}",
                    self.endpoint + path,
                ],
                input=settings,
                capture_output=True,
                text=True,
                check=False,
                env={"PATH": os.environ["PATH"]},
            )
            if done.returncode != 0:
                raise S3Error(done.stderr.strip())
            return Answer(int(done.stdout), body.read_bytes() if body.exists() else b"")

    def _file(self, name: str) -> Path:
        return self._directory / name

    def _make_certificate(self) -> None:
        now = datetime.now(UTC)
        ca = make_ca("S3 of a test", now)
        leaf = make_leaf(ca, ["127.0.0.1"], now)
        self.ca = ca.certificate.decode()
        for name, content in {"ca.crt": ca.certificate, "tls.crt": leaf.certificate, "tls.key": leaf.key}.items():
            self._file(name).write_bytes(content)

    def _wait_usable(self, bucket: str) -> None:
        """Wait until objects can be read and written: a server that answers may still have no volume for them."""
        deadline = time.monotonic() + START_SECONDS
        while not self._usable(bucket):
            if time.monotonic() > deadline:
                raise S3Error(f"the S3 server can't be used:\n{self.log()[-2000:]}")
            time.sleep(0.1)

    def _usable(self, bucket: str) -> bool:
        try:
            for key in self.list_keys(bucket)[:1]:
                self.get(bucket, key)
            self._good("PUT", f"/{bucket}/{PROBE}", b"bytes" * 100_000)
            self.delete(bucket, PROBE)
        except S3Error:
            return False
        return True

    def _good(self, method: str, path: str, content: bytes | None = None) -> bytes:
        answer = self.request(method, path, content)
        if answer.status >= 300:
            raise S3Error(f"{method} {path}: {answer.status} {answer.body.decode(errors='replace')}")
        return answer.body

    def _answers(self) -> bool:
        try:
            return self.request("GET", "/").status == 200
        except S3Error:
            return False


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 for servers that can't choose one themselves; nobody else gets them while this process lives.

    A socket stays bound to each without listening: the kernel gives the port to no one who asks for any, but lets a
    server have it that sets SO_REUSEADDR, as all do here.
    """
    found = []
    for _ in range(count):
        keeper = socket.socket()
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        found.append(int(keeper.getsockname()[1]))
        keeper.detach()
    return found


def _stopped(group: int) -> bool:
    """Whether every thread of a process group is stopped."""
    states = set()
    for status in Path("/proc").glob("[0-9]*/task/*/stat"):
        with contextlib.suppress(OSError):  # a thread that has ended meanwhile
            state, _, its_group = status.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group:
                states.add(state)
    return states == {"T"}
