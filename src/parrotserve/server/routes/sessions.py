"""Sessions: listing them, looking at one, ending one."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse, Response

from parrotserve.errors import Forbidden
from parrotserve.explain import explain_view
from parrotserve.ids import SessionId, TenantId
from parrotserve.listing import SessionList
from parrotserve.protocol import SessionView
from parrotserve.runtime.views import session_json, session_view
from parrotserve.server.access import PathId, TheCaller, TheService, TheTenant

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

MOST_LISTED = 1000
"""Most sessions on one page."""


@router.get("")
async def sessions(
    service: TheService,
    caller: TheCaller,
    tenant: Annotated[TenantId | None, Query(description="Of this tenant alone; others' for operators.")] = None,
    after: Annotated[int, Query(ge=0, description="`next` of the page before.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED, description="Of one page.")] = 100,
) -> SessionList:
    """Sessions that live, in the order in which they were opened: the key's tenant's, with an operator's key all.

    Asking is no contact with any of them.
    """
    if not caller.operator:
        if tenant not in (None, caller.tenant):
            raise Forbidden("These are another tenant's: use a key made with `parrot key create --operator`.")
        tenant = caller.tenant
    found = service.sessions(tenant, after=after, most=limit)
    await service.committed()
    return found


@router.get("/{session}", response_model=SessionView)
async def look(session: PathId, service: TheService, tenant: TheTenant) -> Response:
    """The session's graph, with states, timings, and why requests run where and when they do."""
    view = await service.read_session(SessionId(session), session_json, tenant=tenant)
    return Response(view, media_type="application/json")


@router.get("/{session}/explain")
async def explain(session: PathId, service: TheService, tenant: TheTenant) -> PlainTextResponse:
    """The same for people: for each request its objective and why, what was found of its prompt, its engine and why not
    the others, and its times."""
    view = await service.read_session(
        SessionId(session), lambda picture: explain_view(session_view(picture)), tenant=tenant
    )
    return PlainTextResponse(view)


@router.delete("/{session}", status_code=204)
async def end(session: PathId, service: TheService, tenant: TheTenant) -> None:
    """Cancel what still runs in the session and free all of it."""
    service.end_session(SessionId(session), tenant=tenant)
    await service.committed()
