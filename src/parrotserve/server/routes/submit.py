"""Submitting a batch of declarations."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

from fastapi import APIRouter
from fastapi.responses import Response
from fastapi.routing import APIRoute

from parrotserve.ids import TenantId
from parrotserve.protocol import Accepted, Submit
from parrotserve.runtime.service import Service, WaitEvent
from parrotserve.server.access import TheService, TheTenant
from parrotserve.server.bodies import SubmitRoute
from parrotserve.server.sse import PING_SECONDS, EventStream
from parrotserve.server.streams import event_stream

Declared = tuple[Accepted, AsyncGenerator[WaitEvent, None]]

router = APIRouter(tags=["submit"], route_class=SubmitRoute)


@router.post(
    "/v1/submit",
    response_model=Accepted,
    responses={
        200: {
            "description": "`Accepted`; with `wait`, an event stream of it and what was waited for.",
            "content": {"text/event-stream": {}},
        }
    },
)
async def submit(body: Submit, service: TheService, tenant: TheTenant) -> Response:
    """Declare variables, requests and native calls, whole or not at all, and wait for variables.

    With `wait` the answer is an event stream: `accepted`, then `delta`, `value` and `failure` events of what is
    waited for, as they come, until all of it is answered. A client that leaves cancels nothing.
    """
    if body.wait and service.reception.lacks(body):
        return await _patiently(service, body, tenant)
    accepted, events = await service.declare(body, tenant=tenant)
    if body.wait:
        return event_stream(events, first=accepted)
    return Response(accepted.model_dump_json(), media_type="application/json")


async def _patiently(service: Service, body: Submit, tenant: TenantId) -> EventStream:
    """The answer to a batch that names a model which is still to be fetched. The stream, with its pings, begins before
    the batch is accepted, since a client that hears nothing for minutes takes the service for dead. A refusal is then
    an event of the stream."""
    declaring = asyncio.ensure_future(service.declare(body, tenant=tenant))
    await asyncio.wait({declaring}, timeout=PING_SECONDS)
    if declaring.done():
        accepted, events = declaring.result()
        return event_stream(events, first=accepted)
    return event_stream(_declared(declaring))


async def _declared(declaring: "asyncio.Future[Declared]") -> AsyncGenerator[Accepted | WaitEvent, None]:
    # A client that leaves meanwhile cancels nothing: its batch is accepted like any other.
    declaring.add_done_callback(lambda one: one.cancelled() or one.exception())
    accepted, events = await asyncio.shield(declaring)
    async with aclosing(events):
        yield accepted
        async for event in events:
            yield event


route = cast("APIRoute", router.routes[0])
