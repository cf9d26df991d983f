"""Handshakes on real sockets with clients that verify: Python's ssl and curl."""

import asyncio
import os
import shutil
import socket
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from injector.tls import BadCertificate, Certificates
from injector.tls.certificate import Pair, make_ca, make_leaf
from tests.tls import CA_NAME, NAME, NAMES, call, certificates, made, mount, trusting, with_server

Client = Callable[[int], Awaitable[None]]


def now() -> datetime:
    return datetime.now(UTC)


def mounted(folder: Path, pair: Pair, **more: str) -> Certificates:
    mount(folder, pair)
    return certificates(None, now, folder, **more)


async def curl(port: int, ca: Path, name: str = NAME, *more: str) -> tuple[int, str]:
    """curl's exit code and what it printed."""
    command = ["curl", "--silent", "--show-error", "--noproxy", "*", "--cacert", str(ca), "--max-time", "20"]
    command += ["--resolve", f"{name}:{port}:127.0.0.1", *more, f"https://{name}:{port}/"]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={k: v for k, v in os.environ.items() if k not in {"CURL_CA_BUNDLE", "SSL_CERT_FILE"}},
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@pytest.mark.parametrize("name", NAMES)
def test_the_api_servers_call_is_served(tmp_path: Path, name: str) -> None:
    ca, leaf = made()

    async def client(port: int) -> None:
        connection = await call(port, trusting(ca.certificate), name)
        assert connection.version() == "TLSv1.3"

    with_server(mounted(tmp_path, leaf), client)


def refused(tmp_path: Path, leaf: Pair, client: ssl.SSLContext, reason: str, name: str = NAME) -> None:
    async def attempt(port: int) -> None:
        with pytest.raises(ssl.SSLError, match=reason):
            await call(port, client, name)

    with_server(mounted(tmp_path, leaf), attempt)


def test_a_wrong_name_is_refused(tmp_path: Path) -> None:
    ca, leaf = made()
    refused(tmp_path, leaf, trusting(ca.certificate), "Hostname mismatch", "other.litestream-hook.svc")


def test_a_wrong_ca_is_refused(tmp_path: Path) -> None:
    _, leaf = made()
    stranger = make_ca(CA_NAME, now())  # of the same name, with another key
    refused(tmp_path, leaf, trusting(stranger.certificate), "CERTIFICATE_VERIFY_FAILED")


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    ca = make_ca(CA_NAME, now() - timedelta(days=100))
    leaf = make_leaf(ca, NAMES, now() - timedelta(days=91))
    refused(tmp_path, leaf, trusting(ca.certificate), "certificate has expired")


def test_a_certificate_of_the_future_is_refused(tmp_path: Path) -> None:
    ca = make_ca(CA_NAME, now())
    leaf = make_leaf(ca, NAMES, now() + timedelta(hours=2))
    refused(tmp_path, leaf, trusting(ca.certificate), "not yet valid")


def test_a_client_whose_clock_is_half_an_hour_behind_is_served(tmp_path: Path) -> None:
    """The client's clock is ours, so ours is half an hour ahead when the certificate is made."""
    ca, leaf = made(now() + timedelta(minutes=30))

    async def client(port: int) -> None:
        await call(port, trusting(ca.certificate))

    with_server(mounted(tmp_path, leaf), client)


