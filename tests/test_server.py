"""Serving: starting, saying where, and stopping, as a real process."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from injector.serving.connection import SECONDS, Phase
from tests.running import NAME, ROOT, Replica, receive, review, running, write_pair


def test_idle_connections_outlast_the_api_server_s() -> None:
    """Its client closes idle connections after 90 s (IdleConnTimeout); who closes first loses no request."""
    assert SECONDS[Phase.IDLE] > 90


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A webhook that no test stops."""
    with running(tmp_path_factory.mktemp("replica")) as replica:
        yield replica


def refused(folder: Path, *prefix: str, **environment: str) -> tuple[int, str]:
    """Exit code and standard error of a webhook that can't start."""
    write_pair(folder / "certificates")
    ended = subprocess.run(
        [*prefix, sys.executable, "-m", "injector", "serve"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "CERT_DIR": str(folder / "certificates"),
            "HOST": "127.0.0.1",
            "PORT": "0",
            "METRICS_BIND_ADDRESS": "127.0.0.1:0",
            "HEALTH_PROBE_BIND_ADDRESS": "127.0.0.1:0",
            "LOG_FORMAT": "text",
            "LOG_LEVEL": "error",
            **environment,
        },
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    return ended.returncode, ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["PORT", "METRICS_BIND_ADDRESS", "HEALTH_PROBE_BIND_ADDRESS"])
def test_a_taken_port_is_one_sentence_and_exit_code_1(tmp_path: Path, variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        value = str(port) if variable == "PORT" else f"127.0.0.1:{port}"
        code, said = refused(tmp_path, **{variable: value})
    assert code == 1
    assert f"can't listen on 127.0.0.1:{port}: another process uses it" in said
    assert f"set {variable}" in said
    assert len(said.splitlines()) == 1


@pytest.mark.slow
def test_a_privileged_port_is_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    floor = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if floor <= 1 or os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("needs root to give up the capability of binding privileged ports")
    prefix = ["setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"]
    code, said = refused(tmp_path, *prefix, PORT=str(floor - 1))
    assert code == 1
    assert "need privileges: set PORT" in said
    assert len(said.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_one_sentence_and_exit_code_1(tmp_path: Path, host: str) -> None:
    code, said = refused(tmp_path, HOST=host)
    assert code == 1
    assert host in said
    assert "set HOST" in said
    assert len(said.splitlines()) == 1


@pytest.mark.slow
def test_an_unusable_certificate_is_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "certificates").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tls.crt").write_text("no certificate")
    (tmp_path / "other" / "tls.key").write_text("no key")
    code, said = refused(tmp_path, CERT_DIR=str(tmp_path / "other"))
    assert code == 1
    assert f"{tmp_path}/other: there is no certificate" in said
    assert len(said.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_begun_requests_finish_and_ends_with_0(tmp_path: Path, number: signal.Signals) -> None:
    body = review("begun")
    head = b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with running(tmp_path) as replica, replica.connect() as begun, replica.connect() as idle:
        idle.sendall(head + body)
        assert receive(idle).startswith(b"HTTP/1.1 200 ")
        begun.sendall(head + body[:10])
        time.sleep(0.3)
        replica.process.send_signal(number)
        assert idle.recv(65536) == b""
        idle.close()
        assert replica.get("readyz") == (503, "stopping\n")
        assert replica.get("healthz")[0] == 200
        with pytest.raises(ConnectionRefusedError):
            replica.connect()
        begun.sendall(body[10:])
        answer = receive(begun)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer
        begun.close()
        assert replica.process.wait(30) == 0
        assert [line["level"] for line in replica.lines() if line["level"] in {"warning", "error"}] == ["warning"]


@pytest.mark.slow
def test_a_connection_made_just_before_the_signal_is_answered(tmp_path: Path) -> None:
    body = review("last")
    with running(tmp_path) as replica, replica.connect() as client:
        replica.process.send_signal(signal.SIGTERM)
        client.sendall(b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert receive(client).startswith(b"HTTP/1.1 200 ")
        assert client.recv(1) == b""
        client.close()
        assert replica.process.wait(30) == 0


@pytest.mark.slow
def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with running(tmp_path) as replica, replica.connect() as begun:
        begun.sendall(b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        time.sleep(0.3)
        replica.process.send_signal(signal.SIGTERM)
        while replica.get("readyz")[0] != 503:
            time.sleep(0.05)
        assert replica.stop(signal.SIGTERM) == 128 + signal.SIGTERM


@pytest.mark.slow
def test_probes_and_metrics_have_their_pages_and_nothing_else(replica: Replica) -> None:
    assert replica.get("healthz") == (200, "ok\n")
    assert replica.get("readyz") == (200, "ok\n")
    assert replica.get("mutate") == (404, "only /healthz and /readyz are served here\n")
    request = urllib.request.Request(f"http://127.0.0.1:{replica.health_port}/healthz", method="HEAD")
    with urllib.request.urlopen(request) as answer:
        assert (answer.status, answer.read()) == (200, b"")
    with pytest.raises(urllib.error.HTTPError, match="405") as refusal:
        urllib.request.urlopen(f"http://127.0.0.1:{replica.metrics_port}/metrics", b"x")
    refusal.value.close()
    assert replica.metric("litestream_hook_ready") == 1
    assert replica.metric('litestream_hook_certificate_source{source="mounted"}') == 1


@pytest.mark.slow
def test_http_2_is_not_offered(replica: Replica) -> None:
    context = ssl.create_default_context(cafile=str(replica.ca))
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", replica.port)) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as client,
    ):
        assert client.selected_alpn_protocol() == "http/1.1"


@pytest.mark.slow
@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_a_terminal_is_told_what_is_served_where(tmp_path: Path, no_color: str, colored: bool) -> None:
    write_pair(tmp_path / "certificates")
    ours, theirs = pty.openpty()
    environment = {
        "PATH": os.environ["PATH"],
        "TERM": "xterm",
        "NO_COLOR": no_color,
        "CERT_DIR": str(tmp_path / "certificates"),
        "HOST": "127.0.0.1",
        "PORT": "0",
        "METRICS_BIND_ADDRESS": "127.0.0.1:0",
        "HEALTH_PROBE_BIND_ADDRESS": "127.0.0.1:0",
    }
    with subprocess.Popen([sys.executable, "-m", "injector", "serve"], cwd=ROOT, env=environment, stderr=theirs) as it:
        seen = ""
        while "/readyz" not in seen:
            seen += os.read(ours, 4096).decode()
        it.terminate()
        assert it.wait(30) == 0
    os.close(ours)
    os.close(theirs)
    assert "https://127.0.0.1:" in seen
    assert "/mutate" in seen
    assert "certificate: mounted, until 20" in seen
    assert "/metrics" in seen
    assert ("\x1b[" in seen) is colored
