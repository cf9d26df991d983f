"""The function: `functions-framework --target mutate` serves it by main.py.

The container serves the application in it without the framework's routes and layers, which took a quarter of the time
of a Pod that is not ours.
"""

import os
from typing import cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from injector import options
from injector.serving import log
from injector.serving.application import BODY_SECONDS, Application
from injector.serving.defaulting import Defaulting


class _Sent(Response):
    """What an application sends; the same one for all requests, as it holds nothing of any."""

    def __init__(self, application: Application) -> None:
        super().__init__()
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._application(scope, receive, send)


async def mutate(request: Request) -> Response:
    """The answer to one HTTP request.

    The first request makes the application that answers: with the options of the environment, DEFAULTS_FILE as it is
    then, and a log; nobody asks the Kubernetes API.
    """
    state = request.app.state
    if not hasattr(state, "answer"):
        chosen = options.read(os.environ)
        answer = _Sent(Application(chosen, None, Defaulting(chosen), BODY_SECONDS))
        log.configure(chosen)
        state.answer = answer
    return cast("Response", state.answer)
