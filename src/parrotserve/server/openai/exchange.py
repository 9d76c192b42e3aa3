"""Carrying out a submission: declaring its batch, waiting for it, and ending its session if that is its own."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

from fastapi import Request

from parrotserve.errors import (
    Cancelled,
    ContextExceeded,
    InvalidGraph,
    InvalidSchema,
    ParrotError,
    RequestFailed,
    RequestRefused,
)
from parrotserve.ids import TenantId
from parrotserve.protocol import Delta, ErrorBody, Failure, Value
from parrotserve.runtime.service import Service
from parrotserve.sampling import Usage
from parrotserve.server.errors import internal_error
from parrotserve.server.openai.answers import Answer, as_json, json_text
from parrotserve.server.openai.errors import in_openais_words
from parrotserve.server.openai.submissions import Submission
from parrotserve.server.openai.writing import Writer
from parrotserve.server.sse import PING_SECONDS, EventStream, encoded
from parrotserve.server.streams import while_connected

_DONE = "[DONE]"
_END = object()

Events = AsyncGenerator[Delta | Value | Failure, None]


Writing = Callable[[], Awaitable[Writer]]
"""Makes the writer of the answer to a body; waits until its model is fetched."""


async def answer_whole(request: Request, service: Service, writing: Writing, tenant: TenantId) -> Answer:
    """The answer in one piece. If the client leaves, the submission ends with its session."""
    return await while_connected(request, _whole(service, writing, tenant))


async def answer_stream(
    request: Request, service: Service, writing: Writing, tenant: TenantId, *, end: str | None = _DONE
) -> EventStream:
    """The answer as a stream of chunks, and `end` after them.

    A failure before the first chunk is raised, so that the answer can have its status. A client that has to wait longer
    gets the headers before that, and then comments that show that the service is alive.
    """
    chunks = _streamed(service, writing, tenant)
    first = asyncio.ensure_future(_next(chunks))
    try:
        await while_connected(request, _settled(first))
    except BaseException:
        await _drop(first, chunks)
        raise
    return EventStream(_sent(first, chunks, end))


async def _whole(service: Service, writing: Writing, tenant: TenantId) -> Answer:
    writer = await writing()
    submission = writer.submission
    if not submission.wait:
        await _declare(service, submission, tenant)
        return writer.whole((), ())
    values: dict[str, Value] = {}
    async with _running(service, submission, tenant) as events:
        async for event in events:
            if isinstance(event, Failure):
                raise _error_of(event, submission)
            if isinstance(event, Value):
                values[event.variable] = event
        used = await _used(service, submission, tenant)
    return writer.whole([values[variable] for variable in submission.variables], used)


async def _streamed(service: Service, writing: Writing, tenant: TenantId) -> AsyncGenerator[Answer, None]:
    writer = await writing()
    submission = writer.submission
    choices = {variable: index for index, variable in enumerate(submission.variables)}
    begun: set[int] = set()
    try:
        async with _running(service, submission, tenant) as events:
            async for event in events:
                if isinstance(event, Failure):
                    raise _error_of(event, submission)
                choice = choices[event.variable]
                pieces = [] if choice in begun else writer.begin(choice)
                begun.add(choice)
                pieces += writer.grow(choice, event) if isinstance(event, Delta) else writer.finish(choice, event)
                for piece in pieces:
                    yield piece
            # Requests that the submission declared are waited for in any case: a session of its own ends next.
            used = await _used(service, submission, tenant) if submission.requests or writer.include_usage else []
        last = writer.total(used)  # outside, because a client may leave as soon as it has these
    except Exception as error:
        last = writer.fail(error) if begun else []
        if not last:
            raise
    for piece in last:
        yield piece


@asynccontextmanager
async def _running(service: Service, submission: Submission, tenant: TenantId) -> AsyncGenerator[Events]:
    """The submission's events. A session of its own ends with it. One that belongs to an Idempotency-Key, which
    repetitions of the request would join, ends if the submission has failed, so that they run it anew; and one that
    keeps the answer ends if nobody got it."""
    origin, failed, answered = submission.origin, False, False
    try:
        async with aclosing(await _declare(service, submission, tenant)) as events:
            yield events
        answered = True
    except (RequestFailed, Cancelled):
        failed = True
        raise
    finally:
        left = origin.kept and not origin.repeatable and not answered
        if not origin.keeps_session or left or (failed and origin.session == origin.base):
            with contextlib.suppress(RequestRefused):
                service.end_session(origin.session, tenant=tenant)


async def _declare(service: Service, submission: Submission, tenant: TenantId) -> Events:
    try:
        lasting = submission.origin.keeps_session
        _, events = await service.declare(submission.submit, tenant=tenant, lasting=lasting)
    except InvalidSchema as refused:
        if submission.schema_field is not None:
            refused.details.setdefault("param", submission.schema_field)
        raise
    except InvalidGraph as refused:
        if submission.origin.repeatable and refused.details.get("id", "").startswith(submission.origin.base):
            raise InvalidGraph(
                "This Idempotency-Key came with another request before; use a fresh one for each.",
                param="Idempotency-Key",
            ) from refused
        raise
    return events


def _error_of(failure: Failure, submission: Submission) -> ParrotError:
    """The error of a choice that failed; if its prompt is too long, with the field of the prompt."""
    error = failure.error.to_error()
    if isinstance(error, ContextExceeded) and submission.prompt_field is not None and "upstream" not in error.details:
        error.details.setdefault("param", submission.prompt_field)
    return error


async def _used(service: Service, submission: Submission, tenant: TenantId) -> list[Usage]:
    """Usage of the submission's requests; for an output that was declared before, of the request that produces it."""
    requests = submission.requests
    if not requests:
        producers = [
            service.request_of(submission.origin.session, each, tenant=tenant) for each in submission.variables
        ]
        requests = tuple(producer for producer in producers if producer is not None)
    return [await service.request_usage(submission.origin.session, request, tenant=tenant) for request in requests]


# --- Streams ------------------------------------------------------------------------------------------------


async def _next(chunks: AsyncGenerator[Answer, None]) -> Answer | object:
    return await anext(chunks, _END)


async def _settled(first: "asyncio.Future[Answer | object]") -> None:
    """Wait for the first chunk, but no longer than `PING_SECONDS`. Raises the error that comes instead of it."""
    await asyncio.wait({first}, timeout=PING_SECONDS)
    if first.done():
        first.result()


async def _drop(first: "asyncio.Future[Answer | object]", chunks: AsyncGenerator[Answer, None]) -> None:
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await chunks.aclose()


def _event(chunk: Answer) -> bytes:
    return encoded(json_text(as_json(chunk), (",", ":")), name=chunk.event_name)


async def _sent(
    first: "asyncio.Future[Answer | object]", chunks: AsyncGenerator[Answer, None], end: str | None
) -> AsyncGenerator[bytes, None]:
    try:
        chunk = await first
        while isinstance(chunk, Answer):
            yield _event(chunk)
            chunk = await _next(chunks)
        if end is not None:
            yield encoded(end)
    except ParrotError as error:
        yield _event(in_openais_words(ErrorBody.of(error), status=error.status))
    except Exception as error:
        yield _event(in_openais_words(internal_error(error), status=500))
    finally:
        await _drop(first, chunks)
