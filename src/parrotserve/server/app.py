"""The HTTP application: routes in front of one service."""

from functools import partial

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from parrotserve import __version__
from parrotserve.runtime.service import Service
from parrotserve.server import docs, errors, refusals
from parrotserve.server.access import Authentication, caller_of
from parrotserve.server.bodies import MOST_VALUES
from parrotserve.server.json_process import JsonProcess
from parrotserve.server.middleware import BodyLimit, ProtocolVersion, Unexpected
from parrotserve.server.openai import routes as openai
from parrotserve.server.routes import calls, catalog, health, sessions, submit, usage, variables
from parrotserve.server.shortcut import Shortcut
from parrotserve.server.turns import Turns


class _Application(FastAPI):
    """FastAPI behind what every exchange passes first, which stands outside of it: so does the way past it."""

    front: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self.front(scope, receive, send)


def create_app(service: Service) -> FastAPI:
    """The application in front of a started service.

    Whoever started the service closes it, and `app.state.parser` as well.
    """
    app = _Application(
        title="Parrot",
        version=__version__,
        summary="Serves LLM applications: requests, the values that flow between them, and what waits for them.",
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.state.parser = JsonProcess(most_values=MOST_VALUES)
    refusals.install(app)
    docs.install(app)
    app.add_middleware(Unexpected)
    # The last one is the first one asked.
    front = Shortcut(partial(FastAPI.__call__, app), route=submit.route)
    front = Turns(BodyLimit(front, most_bytes=partial(_most_bytes, service)))
    app.front = ProtocolVersion(Authentication(front, directory=service.directory))
    for module in (submit, sessions, variables, calls, openai, catalog, usage, health):
        app.include_router(module.router, responses=errors.RESPONSES)
    return app


def _most_bytes(service: Service, scope: Scope) -> int:
    caller = caller_of(scope)
    return 0 if caller is None else service.most_bytes(caller.tenant)
