"""Variables of a session: waiting for one, setting it, streaming it, cancelling and retrying its producer."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request

from parrotserve.criteria import Criteria
from parrotserve.ids import SessionId, VariableId
from parrotserve.protocol import SetValue, Value
from parrotserve.server.access import PathId, TheService, TheTenant
from parrotserve.server.bodies import BodyRoute
from parrotserve.server.sse import DOCUMENTED, EventStream
from parrotserve.server.streams import event_stream, while_connected

router = APIRouter(prefix="/v1/sessions/{session}/variables/{variable}", tags=["variables"], route_class=BodyRoute)

Offset = Annotated[int, Query(ge=0, description="Characters that the client has already.")]
LastEventId = Annotated[int | None, Header(ge=0, description="Where a broken stream goes on: the last `id` seen.")]


@router.get("")
async def get(
    request: Request,
    session: PathId,
    variable: PathId,
    service: TheService,
    tenant: TheTenant,
    criteria: Criteria = Criteria.LATENCY,
    timeout: Annotated[float | None, Query(ge=0, description="Seconds; running out cancels nothing.")] = None,  # noqa: ASYNC109 - a query parameter
) -> Value:
    """Wait for the variable's value. A failure is an error answer with the cause."""
    waiting = service.wait(SessionId(session), VariableId(variable), criteria=criteria, timeout=timeout, tenant=tenant)
    return await while_connected(request, waiting)


@router.get("/stream", response_class=EventStream, responses=DOCUMENTED)
async def stream(
    session: PathId,
    variable: PathId,
    service: TheService,
    tenant: TheTenant,
    offset: Offset = 0,
    last_event_id: LastEventId = None,
) -> EventStream:
    """The variable's text as `delta` events while it grows, then one `value` or `failure`.

    Events are numbered by characters, so that a client that reconnects with `Last-Event-ID` misses nothing and gets
    nothing twice.
    """
    start = offset if last_event_id is None else last_event_id
    events = service.stream(SessionId(session), VariableId(variable), offset=start, tenant=tenant)
    return event_stream(events, numbered=True)


@router.put("", status_code=204)
async def put(session: PathId, variable: PathId, body: SetValue, service: TheService, tenant: TheTenant) -> None:
    """Give an EMPTY variable its value."""
    service.set_value(SessionId(session), VariableId(variable), body.value, tenant=tenant)
    await service.committed()


@router.delete("", status_code=204)
async def cancel(session: PathId, variable: PathId, service: TheService, tenant: TheTenant) -> None:
    """Cancel the variable's producer, and producers upstream that nothing else needs."""
    service.cancel_variable(SessionId(session), VariableId(variable), tenant=tenant)
    await service.committed()


@router.post("/retry", status_code=204)
async def retry(session: PathId, variable: PathId, service: TheService, tenant: TheTenant) -> None:
    """Run the failed or cancelled producer again, and what failed upstream of it."""
    service.retry(SessionId(session), VariableId(variable), tenant=tenant)
    await service.committed()
