"""The ASGI application: what it reads, and in which pieces it sends, asked as a server asks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import pytest
from starlette.types import ASGIApp

from injector import options
from injector.admission.webhook import LARGEST_BODY
from injector.serving import function, large
from injector.serving.application import PIECE_BYTES, Application
from injector.serving.defaulting import Defaulting
from tests import reviews

OPTIONS = options.read({})
Message = MutableMapping[str, Any]
Headers = Sequence[tuple[bytes, bytes]]
POD: Message = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "annotations": {}},
    "spec": {"containers": [{"name": "app"}]},
}


def itself(application: Application) -> ASGIApp:
    return application


def asked(
    *messages: Message, headers: Headers = (), method: str = "POST", served: Callable[[Application], ASGIApp] = itself
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of the answer to a request whose body comes in these messages, and then no more."""
    waiting, sent = list(messages), list[Message]()

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": "/mutate", "headers": list(headers)}

    async def run() -> None:
        await served(Application(OPTIONS, None, Defaulting(OPTIONS)))(scope, receive, send)

    asyncio.run(run())
    body = b"".join(message.get("body", b"") for message in sent[1:])
    assert all(message["more_body"] for message in sent[1:-1])
    assert not sent[-1].get("more_body", False)
    return sent[0]["status"], dict(sent[0]["headers"]), body


def piece(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_in_pieces_is_one_request() -> None:
    body = json.dumps(reviews.review(POD)).encode()
    status, headers, answer = asked(piece(body[:7], more=True), piece(body[7:], more=True), piece(b""))
    assert (status, headers[b"content-type"]) == (200, b"application/json")
    assert headers[b"content-length"] == b"%d" % len(answer)
    assert json.loads(answer)["response"]["allowed"] is True


def test_an_answer_of_any_size_arrives_whole() -> None:
    spec = {**POD["spec"], "securityContext": {"runAsUser": 1}}
    spec["containers"] = [{"name": f"c{number}", "image": "app:1"} for number in range(200)]
    metadata = {"name": "web", "annotations": {"litestream-hook.kaidotio.github.io/inject": "true"}}
    _, headers, answer = asked(piece(json.dumps(reviews.review({**POD, "metadata": metadata, "spec": spec})).encode()))
    assert int(headers[b"content-length"]) == len(answer) > PIECE_BYTES
    assert json.loads(answer)["response"]["patchType"] == "JSONPatch"


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes() -> None:
    for length in (b"%d" % (LARGEST_BODY + 1), b"9" * 30):
        assert asked(headers=[(b"content-length", length)])[0] == 413


def test_a_body_without_a_length_is_refused_as_soon_as_it_is_too_large() -> None:
    half = piece(b" " * (LARGEST_BODY // 2 + 1), more=True)
    assert asked(half, half, headers=[(b"transfer-encoding", b"chunked")])[0] == 413


def test_another_method_is_told_which_one_is_right() -> None:
    status, headers, _ = asked(piece(b""), method="GET")
    assert (status, headers[b"allow"]) == (405, b"POST")


def test_a_body_that_does_not_come_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function, "BODY_SECONDS", 0)
    late = piece(b"{", more=True)
    status, headers, sentence = asked(late, headers=[(b"content-length", b"9")], served=function._Sent)
    assert (status, headers[b"connection"]) == (408, b"close")
    assert b"did not arrive" in sentence


def test_a_body_of_unknown_size_waits_its_turn_as_a_large_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "READ_AT_ONCE", 0)
    monkeypatch.setattr(large, "WAIT_SECONDS", 0)
    assert asked(piece(b"{}"), headers=[(b"transfer-encoding", b"chunked")])[0] == 503
    assert asked(piece(b"{}"), headers=[(b"content-length", b"2")])[0] == 400


def test_a_client_that_leaves_is_no_fault_and_the_log_says_what_was_missing(caplog: pytest.LogCaptureFixture) -> None:
    assert asked(piece(b"{", more=True), {"type": "http.disconnect"})[0] == 400
    (record,) = caplog.records
    assert record.__dict__["fields"]["why"] == "the connection ended before the body was whole"
