"""The routes of OpenAI's Responses API."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from parrotserve.errors import DeclarationError
from parrotserve.ids import TenantId
from parrotserve.runtime.service import Service
from parrotserve.server.access import TheService, TheTenant
from parrotserve.server.bodies import BodyRoute
from parrotserve.server.openai.answers import Answer, as_json, json_text
from parrotserve.server.openai.asking import submission_of
from parrotserve.server.openai.errors import RESPONSES
from parrotserve.server.openai.exchange import answer_stream, answer_whole
from parrotserve.server.openai.responses.answers import Deletion, ItemList, ResponseAnswer
from parrotserve.server.openai.responses.chats import response_submission
from parrotserve.server.openai.responses.kept import Kept, KeptResponses
from parrotserve.server.openai.responses.listing import page_of, told_item
from parrotserve.server.openai.responses.wire import Item, ResponsesRequest
from parrotserve.server.openai.responses.writing import ResponseWriter
from parrotserve.server.openai.routes import IdempotencyKey
from parrotserve.server.openai.submissions import Origin

_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The response; with `stream`, its events as server-sent events.",
          "content": {"text/event-stream": {}}},
    **RESPONSES,
}  # fmt: skip
MOST_LISTED = 100
"""Most items on one page."""

router = APIRouter(prefix="/v1/responses", tags=["OpenAI-compatible"], route_class=BodyRoute)


@router.post("", response_model=ResponseAnswer, responses=_STREAMED)
async def respond(
    request: Request,
    body: ResponsesRequest,
    service: TheService,
    tenant: TheTenant,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Answer a conversation, as OpenAI's API does; with a `parrot` object, as a part of a program."""
    kept = _kept(request)
    earlier, characters = await _earlier(request, service, body, tenant)
    keeps = body.may_be_kept and kept.has_room(service.directory.limits(tenant))
    origin = Origin.of(body, tenant=tenant, key=idempotency_key, kept=keeps)

    async def writing() -> ResponseWriter:
        convert = partial(response_submission, body, earlier, origin=origin)
        submission = await submission_of(request, service, body, tenant, convert, more=characters)
        completed = partial(kept.keep, service, origin.session, submission.noted, tenant) if keeps else None
        return ResponseWriter(submission, body, completed=completed)

    if body.stream:
        return await answer_stream(request, service, writing, tenant, end=None)
    return _sent(await answer_whole(request, service, writing, tenant))


@router.get("/{response}", response_model=ResponseAnswer, responses=RESPONSES)
async def look(
    request: Request,
    response: str,
    service: TheService,
    tenant: TheTenant,
    stream: Annotated[
        bool, Query(description="Not served: a response is streamed to the request that makes it.")
    ] = False,
) -> Response:
    """A response that is kept, with its answer if there is one yet."""
    if stream:
        raise DeclarationError("A response is streamed only to the request that makes it.", param="stream")
    found = await _kept(request).find(service, response, tenant, param="response_id")
    return _sent(await _told(request, service, found, tenant))


@router.get("/{response}/input_items", response_model=ItemList, responses=RESPONSES)
async def input_items(
    request: Request,
    response: str,
    service: TheService,
    tenant: TheTenant,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str | None, Query(description="`last_id` of the page before.")] = None,
) -> Response:
    """The conversation that a response answers, with that of the responses before it."""
    found = await _kept(request).find(service, response, tenant, param="response_id")
    items = [told_item(item, found.session, number) for number, item in enumerate(found.record.items)]
    page = page_of(items if order == "asc" else items[::-1], after=after, most=limit)
    return _sent(page)


@router.delete("/{response}", response_model=Deletion, responses=RESPONSES)
async def delete(request: Request, response: str, service: TheService, tenant: TheTenant) -> Response:
    """Forget a response; if it is still being written, cancel that."""
    kept = _kept(request)
    found = await kept.find(service, response, tenant, param="response_id")
    kept.forget(service, found.session, tenant)
    await service.committed()
    return _sent(Deletion(id=response, object="response", deleted=True))


def _sent(answer: Answer) -> Response:
    return Response(json_text(as_json(answer), (",", ":")), media_type="application/json")


def _kept(request: Request) -> KeptResponses:
    return request.app.state.responses


async def _earlier(
    request: Request, service: Service, body: ResponsesRequest, tenant: TenantId
) -> tuple[Sequence[Item], int]:
    """The conversation that a body continues, and about how many characters it has."""
    if body.previous_response_id is None:
        return (), 0
    found = await _kept(request).find(service, body.previous_response_id, tenant, param="previous_response_id")
    if not found.state.is_answered:
        raise DeclarationError(
            f"{body.previous_response_id} has no answer that could be continued: it is in progress, or has failed.",
            param="previous_response_id",
        )
    answer = await _told(request, service, found, tenant)
    output = [Item.model_validate(as_json(item)) for item in answer.output]
    return [*found.record.items, *output], len(found.state.note)


async def _told(request: Request, service: Service, found: Kept, tenant: TenantId) -> ResponseAnswer:
    """A response that is kept, as it is told."""
    body, state = found.record.body, found.state
    convert = partial(response_submission, body, found.record.earlier, origin=found.origin)
    submission = await submission_of(request, service, body, tenant, convert, more=len(state.note))
    writer = ResponseWriter(submission, body, created=found.created)
    if state.error is not None:
        return writer.failed(state.error)
    if not state.is_answered:
        return writer.whole((), ())
    value = await service.wait(found.session, state.variable, tenant=tenant)
    return writer.whole([value], [await service.request_usage(found.session, state.request, tenant=tenant)])
