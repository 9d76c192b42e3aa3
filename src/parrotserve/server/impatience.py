"""HTTP connections, which are closed if the head of a request does not arrive in time."""

import asyncio
import logging
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from parrotserve.protocol import ErrorAnswer, ErrorBody
from parrotserve.server.corked import Corked
from parrotserve.server.room import Room

HEAD_SECONDS = 10.0
"""Time for the head of a request, from its first byte (or from the connection) to its end."""

# Clients that do not speak HTTP get an answer but no line in the log, which is for the operator. The logger is not a
# child of uvicorn's own, because those lose their levels when uvicorn configures its logging.
_log = logging.getLogger(f"{__name__}.connections")
_log.setLevel(logging.ERROR)


class ImpatientProtocol(H11Protocol):
    """Uvicorn's protocol with a time limit for heads, without which clients may send them byte by byte for ever.

    This is the protocol based on h11, whose strictness is worth more here than httptools' speed: heads and trailers are
    bounded, an offer to upgrade to another protocol does not lose the body, and HTTP/1.0 clients get no chunks.
    """

    def __init__(self, *args: Any, room: Room, **options: Any) -> None:
        super().__init__(*args, **options)
        self._room = room
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Start the time limit, and make room if there are too many connections."""
        self._corked = Corked(transport, self.loop)
        super().connection_made(self._corked)
        self.logger = _log
        self._watch()
        self._room.make_way(self)

    def data_received(self, data: bytes) -> None:
        """Read what the client sent, and check whether a head is still awaited."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Send the end of an answer, and start the time limit if the next head has begun."""
        self._corked.flush()
        super().on_response_complete()
        if self.conn.trailing_data[0]:  # part of the next head
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time limit."""
        self._stop()
        super().connection_lost(exc)

    def end(self) -> None:
        """Close the connection to make room for others."""
        self._stop()
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer with an error in the shape of all others, and close."""
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
