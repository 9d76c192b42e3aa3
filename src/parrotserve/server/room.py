"""Room for exchanges: each tenant leaves some to the others, and health checks always find some.

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
"""The part of the connections, one in so many, up to which they are kept between two exchanges: idle ones count against
no tenant."""
_CLOSE = (b"connection", b"close")


class Silent(Protocol):
    """A connection on which nothing has been asked for yet."""

    def end(self) -> None:
        """Close it."""
        ...


class Room:
    """How many connections there are, and how many are answered; `most` is None for as many as come."""

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self.connections: Collection[object] = ()
        """What is connected now: the server's own collection, once there is a server."""
        self.silent: dict[Silent, None] = {}
        """Of these, those on which the head of a request is still to come, those first that let it wait longest."""

    @property
    def crowded(self) -> bool:
        """Whether connections are needed so much that none is kept idle."""
        return self.most is not None and len(self.connections) * _KEPT_ALIVE > self.most

    @property
    def full(self) -> bool:
        """Whether the last one that came is one too many."""
        return self.most is not None and len(self.connections) > self.most

    def make_way(self, newest: Silent) -> None:
        """Where the newest one is one too many, end another that asks for nothing: else whoever opens connections and
        does no more with them keeps all others out."""
        if self.full:
            longest = next((one for one in self.silent if one is not newest), None)
            if longest is not None:
                longest.end()


class Doorkeeper:
    """Refuses exchanges on more connections than there is room for, health checks aside."""

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
    """Refuses a tenant's exchanges beyond those that it may have open together.

    `most(tenant, free)` says how many those are while so many more would fit, None for as many as come.
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
