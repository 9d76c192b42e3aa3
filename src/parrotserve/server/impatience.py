"""Connections. Those that hold a place without asking for anything are ended: a request's head has to come in time.

Uvicorn's own protocol with what it leaves out: clients that send byte by byte, offers to speak another protocol, which
are no reason to lose a request's body, and clients of HTTP/1.0, which know no chunks.
"""

import asyncio
from typing import Any

import httptools
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from parrotserve.protocol import ErrorAnswer, ErrorBody
from parrotserve.server.corked import Corked

HEAD_SECONDS = 10.0
"""From the first byte (or the connection) to the end of a request's head."""
MOST_HEAD = 64 * 1024
"""Bytes that may come without a head ending or a body going on. The parser would collect them without end."""


class ImpatientProtocol(HttpToolsProtocol):
    """Uvicorn's own protocol, which gives a client that sends its head byte by byte all the time in the world."""

    _deadline: asyncio.TimerHandle | None = None
    _barren: int = 0
    """Bytes since a head ended or a body went on: of a head, or of what follows the last chunk of a body."""
    _in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A client connects."""
        super().connection_made(Corked(transport, self.loop))
        self._watch()

    def data_received(self, data: bytes) -> None:
        """A client sends."""
        self._unset_keepalive_if_required()
        self._barren += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.send_400_response("This is no request in HTTP/1.1.")
            return
        if self._barren > MOST_HEAD:
            self.send_400_response(f"The head of the request is longer than {MOST_HEAD} bytes.")
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong, in the shape of all errors, and close."""
        told = ErrorAnswer(error=ErrorBody(code="invalid_request", message=msg)).model_dump_json().encode()
        head = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n"
        self.transport.write(f"{head}Content-Length: {len(told)}\r\n\r\n".encode() + told)
        self.transport.close()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_body = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of a request, or one that follows its body, which nobody reads."""
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Its head is there."""
        self._barren, self._in_body = 0, True
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of its body is there."""
        self._barren = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """It is there, unless it is one that is read again."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._stop()
        super().connection_lost(exc)

    def _feed(self, data: bytes) -> None:
        """Parse. A client may offer another protocol (as Java's does with each request): the offer is not taken up.

        The parser stops at the end of such a head, which is then read again without the offer.
        """
        rest = memoryview(data)
        while True:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as offer:
                rest = rest[offer.args[0] :]
                head = self._head_without_offer()
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
                self.parser.feed_data(head)
            else:
                return

    def _head_without_offer(self) -> bytes:
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise httptools.HttpParserInvalidMethodError("a service is no proxy")
        version = self.parser.get_http_version().encode()
        headers = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        return b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, b"".join(headers))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        answer: Any = app if cycle.scope["http_version"] != "1.0" else _WithoutChunks(app, cycle)
        super()._start_asgi_task(cycle, answer)

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


class _WithoutChunks:
    """Answers a client of HTTP/1.0: what has no length ends with the connection, which uvicorn closes for it."""

    def __init__(self, app: ASGIApp, cycle: RequestResponseCycle) -> None:
        self._app = app
        self._cycle = cycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        unmeasured = False

        async def send_plain(message: Message) -> None:
            nonlocal unmeasured
            if message["type"] == "http.response.start":
                unmeasured = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
                if unmeasured:
                    self._cycle.chunked_encoding = False
            elif unmeasured:
                self._cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await self._app(scope, receive, send_plain)
