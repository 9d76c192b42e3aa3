"""Answers of routes: a stream of events, or one result that is awaited only while the client is connected."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Request

from parrotserve.errors import Cancelled, ParrotError
from parrotserve.protocol import Accepted, CallOffer, Delta, ErrorAnswer, ErrorBody, Failure, Value
from parrotserve.server import errors
from parrotserve.server.sse import EventStream, encoded, left

T = TypeVar("T")
WireEvent = Accepted | Delta | Value | Failure | CallOffer


def event_stream(
    events: AsyncGenerator[WireEvent, None], *, first: Accepted | None = None, numbered: bool = False
) -> EventStream:
    """An answer with `first`, then events as they come. If `numbered`, the `id` of an event is the number of characters
    of the text that the client has after it."""
    return EventStream(_sent(events, first, numbered))


async def _sent(
    events: AsyncGenerator[WireEvent, None], first: Accepted | None, numbered: bool
) -> AsyncGenerator[bytes, None]:
    async with aclosing(events) as open_events:
        try:
            if first is not None:
                yield _event(first)
            async for one in open_events:
                yield _event(one, _place(one) if numbered else None)
        except ParrotError as error:
            yield _error_event(ErrorBody.of(error))
        except Exception as error:
            yield _error_event(errors.internal_error(error))


def _event(one: WireEvent, place: str | None = None) -> bytes:
    # Clients of before there were attempts refuse the field, and a first attempt does not need it.
    untold = {"attempt"} if isinstance(one, CallOffer) and one.attempt == 1 else None
    return encoded(one.model_dump_json(exclude=untold), name=one.event, id=place)


def _error_event(body: ErrorBody) -> bytes:
    return encoded(ErrorAnswer(error=body).model_dump_json(), name="error")


def _place(event: WireEvent) -> str | None:
    match event:
        case Delta():
            return str(event.offset + len(event.text))
        case Value():
            return str(len(event.value))
        case _:
            return None


async def while_connected(request: Request, waiting: Coroutine[Any, Any, T]) -> T:
    """The result of `waiting`, which is cancelled if the client leaves first, so that it does not hold resources for
    nobody. Raises `Cancelled` then."""
    result = asyncio.ensure_future(waiting)
    gone = asyncio.ensure_future(left(request.receive))
    try:
        await asyncio.wait({result, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise Cancelled("The client left.")
        return result.result()
    finally:
        for task in (result, gone):
            task.cancel()
        await asyncio.gather(result, gone, return_exceptions=True)
