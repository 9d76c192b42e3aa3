"""Declaring a batch."""

from typing import cast

from fastapi import APIRouter
from fastapi.responses import Response
from fastapi.routing import APIRoute

from parrotserve.protocol import Accepted, Submit
from parrotserve.server.access import TheService, TheTenant
from parrotserve.server.bodies import SubmitRoute
from parrotserve.server.streams import event_stream

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
    accepted, events = await service.declare(body, tenant=tenant)
    if body.wait:
        return event_stream(events, first=accepted)
    return Response(accepted.model_dump_json(), media_type="application/json")


route = cast("APIRoute", router.routes[0])
