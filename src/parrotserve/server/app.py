"""The HTTP application: routes in front of one service."""

from functools import partial

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from parrotserve import __version__
from parrotserve.ids import TenantId
from parrotserve.runtime.service import Service
from parrotserve.server import docs, errors, refusals
from parrotserve.server.access import Authentication, caller_of
from parrotserve.server.bodies import MOST_VALUES
from parrotserve.server.json_process import JsonProcess
from parrotserve.server.middleware import BodyLimit, ProtocolVersion, Unexpected
from parrotserve.server.openai import routes as openai
from parrotserve.server.openai.responses import routes as responses
from parrotserve.server.openai.responses.kept import KeptResponses
from parrotserve.server.room import Doorkeeper, OpenExchanges, Room
from parrotserve.server.routes import calls, catalog, health, sessions, submit, usage, variables
from parrotserve.server.shortcut import Shortcut
from parrotserve.server.turns import Turns


class _Application(FastAPI):
    """FastAPI behind `front`, the middleware that every exchange passes first. That is outside FastAPI's own stack, and
    so is the shortcut past it."""

    front: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self.front(scope, receive, send)


def create_app(service: Service, room: Room | None = None) -> FastAPI:
    """The application in front of a started service, on as many connections as there is `room` for.

    The caller closes the service that it started, and `app.state.parser` as well.
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
    app.state.responses = KeptResponses()
    refusals.install(app)
    docs.install(app)
    app.add_middleware(Unexpected)
    # Each layer is asked before those added above it.
    room = room or Room()
    front = Shortcut(partial(FastAPI.__call__, app), route=submit.route)
    front = Turns(BodyLimit(front, most_bytes=partial(_most_bytes, service)))
    front = OpenExchanges(front, room=room, most=partial(_most_exchanges, service))
    front = Authentication(front, directory=service.directory)
    app.front = ProtocolVersion(Doorkeeper(front, room=room))
    for module in (submit, sessions, variables, calls, openai, responses, catalog, usage, health):
        app.include_router(module.router, responses=errors.RESPONSES)
    return app


def _most_bytes(service: Service, scope: Scope) -> int:
    caller = caller_of(scope)
    return 0 if caller is None else service.most_bytes(caller.tenant)


def _most_exchanges(service: Service, tenant: TenantId, free: int | None) -> int | None:
    """Most open exchanges of a tenant, None for no limit. With keys and without `max_exchanges`, a tenant may have as
    many as there are connections free: a tenant alone gets half of all, two get a third each."""
    most = service.config.max_exchanges
    if most is None and service.directory.closed:
        most = free
    own = service.directory.limits(tenant).exchanges
    return min((bound for bound in (most, own) if bound is not None), default=None)
