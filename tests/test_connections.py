"""Requests over real sockets, in both event loops: what is kept, what is closed, and what an answer may look like."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import uvloop

from injector.cluster.connections import Answer, Connections

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@pytest.fixture(params=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as found:
        yield found


class Server:
    """A server that plays one part after another, each for one connection."""

    def __init__(self, *parts: Play) -> None:
        self._parts = list(parts)
        self.left = asyncio.Semaphore(0)  # connections that ended

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            await self._parts.pop(0)(reader, writer)
        self.left.release()


async def request(reader: asyncio.StreamReader) -> bytes:
    """The head and body of a request."""
    head = await reader.readuntil(b"\r\n\r\n")
    _, _, length = head.lower().partition(b"content-length: ")
    return head + await reader.readexactly(int(length.partition(b"\r\n")[0] or 0))


def answering(*answers: bytes) -> Play:
    async def part(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await request(reader)
            writer.write(answer)
        await reader.read()  # until the other side closes

    return part


async def ending(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi")


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


def meet(runner: asyncio.Runner, parts: list[Play], visit: Callable[[Connections, Server], Awaitable[Any]]) -> None:
    async def main() -> None:
        server = Server(*parts)
        async with await asyncio.start_server(server.meet, "127.0.0.1", 0) as listening:
            connections = Connections(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", None)
            await visit(connections, server)
            await connections.close()
        assert server._parts == []

    runner.run(main())


async def ask(connections: Connections, body: bytes | None = None, seconds: float = 30) -> Answer:
    return await connections.ask("GET" if body is None else "POST", "/a", {"Accept": "x"}, body, seconds)


def test_a_request_says_what_it_must(runner: asyncio.Runner) -> None:
    seen = []

    async def part(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            seen.append(await request(reader))
            writer.write(OK)

    async def visit(connections: Connections, _: Server) -> None:
        await ask(connections)
        assert await ask(connections, b"{}") == Answer(200, {"content-length": "2"}, b"hi")

    meet(runner, [part], visit)
    host = seen[0].partition(b"Host: ")[2].partition(b"\r\n")[0]
    assert seen[0] == b"GET /a HTTP/1.1\r\nHost: %b\r\nAccept: x\r\n\r\n" % host
    assert seen[1] == b"POST /a HTTP/1.1\r\nHost: %b\r\nContent-Length: 2\r\nAccept: x\r\n\r\n{}" % host


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno!", b"no!"),
    ],
)
def test_a_connection_is_kept_after_any_whole_answer(runner: asyncio.Runner, answer: bytes, body: bytes) -> None:
    async def visit(connections: Connections, _: Server) -> None:
        assert (await ask(connections)).body == body
        assert (await ask(connections)).body == b"hi"

    meet(runner, [answering(answer, OK)], visit)


def test_an_answer_may_come_in_small_pieces(runner: asyncio.Runner) -> None:
    async def part(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        for number in range(len(OK)):
            writer.write(OK[number : number + 1])
            await writer.drain()
        await reader.read()

    async def visit(connections: Connections, _: Server) -> None:
        assert (await ask(connections)).body == b"hi"

    meet(runner, [part], visit)


@pytest.mark.parametrize("headers", [b"Connection: close\r\nContent-Length: 2\r\n", b"Connection: close\r\n"])
def test_a_server_that_closes_gets_a_new_connection(runner: asyncio.Runner, headers: bytes) -> None:
    async def part(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + headers + b"\r\nhi")

    async def visit(connections: Connections, server: Server) -> None:
        for _ in range(2):
            assert (await ask(connections)).body == b"hi"
            await server.left.acquire()

    meet(runner, [part, part], visit)


def test_a_kept_connection_that_the_server_has_closed_is_not_used(runner: asyncio.Runner) -> None:
    async def part(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(OK)

    async def visit(connections: Connections, server: Server) -> None:
        await ask(connections)
        await server.left.acquire()
        (kept,) = connections._open or [None]
        if kept is not None:
            await kept.lost.wait()
        await ask(connections)

    meet(runner, [part, part], visit)


def test_a_connection_is_not_kept_for_long(runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("injector.cluster.connections.IDLE", 0.0)

    async def visit(connections: Connections, server: Server) -> None:
        for _ in range(2):
            await ask(connections)
        await server.left.acquire()

    meet(runner, [answering(OK)] * 2, visit)


@pytest.mark.parametrize(
    ("part", "error"),
    [
        (ending, "the server closed the connection"),
        (answering(b"SSH-2.0-OpenSSH\r\n"), "the answer is not HTTP"),
    ],
)
def test_what_is_no_answer_is_an_error_and_its_connection_closed(
    runner: asyncio.Runner, part: Play, error: str
) -> None:
    async def visit(connections: Connections, server: Server) -> None:
        with pytest.raises(ConnectionError, match=error):
            await ask(connections)
        await server.left.acquire()
        assert (await ask(connections)).body == b"hi"

    meet(runner, [part, answering(OK)], visit)


def test_a_silent_server_is_left_in_time_and_its_connection_closed(runner: asyncio.Runner) -> None:
    async def visit(connections: Connections, server: Server) -> None:
        with pytest.raises(TimeoutError):
            await ask(connections, seconds=0.05)
        await server.left.acquire()

    meet(runner, [silent], visit)


def test_a_handshake_that_a_limit_ends_leaves_no_connection(runner: asyncio.Runner) -> None:
    async def visit(connections: Connections, server: Server) -> None:
        secret = Connections(f"https://{connections._host}", ssl.create_default_context())
        with pytest.raises(TimeoutError):
            await ask(secret, seconds=0.05)
        await server.left.acquire()

    meet(runner, [silent], visit)


def test_a_stream_comes_part_by_part_and_its_connection_ends_with_it(runner: asyncio.Runner) -> None:
    more = asyncio.Event()

    async def part(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na\n\r\n")
        await more.wait()
        writer.write(b"2\r\nb\n\r\n")
        await reader.read()

    async def visit(connections: Connections, server: Server) -> None:
        parts = connections.stream("/a", {}, 30, 30)
        assert (await anext(parts)).body == b"a\n"
        more.set()
        assert (await anext(parts)).body == b"b\n"
        await parts.aclose()  # type: ignore[attr-defined]
        await server.left.acquire()

    meet(runner, [part], visit)


def test_a_stream_that_stops_is_left_in_time(runner: asyncio.Runner) -> None:
    async def visit(connections: Connections, server: Server) -> None:
        with pytest.raises(TimeoutError):
            async for _ in connections.stream("/a", {}, 30, 0.05):
                pass
        await server.left.acquire()

    meet(runner, [answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")], visit)


def test_retired_connections_answer_once_more_and_close(runner: asyncio.Runner) -> None:
    go = asyncio.Event()

    async def part(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        go.set()
        writer.write(OK)
        await reader.read()

    async def visit(connections: Connections, server: Server) -> None:
        asked = asyncio.create_task(ask(connections))
        await go.wait()
        connections.retire()
        assert (await asked).body == b"hi"
        await server.left.acquire()

    meet(runner, [part], visit)
