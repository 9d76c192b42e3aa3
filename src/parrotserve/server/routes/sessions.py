"""Sessions: looking at one, ending one."""

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from parrotserve.explain import explain_view
from parrotserve.ids import SessionId
from parrotserve.protocol import SessionView
from parrotserve.server.access import PathId, TheService, TheTenant

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])


@router.get("/{session}")
async def look(session: PathId, service: TheService, tenant: TheTenant) -> SessionView:
    """The session's graph, with states, timings, and why requests run where and when they do."""
    return service.session_view(SessionId(session), tenant=tenant)


@router.get("/{session}/explain")
async def explain(session: PathId, service: TheService, tenant: TheTenant) -> PlainTextResponse:
    """The same for people: for each request its objective and why, what was found of its prompt, its engine and why not
    the others, and its times."""
    return PlainTextResponse(explain_view(service.session_view(SessionId(session), tenant=tenant)))


@router.delete("/{session}", status_code=204)
async def end(session: PathId, service: TheService, tenant: TheTenant) -> None:
    """Cancel what still runs in the session and free all of it."""
    service.end_session(SessionId(session), tenant=tenant)
