"""What the tests of TLS share: options, clocks, a server on a real socket, and clients that verify."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from injector import options
from injector.cluster.client import Cluster
from injector.options import Options
from injector.tls import Certificates
from injector.tls.certificate import Pair, make_ca, make_leaf
from tests import standin

NAME = "litestream-hook.litestream-hook.svc"
NAMES = (NAME, f"{NAME}.cluster.local")
CA_NAME = f"litestream-hook CA of {NAME}"
START = datetime(2026, 1, 1, tzinfo=UTC)


def opts(cert_dir: Path | str = "/nonexistent", **more: str) -> Options:
    return options.read({"CERT_DIR": str(cert_dir), **more})


class Clock:
    """A clock that stands still unless told, or unless somebody sleeps."""

    def __init__(self, now: datetime = START) -> None:
        self.time = now

    def __call__(self) -> datetime:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
        await asyncio.sleep(0)


def mount(folder: Path, pair: Pair) -> None:
    """Mount a Secret as kubelet does: files are links through `..data`, which turns to a new folder."""
    version = folder / f"..{random.getrandbits(64):016x}"
    version.mkdir()
    (version / "tls.crt").write_bytes(pair.certificate)
    (version / "tls.key").write_bytes(pair.key)
    link = folder / "..data_tmp"
    link.symlink_to(version.name)
    link.rename(folder / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")


def made(now: datetime | None = None, names: tuple[str, ...] = NAMES, ca: Pair | None = None) -> tuple[Pair, Pair]:
    """A CA and a leaf of it."""
    now = now or datetime.now(UTC)
    ca = ca or make_ca(CA_NAME, now)
    return ca, make_leaf(ca, names, now)


def trusting(*cas: bytes) -> ssl.SSLContext:
    """A client that trusts these CAs and nothing else."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for ca in cas:
        client.load_verify_locations(cadata=ca.decode())
    return client


@asynccontextmanager
async def listening(context: ssl.SSLContext) -> AsyncIterator[int]:
    """A server that says HTTP "ok" to whoever completes a handshake; yields its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError):
            writer.transport.abort()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # refused handshakes
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def call(port: int, client: ssl.SSLContext, name: str | None = NAME) -> ssl.SSLObject:
    """One request; returns the connection's TLS. Raises what the client or the server refuses it with."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name or "")
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await writer.drain()
        answer = await reader.read()
        if not answer.endswith(b"ok"):
            raise ConnectionResetError("no answer")
        found: ssl.SSLObject = writer.get_extra_info("ssl_object")
        return found
    finally:
        writer.transport.abort()


def with_server(certificates: Certificates, client: Callable[[int], Awaitable[None]], start: bool = True) -> None:
    """Run `client(port)` against a server of these certificates."""

    async def main() -> None:
        if start:
            await certificates.start()
        async with listening(certificates.ssl_context) as port:
            await client(port)

    asyncio.run(main())


def published(api: standin.Api) -> list[bytes]:
    """The caBundles of the configuration, decoded."""
    import base64

    hooks = api.configuration()["webhooks"]
    return [base64.b64decode(hook["clientConfig"].get("caBundle", "")) for hook in hooks]


def certificates(
    cluster: Cluster | None, clock: Callable[[], datetime], cert_dir: Path | str = "/nonexistent", **more: str
) -> Certificates:
    sleep = clock.sleep if isinstance(clock, Clock) else asyncio.sleep
    return Certificates(opts(cert_dir, **more), cluster, clock, sleep)
