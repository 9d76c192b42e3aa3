"""Connections. Those that hold a place without asking for anything are ended: a request's head has to come in time."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from parrotserve.server.corked import Corked

HEAD_SECONDS = 10.0
"""From the first byte (or the connection) to the end of a request's head."""


class ImpatientProtocol(H11Protocol):
    """Uvicorn's own protocol, which gives a client that sends its head byte by byte all the time in the world."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A client connects."""
        super().connection_made(Corked(transport, self.loop))
        self._watch()

    def data_received(self, data: bytes) -> None:
        """A client sends."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._stop()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
