"""A shortcut to one route past FastAPI's layers, which cost a short exchange about as much as handling it does.

FastAPI searches all routes, and passes middleware and wrappers for features that this route does not use. It still
documents the route, and answers other methods on its path.
"""

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from parrotserve.server.middleware import Unexpected
from parrotserve.server.refusals import REFUSED, refusal_to


class Shortcut:
    """The innermost layer around FastAPI: passes exchanges for `route` to its handler, and all others to `app`."""

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
