"""Connections. Those that hold a place without asking for anything are ended: a request's head has to come in time."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from parrotserve.server.corked import Corked

HEAD_SECONDS = 10.0
"""From the first byte (or the connection) to the end of a request's head."""
MOST_HEAD = 64 * 1024
"""Bytes of a head, which the parser would collect without end."""


class ImpatientProtocol(HttpToolsProtocol):
    """Uvicorn's own protocol, which gives a client that sends its head byte by byte all the time in the world."""

    _deadline: asyncio.TimerHandle | None = None
    _head: int | None = 0
    """Bytes of a head that has begun; None while a request's body or its answer is under way."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A client connects."""
        super().connection_made(Corked(transport, self.loop))
        self._watch()

    def data_received(self, data: bytes) -> None:
        """A client sends."""
        super().data_received(data)
        if self._head is not None:
            self._head += len(data)
            if self._head > MOST_HEAD:
                self.send_400_response(f"The head of the request is longer than {MOST_HEAD} bytes.")
        self._watch()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._head = 0

    def on_headers_complete(self) -> None:
        """Its head is there."""
        self._head = None
        super().on_headers_complete()

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
