"""Server-sent events, and waiting only for as long as the client is there."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Request
from sse_starlette import EventSourceResponse, ServerSentEvent

from parrotserve.errors import Cancelled, ParrotError
from parrotserve.protocol import Accepted, CallOffer, Delta, ErrorAnswer, ErrorBody, Failure, Value
from parrotserve.server import errors

T = TypeVar("T")
WireEvent = Accepted | Delta | Value | Failure | CallOffer

PING_SECONDS = 15


def event_stream(events: AsyncGenerator[WireEvent, None], *, numbered: bool = False) -> EventSourceResponse:
    """Events as they come. `numbered`: each has as `id` how many characters of the text the client has after it."""
    return EventSourceResponse(_sent(events, numbered), ping=PING_SECONDS, sep="\n")


async def _sent(events: AsyncGenerator[WireEvent, None], numbered: bool) -> AsyncIterator[ServerSentEvent]:
    async with aclosing(events) as open_events:
        try:
            async for event in open_events:
                place = _place(event) if numbered else None
                yield ServerSentEvent(event.model_dump_json(), event=event.event, id=place, sep="\n")
        except ParrotError as error:
            yield _error_event(ErrorBody.of(error))
        except Exception as error:
            yield _error_event(errors.internal_error(error))


def _error_event(body: ErrorBody) -> ServerSentEvent:
    return ServerSentEvent(ErrorAnswer(error=body).model_dump_json(), event="error", sep="\n")


def _place(event: WireEvent) -> str | None:
    match event:
        case Delta():
            return str(event.offset + len(event.text))
        case Value():
            return str(len(event.value))
        case _:
            return None


async def while_connected(request: Request, waiting: Coroutine[Any, Any, T]) -> T:
    """The result, unless the client leaves first: then the wait is dropped, so that it holds nothing for nobody."""
    result = asyncio.ensure_future(waiting)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({result, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise Cancelled("The client left.")
        return result.result()
    finally:
        for task in (result, gone):
            task.cancel()
        await asyncio.gather(result, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
