"""The functions-framework function: `functions-framework --target mutate` serves it, and so does the container."""

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping

import functions_framework.aio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from injector import options
from injector.admission import webhook
from injector.serving import log, metrics
from injector.serving.defaulting import Defaulting
from injector.serving.large import BYTES, Busy, Large

PIECE_BYTES = 32 * 1024  # of an answer: most are smaller
BODY_SECONDS = 10  # the API server's own time limit for a webhook


@functions_framework.aio.http
async def mutate(request: Request) -> Response:
    """Answers one HTTP request: an AdmissionReview in, an AdmissionReview out (see injector/admission/webhook.py).

    `injector.serving.server` puts its options, guard and defaulting into the application's state. Under plain
    functions-framework the options are the environment's, DEFAULTS_FILE is read once, nobody asks the Kubernetes API,
    and the log is set up by the first request.
    """
    start = time.perf_counter()
    answer, headers = await _answer(request)
    seconds = time.perf_counter() - start
    log.admission(answer.record, seconds, why=answer.body.decode() if answer.status >= 400 else "")
    metrics.observe(answer.record, seconds)
    return _Sent(answer, headers, request.app.state.large)


class _Sent(Response):
    """An answer that is sent in pieces, each when the client has taken the one before."""

    def __init__(self, answer: webhook.Answer, headers: Mapping[str, str] | None, large: Large) -> None:
        super().__init__(answer.body, answer.status, headers, answer.content_type)
        self._large = large

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if len(self.body) <= PIECE_BYTES:
            await super().__call__(scope, receive, send)
            return
        with contextlib.suppress(TimeoutError):  # given up: the server closes a connection with half an answer
            async with self._large.sending(len(self.body)):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                for end in range(PIECE_BYTES, len(self.body) + PIECE_BYTES, PIECE_BYTES):
                    piece, more = self.body[end - PIECE_BYTES : end], end < len(self.body)
                    await send({"type": "http.response.body", "body": piece, "more_body": more})


async def _answer(request: Request) -> tuple[webhook.Answer, dict[str, str] | None]:
    state = request.app.state
    if not hasattr(state, "options"):
        chosen = options.read(os.environ)
        state.defaulting, state.guard, state.options = Defaulting(chosen), None, chosen
        log.configure(state.options)
    if not hasattr(state, "large"):
        state.large = Large()
    try:
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(request, state.large, stack)
            await stack.enter_async_context(state.large.answering(body or b""))
            answer = await webhook.answer(
                request.method, request.url.path, body, state.options, state.guard, state.defaulting
            )
    except TimeoutError:
        return _refused(408, f"the body did not arrive within {BODY_SECONDS} s", "late"), {"connection": "close"}
    except ClientDisconnect:
        return _refused(400, "", "gone"), None
    except Busy:
        return _refused(503, "too many large requests at once: try again", "busy"), None
    return answer, {"allow": "POST"} if answer.status == 405 else None


def _refused(status: int, sentence: str, reason: str) -> webhook.Answer:
    return webhook.Answer(status, sentence.encode(), webhook.TEXT, webhook.Record("bad-request", reason))


async def _body(request: Request, large: Large, stack: contextlib.AsyncExitStack) -> bytes | None:
    """The body, or None as soon as it is larger than an AdmissionReview can be; a large one when there is room."""
    text = request.headers.get("content-length", "")
    length = int(text) if text.isdigit() and len(text) < 20 else 0
    if length > webhook.LARGEST_BODY:
        return None
    has_room = False
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > webhook.LARGEST_BODY:
            return None
        chunks.append(chunk)
        if max(size, length) > BYTES and not has_room:
            has_room = True
            await stack.enter_async_context(large.reading())
    return b"".join(chunks)
