"""The functions-framework function: `functions-framework --target mutate` serves it, and so does the container."""

import asyncio
import os

import functions_framework.aio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from injector import options, webhook

BODY_SECONDS = 10  # the API server's own time limit for a webhook

_options = options.read(os.environ)


@functions_framework.aio.http
async def mutate(request: Request) -> Response:
    """Answers one HTTP request: an AdmissionReview in, an AdmissionReview out (see injector/webhook.py)."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await _body(request)
    except TimeoutError:
        return Response(f"the body did not come within {BODY_SECONDS} s", 408, {"connection": "close"})
    except ClientDisconnect:
        return Response(status_code=400)
    answer = await webhook.answer(request.method, request.url.path, body, _options)
    headers = {"allow": "POST"} if answer.status == 405 else {"connection": "close"} if body is None else None
    return Response(answer.body, answer.status, headers, answer.content_type)


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
