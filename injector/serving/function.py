"""The functions-framework function: `functions-framework --target mutate` serves it, and so does the container."""

import asyncio
import os
import time

import functions_framework.aio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from injector import options
from injector.admission import webhook
from injector.serving import log, metrics
from injector.serving.defaulting import Defaulting

BODY_SECONDS = 10  # the API server's own time limit for a webhook


@functions_framework.aio.http
async def mutate(request: Request) -> Response:
    """Answers one HTTP request: an AdmissionReview in, an AdmissionReview out (see injector/admission/webhook.py).

    `injector.serving.server` puts its options, guard and defaulting into the application's state; under plain
    functions-framework they are the environment's, DEFAULTS_FILE is read once, and nobody asks the Kubernetes API.
    """
    start = time.perf_counter()
    answer, headers = await _answer(request)
    seconds = time.perf_counter() - start
    log.admission(answer.record, seconds)
    metrics.observe(answer.record, seconds)
    return Response(answer.body, answer.status, headers, answer.content_type)


async def _answer(request: Request) -> tuple[webhook.Answer, dict[str, str] | None]:
    state = request.app.state
    if not hasattr(state, "options"):
        chosen = options.read(os.environ)
        state.defaulting, state.guard, state.options = Defaulting(chosen), None, chosen
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await _body(request)
    except TimeoutError:
        late = f"the body did not arrive within {BODY_SECONDS} s".encode()
        return webhook.Answer(408, late, webhook.TEXT, webhook.Record("bad-request", "late")), {"connection": "close"}
    except ClientDisconnect:
        return webhook.Answer(400, b"", webhook.TEXT, webhook.Record("bad-request", "gone")), None
    answer = await webhook.answer(request.method, request.url.path, body, state.options, state.guard, state.defaulting)
    return answer, {"allow": "POST"} if answer.status == 405 else None


async def _body(request: Request) -> bytes | None:
    """The body, or None as soon as it is larger than an AdmissionReview can be."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > webhook.LARGEST_BODY:
        return None
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > webhook.LARGEST_BODY:
            return None
        chunks.append(chunk)
    return b"".join(chunks)
