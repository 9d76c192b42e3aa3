"""Server-sent events (WHATWG HTML, 9.2): an answer sent as it is produced, for as long as the client is connected.

Every token of every stream goes through here, and every short answer of a submit, so this does as little as possible:
a stream that ends at once is sent whole, and only a longer one gets a task that notices when the client leaves.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

PING_SECONDS = 15.0
"""After so long without an event a stream sends a comment, so that no intermediary takes the connection for dead."""
_AT_ONCE_SECONDS = 0.005
"""Events of the first so many seconds are sent together, since every write passes all layers and wakes the client. An
answer that ends by then gets no task that watches the client, which would take longer to make than the answer to send.
"""
_MOST_AT_ONCE = 64 * 1024
"""Bytes above which events are not held back any longer."""
_PING = b": ping\n\n"
_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-type", b"text/event-stream; charset=utf-8"),
)
_UNBUFFERED = (b"x-accel-buffering", b"no")


def encoded(data: str, *, name: str | None = None, id: str | None = None) -> bytes:  # noqa: A002 - the field's name
    """One event, whose `data` is JSON without line feeds. Unicode's other line ends are escaped, because many clients
    split lines at them."""
    for end in "\x85\u2028\u2029":
        data = data.replace(end, f"\\u{ord(end):04x}")
    head = "" if id is None else f"id: {id}\n"
    if name is not None:
        head += f"event: {name}\n"
    return f"{head}data: {data}\n\n".encode()


DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {"description": "Server-sent events.", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
}
"""OpenAPI responses of a route that answers with an event stream."""


class EventStream(StreamingResponse):
    """An answer that sends events as they come. `events` is closed once the client has left or all of it is sent."""

    def __init__(self, events: AsyncGenerator[bytes, None], status_code: int = 200) -> None:
        # Set here, because the base class would compute the same values anew for every answer.
        self.status_code = status_code
        self.background = None
        self.raw_headers = [*_HEADERS]
        self._events = events
        self._kept: list[bytes] = []
        """Events held back so far."""
        self._begun = False
        """Whether the head and the events held back are sent, so that others are sent as they come."""
        self._order = asyncio.Lock()
        """Held while the beginning, the end or a ping is sent, so that nothing precedes the beginning or follows the
        end."""
        self._quiet = True
        self._ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the whole answer; see `Response`."""
        loop, stay = asyncio.get_running_loop(), asyncio.timeout(None)
        company: list[asyncio.Task[None]] = []
        soon = loop.call_later(
            _AT_ONCE_SECONDS, lambda: company.append(loop.create_task(self._accompany(receive, send, stay)))
        )
        try:
            async with stay:
                await self._send(send)
        except TimeoutError:
            if not stay.expired():
                raise
        finally:
            soon.cancel()
            for task in company:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        size = 0
        async with aclosing(self._events) as events:
            async for one in events:
                self._quiet = False
                if self._begun:
                    await self._say(send, one)
                    continue
                self._kept.append(one)
                size += len(one)
                if size > _MOST_AT_ONCE:
                    await self._begin(send)
        async with self._order:
            self._ended = True
            body = b"".join(self._kept)
            if not self._begun:
                self.raw_headers.append((b"content-length", str(len(body)).encode()))
                await self._head(send)
            await self._say(send, body, more=False)
        # The answer is sent, and this turn of the event loop cleans up after its request. Let it do so first: a client
        # in this very process continues when this returns, and its next request must find this one ended.
        await asyncio.sleep(0)

    async def _begin(self, send: Send) -> None:
        async with self._order:
            if self._begun or self._ended:
                return
            self.raw_headers.append(_UNBUFFERED)
            await self._head(send)
            while self._kept:
                kept, self._kept = self._kept, []
                await self._say(send, b"".join(kept))
            self._begun = True

    async def _head(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

    async def _say(self, send: Send, body: bytes, *, more: bool = True) -> None:
        await send({"type": "http.response.body", "body": body, "more_body": more})

    async def _accompany(self, receive: Receive, send: Send, stay: asyncio.Timeout) -> None:
        """Begin the answer and send a comment whenever no event was sent for long. Once the client has left, end it."""
        gone = asyncio.ensure_future(left(receive))
        try:
            await self._begin(send)
            while not (await asyncio.wait({gone}, timeout=PING_SECONDS))[0]:
                await self._ping(send)
            stay.reschedule(0.0)
        finally:
            gone.cancel()

    async def _ping(self, send: Send) -> None:
        quiet, self._quiet = self._quiet, True
        async with self._order:
            if quiet and not self._ended:
                await self._say(send, _PING)


async def left(receive: Receive) -> None:
    """Wait until the client leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass
