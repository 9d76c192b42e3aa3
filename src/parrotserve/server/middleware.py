"""What is checked of every exchange before a route sees it: the protocol's version and the size of the body."""

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
    """Answers carry our version; a client that names another is refused. Clients that name none are welcome."""

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
    """Refuses bodies above what their tenant may send, however they are sent, without reading on."""

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
                # FastAPI lets only this class through while it reads a body.
                raise HTTPException(413, errors.too_large(most).message)
            return message

        await self._app(scope, counted, send)


class Unexpected:
    """Turns bugs into answers. Innermost, so that these carry what every answer carries."""

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
            return  # while its body was read: no fault of ours, and nobody to be told
        except Exception as error:
            # What has begun cannot become an error; the server above cuts it off.
            if started or scope["type"] != "http":
                raise
            await refusal(scope, 500, errors.internal_error(error))(scope, receive, send)
