"""Room for exchanges: each tenant leaves some to the others, and health checks are always answered.

Every connection takes a file descriptor, of which there are only so many (`descriptors`).
"""

from collections.abc import Callable, Collection
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parrotserve.errors import ServiceUnavailable, TooManyExchanges
from parrotserve.ids import TenantId
from parrotserve.server.access import OPEN_PATHS, caller_of
from parrotserve.server.refusals import refusal_of

_KEPT_ALIVE = 4
"""Connections are kept alive between exchanges while at most one in so many of the possible ones is in use, since idle
connections count against no tenant."""
_CLOSE = (b"connection", b"close")


class Silent(Protocol):
    """A connection without a current request."""

    def end(self) -> None:
        """Close it."""
        ...


class Room:
    """The connections of the server. At most `most` of them are answered; None for no limit."""

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self.connections: Collection[object] = ()
        """Open connections: the server's own collection, once there is a server."""
        self.silent: dict[Silent, None] = {}
        """Connections on which the head of a request is awaited, the one that has been silent longest first."""

    @property
    def crowded(self) -> bool:
        """Whether connections are so scarce that none is kept alive between exchanges."""
        return self.most is not None and len(self.connections) * _KEPT_ALIVE > self.most

    @property
    def full(self) -> bool:
        """Whether there are more connections than may be answered."""
        return self.most is not None and len(self.connections) > self.most

    def make_way(self, newest: Silent) -> None:
        """If there are too many connections, end the one that has been silent longest, other than `newest`. Otherwise
        a client that opens connections and sends nothing would keep all others out."""
        if self.full:
            longest = next((one for one in self.silent if one is not newest), None)
            if longest is not None:
                longest.end()


class Doorkeeper:
    """Refuses exchanges while there are more connections than there is room for, except for health checks."""

    def __init__(self, app: ASGIApp, *, room: Room) -> None:
        self._app = app
        self._room = room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if self._room.crowded:
            send = _closing(send)
            if self._room.full and scope["path"] not in OPEN_PATHS:
                app = refusal_of(
                    scope,
                    ServiceUnavailable(
                        f"The service has {self._room.most} connections, as many as it has file descriptors for "
                        "(ulimit -n). Try again when some have ended."
                    ),
                )
        await app(scope, receive, send)


class OpenExchanges:
    """Refuses a tenant's exchanges beyond the number that it may have open at the same time.

    `most(tenant, free)` gives that number if there is room for `free` more exchanges; None means no limit in both.
    """

    def __init__(self, app: ASGIApp, *, room: Room, most: Callable[[TenantId, int | None], int | None]) -> None:
        self._app = app
        self._room = room
        self._most = most
        self._open: dict[TenantId, int] = {}
        self._all = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = caller_of(scope)
        if caller is None:
            await self._app(scope, receive, send)
            return
        tenant = caller.tenant
        held = self._open.get(tenant, 0)
        most = self._most(tenant, None if self._room.most is None else self._room.most - self._all)
        if most is not None and held >= most:
            await refusal_of(scope, _too_many(held))(scope, receive, send)
            return
        self._open[tenant] = held + 1
        self._all += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._all -= 1
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]


def _too_many(held: int) -> TooManyExchanges:
    return TooManyExchanges(
        f"{held} exchanges of this tenant are open, and no more may be now: let some end, wait for several variables "
        "in one exchange, or have the operator raise max_exchanges or the tenant's own limit. Try again in 1 s.",
        limit="exchanges",
        retry_after="1",
    )


def _closing(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), _CLOSE]
        await send(message)

    return sent
