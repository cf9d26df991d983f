"""The functions-framework function: `functions-framework --target mutate` serves by it what the container serves."""

import os

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from injector import options
from injector.serving import log
from injector.serving.application import Application
from injector.serving.defaulting import Defaulting


class _Sent(Response):
    """What an application sends."""

    def __init__(self, application: Application) -> None:
        super().__init__()
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._application(scope, receive, send)


@functions_framework.aio.http
async def mutate(request: Request) -> Response:
    """The answer to one HTTP request.

    Options are the environment's, DEFAULTS_FILE is read once, nobody asks the Kubernetes API, and the log is set up by
    the first request.
    """
    state = request.app.state
    if not hasattr(state, "application"):
        chosen = options.read(os.environ)
        application = Application(chosen, None, Defaulting(chosen))
        log.configure(chosen)
        state.application = application
    return _Sent(state.application)
