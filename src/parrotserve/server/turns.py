"""Turns on the event loop: each tenant begins one exchange per iteration of it, however many connections it has.

An iteration runs everything that is ready. Without turns, a tenant that sends requests on a hundred connections at once
has a hundred exchanges handled between two tokens of another tenant's stream.
"""

import asyncio
from collections import deque

from starlette.types import ASGIApp, Receive, Scope, Send

from parrotserve.ids import TenantId
from parrotserve.server.access import caller_of


class Turns:
    """Lets one exchange of each tenant pass per iteration of the event loop, in order of arrival."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._waiting: dict[TenantId, deque[asyncio.Future[None]]] = {}
        """Waiting exchanges of the tenants whose turn in this iteration is taken."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = caller_of(scope)
        if caller is not None:
            await self._turn(caller.tenant)
        await self._app(scope, receive, send)

    async def _turn(self, tenant: TenantId) -> None:
        loop = asyncio.get_running_loop()
        waiting = self._waiting.get(tenant)
        if waiting is None:
            self._waiting[tenant] = deque()
            loop.call_soon(self._next, tenant)
            return
        turn: asyncio.Future[None] = loop.create_future()
        waiting.append(turn)
        await turn

    def _next(self, tenant: TenantId) -> None:
        waiting = self._waiting[tenant]
        while waiting and waiting[0].done():  # its exchange was cancelled
            waiting.popleft()
        if not waiting:
            del self._waiting[tenant]
            return
        waiting.popleft().set_result(None)
        asyncio.get_running_loop().call_soon(self._next, tenant)
