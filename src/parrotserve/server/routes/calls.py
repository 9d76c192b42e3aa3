"""Native calls of a session: handing them out to its client, and taking their results."""

from typing import Annotated

from fastapi import APIRouter, Query

from parrotserve.ids import CallId, SessionId
from parrotserve.protocol import CallResult, CallState
from parrotserve.server.access import PathId, TheService, TheTenant
from parrotserve.server.bodies import BodyRoute
from parrotserve.server.sse import DOCUMENTED, EventStream
from parrotserve.server.streams import event_stream

router = APIRouter(prefix="/v1/sessions/{session}/calls", tags=["calls"], route_class=BodyRoute)


@router.get("", response_class=EventStream, responses=DOCUMENTED)
async def take(session: PathId, service: TheService, tenant: TheTenant) -> EventStream:
    """`call` events: native calls whose inputs are ready, until the session ends.

    A call is with one connection at a time; if that ends without an answer, the next connection gets it.
    """
    return event_stream(service.calls(SessionId(session), tenant=tenant))


@router.put("/{call}")
async def answer(
    session: PathId,
    call: PathId,
    body: CallResult,
    service: TheService,
    tenant: TheTenant,
    attempt: Annotated[int | None, Query(ge=1)] = None,
) -> CallState:
    """A call's value, or why it failed; answered with what the call is then. A result that comes too late is ignored,
    and so is that of an earlier `attempt` than the last."""
    state = service.put_result(SessionId(session), CallId(call), body, attempt=attempt, tenant=tenant)
    await service.committed()
    return state