@pytest.mark.parametrize(("version", "served"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_only_tls_1_2_and_newer_is_spoken(tmp_path: Path, version: str, served: bool) -> None:
    ca, leaf = made()
    old = trusting(ca.certificate)
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion[version]

    def handshake(port: int) -> str | None:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
            old.wrap_socket(connection, server_hostname=NAME) as wrapped,
        ):
            return wrapped.version()

    async def client(port: int) -> None:
        if served:
            assert await asyncio.to_thread(handshake, port) == version.replace("_", ".")
            return
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(handshake, port)

    with_server(mounted(tmp_path, leaf), client)


def test_http_1_1_is_all_that_is_offered(tmp_path: Path) -> None:
    ca, leaf = made()

    async def client(port: int) -> None:
        both, only_2 = trusting(ca.certificate), trusting(ca.certificate)
        both.set_alpn_protocols(["h2", "http/1.1"])
        only_2.set_alpn_protocols(["h2"])
        assert (await call(port, both)).selected_alpn_protocol() == "http/1.1"
        assert (await call(port, only_2)).selected_alpn_protocol() is None

    with_server(mounted(tmp_path, leaf), client)


def test_a_client_that_names_nobody_is_served_too(tmp_path: Path) -> None:
    ca, leaf = made()

    async def client(port: int) -> None:
        nameless = trusting(ca.certificate)
        nameless.check_hostname = False
        await call(port, nameless, None)

    with_server(mounted(tmp_path, leaf), client)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_agrees(tmp_path: Path) -> None:
    ca, leaf = made()
    stranger, _ = made()
    right, wrong = tmp_path / "right.pem", tmp_path / "wrong.pem"
    right.write_bytes(ca.certificate)
    wrong.write_bytes(stranger.certificate)

    async def client(port: int) -> None:
        assert await curl(port, right) == (0, "ok")
        assert (await curl(port, right, "other.svc"))[0] == 60
        assert (await curl(port, wrong))[0] == 60
        assert await curl(port, right, NAME, "--tls-max", "1.2") == (0, "ok")
        assert (await curl(port, right, NAME, "--tls-max", "1.1", "--ciphers", "DEFAULT:@SECLEVEL=0"))[0] == 35

    with_server(mounted(tmp_path, leaf), client)


def test_before_the_first_certificate_a_handshake_fails_and_nothing_else(tmp_path: Path) -> None:
    ca, _ = made()
    held = certificates(None, now, tmp_path)

    async def client(port: int) -> None:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await call(port, trusting(ca.certificate))
        assert held.current() is None
        assert not held.ready()

    with_server(held, client, start=False)


# Rotation


def test_a_renewed_leaf_is_served_to_new_connections_and_old_ones_go_on(tmp_path: Path) -> None:
    ca, leaf = made()
    _, newer = made(ca=ca)
    held = mounted(tmp_path, leaf)

    async def client(port: int) -> None:
        trust = trusting(ca.certificate)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname=NAME)
        before = writer.get_extra_info("ssl_object").getpeercert(True)
        mount(tmp_path, newer)
        await held._look(first=False)
        after = (await call(port, trust)).getpeercert(True)
        assert before == ssl.PEM_cert_to_DER_cert(leaf.certificate.decode())
        assert after == ssl.PEM_cert_to_DER_cert(newer.certificate.decode())
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.read()).endswith(b"ok")
        writer.transport.abort()

    with_server(held, client)


def test_a_renewed_ca_is_trusted_by_those_who_know_it(tmp_path: Path) -> None:
    old, leaf = made()
    new, newer = made()
    held = mounted(tmp_path, leaf)
    only_old, only_new = trusting(old.certificate), trusting(new.certificate)
    both = trusting(old.certificate, new.certificate)

    async def client(port: int) -> None:
        await call(port, only_old)
        await call(port, both)
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            await call(port, only_new)
        mount(tmp_path, newer)
        await held._look(first=False)
        await call(port, only_new)
        await call(port, both)
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            await call(port, only_old)

    with_server(held, client)


@pytest.mark.slow
def test_fifty_swaps_under_load_fail_no_request(tmp_path: Path) -> None:
    ca, leaf = made()
    held = mounted(tmp_path, leaf)

    async def client(port: int) -> None:
        trust = trusting(ca.certificate)
        done = asyncio.Event()
        seen = set()

        async def caller() -> None:
            while not done.is_set():
                seen.add((await call(port, trust)).getpeercert(True))

        callers = [asyncio.create_task(caller()) for _ in range(3)]
        for _ in range(50):
            mount(tmp_path, made(ca=ca)[1])
            await held._look(first=False)
            await asyncio.sleep(0.01)
        done.set()
        await asyncio.gather(*callers)
        assert len(seen) > 5

    with_server(held, client)


