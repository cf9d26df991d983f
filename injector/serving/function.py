"""The function: `functions-framework --target mutate` serves it by main.py.

The container serves the application in it without the framework's routes and layers, which took a quarter of the time
of a Pod that is not ours.
"""

import asyncio
import os
from typing import Final, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from injector import options
from injector.serving import log
from injector.serving.application import Application
from injector.serving.defaulting import Defaulting

BODY_SECONDS: Final = 10  # the API server's own time limit for a webhook


class _Sent(Response):
    """What an application sends; the same one for all requests, as it holds nothing of any."""

    def __init__(self, application: Application) -> None:
        super().__init__()
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._application(scope, _in_time(receive, BODY_SECONDS), send)


def _in_time(receive: Receive, seconds: float) -> Receive:
    """Receives a body, and raises TimeoutError once it took so many seconds: our own connections see to that."""
    end = asyncio.get_running_loop().time() + seconds

    async def received() -> Message:
        try:
            async with asyncio.timeout_at(end):
                return await receive()
        except TimeoutError:
            raise TimeoutError(f"the body did not arrive within {seconds} s") from None

    return received


async def mutate(request: Request) -> Response:
    """The answer to one HTTP request.

    The first request makes the application that answers: with the options of the environment, DEFAULTS_FILE as it is
    then, and a log; nobody asks the Kubernetes API.
    """
    state = request.app.state
    if not hasattr(state, "answer"):
        chosen = options.read(os.environ)
        answer = _Sent(Application(chosen, None, Defaulting(chosen)))
        log.configure(chosen)
        state.answer = answer
    return cast("Response", state.answer)
