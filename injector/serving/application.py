"""The webhook as an ASGI application: what is read of a request, and how its answer is noted and sent."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from injector.admission import webhook
from injector.serving import log, metrics
from injector.serving.large import Busy, Large

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from injector.options import Options

PIECE_BYTES: Final = 32 * 1024  # of an answer: most are smaller
HEADERS: Final = {405: (b"allow", b"POST"), 408: (b"connection", b"close")}  # that an answer has beside those of all


class _Gone(Exception):
    """The connection ended, closed by the client or, after its time, by the webhook."""


class Application:
    """Answers HTTP requests: an AdmissionReview in, an AdmissionReview out (see injector/admission/webhook.py).

    Args:
        options: the operator's.
        guard: asks the cluster for other writers; None where there is none.
        defaulting: says what holds in a namespace; None where there are but the built-in defaults.
    """

    def __init__(self, options: Options, guard: webhook.Guard | None, defaulting: webhook.Defaulting | None) -> None:
        self._options = options
        self._guard = guard
        self._defaulting = defaulting
        self._large = Large()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        start = time.perf_counter()
        answer = await self._answer(scope, receive)
        seconds = time.perf_counter() - start
        log.admission(answer.record, seconds, why=answer.body.decode() if answer.status >= 400 else "")
        metrics.observe(answer.record, seconds)
        headers = [(b"content-type", answer.content_type.encode()), (b"content-length", b"%d" % len(answer.body))]
        if answer.status in HEADERS:
            headers.append(HEADERS[answer.status])
        begin = {"type": "http.response.start", "status": answer.status, "headers": headers}
        if len(answer.body) <= PIECE_BYTES:
            await send(begin)
            await send({"type": "http.response.body", "body": answer.body})
            return
        with contextlib.suppress(TimeoutError):  # given up: the server closes a connection with half an answer
            async with self._large.sending(len(answer.body)):
                await send(begin)
                # Each piece is sent when the client has taken the one before.
                for end in range(PIECE_BYTES, len(answer.body) + PIECE_BYTES, PIECE_BYTES):
                    piece, more = answer.body[end - PIECE_BYTES : end], end < len(answer.body)
                    await send({"type": "http.response.body", "body": piece, "more_body": more})

    async def _answer(self, scope: Scope, receive: Receive) -> webhook.Answer:
        length = _length(scope)
        try:
            async with self._large.reading(length):
                body = await _body(receive, length)
                async with self._large.answering(body or b""):
                    return await webhook.answer(
                        scope["method"], scope["path"], body, self._options, self._guard, self._defaulting
                    )
        except TimeoutError as late:  # of a `receive` that has a deadline
            return _refused(408, str(late), "late")
        except _Gone:
            return _refused(400, "the connection ended before the body was whole", "gone")  # only the log says it
        except Busy:
            return _refused(503, "too many large requests at once: try again", "busy")


def _length(scope: Scope) -> int:
    """How many bytes a body has; where that is not said, it may be as many as are taken."""
    headers = dict(scope["headers"])
    text = headers.get(b"content-length")
    if text is None:
        return webhook.LARGEST_BODY if b"transfer-encoding" in headers else 0
    return int(text) if text.isdigit() and len(text) < 20 else webhook.LARGEST_BODY + 1


async def _body(receive: Receive, length: int) -> bytes | None:
    """The body of a request, or None as soon as it is larger than an AdmissionReview can be."""
    if length > webhook.LARGEST_BODY:
        return None
    pieces, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        more = message.get("more_body", False)
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > webhook.LARGEST_BODY:
            return None
    return b"".join(pieces)


def _refused(status: int, sentence: str, reason: str) -> webhook.Answer:
    return webhook.Answer(status, sentence.encode(), webhook.TEXT, webhook.Record("bad-request", reason))