# Client authentication


def client_of(ca: Pair, identity: Pair | None, folder: Path) -> ssl.SSLContext:
    client = trusting(ca.certificate)
    if identity is not None:
        path = folder / "client.pem"
        path.write_bytes(identity.certificate + identity.key)
        client.load_cert_chain(path)
    return client


def client_certificate(ca: Pair) -> Pair:
    """As make_leaf, for a client."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    from injector.tls import certificate

    issuer, issuer_key = certificate._parsed(ca)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = certificate._named("kube-apiserver")
    builder = certificate._builder(subject, issuer.subject, key, now(), now() + timedelta(days=1))
    purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    return certificate._signed(builder.add_extension(purpose, critical=False), key, issuer_key)


def test_with_a_client_ca_only_its_clients_are_served(tmp_path: Path) -> None:
    ca, leaf = made()
    clients, strangers = make_ca("clients", now()), make_ca("clients", now())
    (tmp_path / "clients.pem").write_bytes(clients.certificate)
    (tmp_path / "certs").mkdir()
    held = mounted(tmp_path / "certs", leaf, CLIENT_CA_FILE=str(tmp_path / "clients.pem"))

    def known_as(identity: Pair | None) -> ssl.SSLContext:
        return client_of(ca, identity, tmp_path)

    async def client(port: int) -> None:
        await call(port, known_as(client_certificate(clients)))
        for nobody in (None, client_certificate(strangers)):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await call(port, known_as(nobody))
        # The CA of clients changes: from the next look on, the new one counts.
        (tmp_path / "clients.pem").write_bytes(strangers.certificate)
        await held._look(first=False)
        await call(port, known_as(client_certificate(strangers)))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await call(port, known_as(client_certificate(clients)))

    with_server(held, client)


def test_a_session_of_a_replaced_client_ca_is_not_resumed(tmp_path: Path) -> None:
    """OpenSSL believes a resumed session for two hours. Of TLS 1.2 it remembers each, so that is not spoken then."""
    ca, leaf = made()
    before, after = make_ca("clients", now()), make_ca("clients", now())
    (tmp_path / "clients.pem").write_bytes(before.certificate)
    (tmp_path / "certs").mkdir()
    held = mounted(tmp_path / "certs", leaf, CLIENT_CA_FILE=str(tmp_path / "clients.pem"))
    known, old = (client_of(ca, client_certificate(before), tmp_path) for _ in range(2))
    old.maximum_version = ssl.TLSVersion.TLSv1_2

    def request(port: int, client: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSession:
        """A whole request, as tickets come behind the handshake; the session that a client could resume."""
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
            client.wrap_socket(connection, server_hostname=NAME, session=session) as wrapped,
        ):
            wrapped.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            if not b"".join(iter(lambda: wrapped.recv(1024), b"")).endswith(b"ok"):
                raise ConnectionResetError("no answer")
            assert wrapped.session is not None
            assert not wrapped.session_reused
            return wrapped.session

    async def client(port: int) -> None:
        session = await asyncio.to_thread(request, port, known)
        assert not session.has_ticket
        await asyncio.to_thread(request, port, known, session)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(request, port, old)
        (tmp_path / "clients.pem").write_bytes(after.certificate)
        await held._look(first=False)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(request, port, known, session)

    with_server(held, client)


@pytest.mark.parametrize("content", [None, b"", b"garbage"])
def test_a_client_ca_that_is_none_stops_the_start(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "clients.pem"
    if content is not None:
        path.write_bytes(content)
    held = mounted(tmp_path, made()[1], CLIENT_CA_FILE=str(path))
    with pytest.raises(BadCertificate, match="CLIENT_CA_FILE"):
        asyncio.run(held.start())
