"""The way to one route past FastAPI's layers, which cost a short exchange about as much as taking it in.

FastAPI goes through all routes, and through layers around all of them and around each, that are for what this route
does not use. It still documents the route, and answers what else is asked of its path.
"""

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from parrotserve.server.middleware import Unexpected
from parrotserve.server.refusals import REFUSED, refusal_to


class Shortcut:
    """Innermost of what is around FastAPI: gives its route what is for it, and the application all else."""

    def __init__(self, app: ASGIApp, *, route: APIRoute) -> None:
        self._app = app
        self._path, self._methods = route.path, route.methods
        self._handle = route.get_route_handler()
        self._exchange = Unexpected(self._answer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == self._path and scope["method"] in self._methods:
            await self._exchange(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            answer = await self._handle(request)
        except REFUSED as error:
            answer = refusal_to(request, error)
        await answer(scope, receive, send)
