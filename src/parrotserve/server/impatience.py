"""Connections. Those that hold a place without asking for anything are ended: a request's head has to come in time."""

import asyncio
import logging
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from parrotserve.protocol import ErrorAnswer, ErrorBody
from parrotserve.server.corked import Corked
from parrotserve.server.room import Room

HEAD_SECONDS = 10.0
"""From the first byte (or the connection) to the end of a request's head."""

# No line for each client that speaks no HTTP: it is told, and the log is the operator's. Not below uvicorn's own
# loggers, whose children lose their levels when uvicorn configures its logging.
_log = logging.getLogger(f"{__name__}.connections")
_log.setLevel(logging.ERROR)


class ImpatientProtocol(H11Protocol):
    """Uvicorn's own protocol, which gives a client that sends its head byte by byte all the time in the world.

    It is that over h11, whose strictness is worth more here than httptools' speed: heads and what follows chunks have
    bounds, an offer of another protocol loses no body, and clients of HTTP/1.0 get no chunks.
    """

    def __init__(self, *args: Any, room: Room, **options: Any) -> None:
        super().__init__(*args, **options)
        self._room = room
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A client connects."""
        self._corked = Corked(transport, self.loop)
        super().connection_made(self._corked)
        self.logger = _log
        self._watch()
        self._room.make_way(self)

    def data_received(self, data: bytes) -> None:
        """A client sends."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """An answer is whole."""
        self._corked.flush()
        super().on_response_complete()
        if self.conn.trailing_data[0]:  # the next head has begun
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._stop()
        super().connection_lost(exc)

    def end(self) -> None:
        """Make way for others."""
        self._stop()
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong, in the shape of all errors, and close."""
        body = ErrorBody(code="invalid_request", message="This is not an HTTP/1.1 request, or its head is too long.")
        told = ErrorAnswer(error=body).model_dump_json().encode()
        head = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n"
        self.transport.write(f"{head}Content-Length: {len(told)}\r\n\r\n".encode() + told)
        self.transport.close()

    def _watch(self) -> None:
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._stop()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)
            self._room.silent[self] = None

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
            del self._room.silent[self]
