"""A transport that sends together what is written to a connection in one turn of the event loop.

An answer is written in pieces: its head, an event or two, its end. Each would be a system call, and a packet that wakes
the client, and together they would cost a short answer more than all the rest of HTTP.
"""

import asyncio
from typing import Any

_MOST = 64 * 1024
"""Bytes above which data is not held back any longer, so that a long answer meets the transport's own limits."""

UNREAD_SECONDS = 30.0
"""A connection that is being closed is aborted if its client reads nothing of the rest for so long. Otherwise it would
hold its file descriptor for as long as the client likes."""


class Corked(asyncio.Transport):
    """A transport around another one. It adds no delay beyond the current turn of the event loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._kept: list[bytes | bytearray | memoryview[int]] = []
        self._size = 0

    def write(self, data: "bytes | bytearray | memoryview[int]") -> None:
        """Send `data` at the end of this turn, or at once if there is much of it."""
        if not self._kept:
            self._loop.call_soon(self.flush)
        self._kept.append(data)
        self._size += len(data)
        if self._size > _MOST:
            self.flush()

    def flush(self) -> None:
        """Send now what is held back, for callers that know that nothing will be added to it."""
        kept, self._kept, self._size = self._kept, [], 0
        if kept:
            self._transport.write(b"".join(kept))

    def close(self) -> None:
        """Send what is held back, then close. Aborts if the client does not read it (`UNREAD_SECONDS`)."""
        self.flush()
        self._transport.close()
        self._see_off(None)

    def _see_off(self, before: int | None) -> None:
        unread = self._transport.get_write_buffer_size()
        if unread and unread == before:
            self._transport.abort()
        elif unread:
            self._loop.call_later(UNREAD_SECONDS, self._see_off, unread)

    def abort(self) -> None:
        """Close at once and drop what was not sent."""
        self._kept, self._size = [], 0
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See `asyncio.BaseTransport`."""
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Stop reading from the client."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read from the client again."""
        self._transport.resume_reading()
