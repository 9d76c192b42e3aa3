"""Middleware for every exchange: checks the protocol version and the body's size, and turns bugs into error answers."""

from collections.abc import Callable

from fastapi import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parrotserve.errors import IncompatibleVersions
from parrotserve.protocol import PROTOCOL_HEADER, PROTOCOL_VERSION
from parrotserve.server import errors
from parrotserve.server.headers import header
from parrotserve.server.refusals import refusal, refusal_of

_SPOKEN = str(PROTOCOL_VERSION)
_NAME, _OURS = PROTOCOL_HEADER.lower().encode(), _SPOKEN.encode()


class ProtocolVersion:
    """Names our protocol version in every answer and refuses clients that name another one. They may name none."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (_NAME, _OURS)]
            await send(message)

        theirs = header(scope, _NAME, _SPOKEN)
        app = self._app
        if theirs != _SPOKEN:
            app = refusal_of(
                scope,
                IncompatibleVersions(
                    f"The client speaks protocol {theirs[:20]}, this service {PROTOCOL_VERSION}: "
                    "install the same version of parrotserve on both sides."
                ),
            )
        await app(scope, receive, send_with_version)


class BodyLimit:
    """Refuses bodies larger than their tenant may send, with or without a declared length, without reading on."""

    def __init__(self, app: ASGIApp, *, most_bytes: Callable[[Scope], int]) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._most_bytes(scope)
        length = header(scope, b"content-length", "0")
        if length.isdecimal() and int(length) > most:
            await refusal(scope, 413, errors.too_large(most))(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                # While it reads a body, FastAPI lets only this exception class through.
                raise HTTPException(413, errors.too_large(most).message)
            return message

        await self._app(scope, counted, send)


class Unexpected:
    """Turns unexpected exceptions into error answers. Innermost, so that the other layers add their headers to them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            return  # it left while its body was read: not a bug, and nobody is there to be told
        except Exception as error:
            # An answer that has begun cannot become an error; the HTTP server cuts it off.
            if started or scope["type"] != "http":
                raise
            await refusal(scope, 500, errors.internal_error(error))(scope, receive, send)
