"""The routes of OpenAI's API for chats and completions."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from starlette.responses import JSONResponse, Response

from parrotserve.ids import TenantId
from parrotserve.runtime.catalog import ServedModel
from parrotserve.runtime.render import LONG_TEXT
from parrotserve.runtime.service import Service
from parrotserve.server.access import TheService, TheTenant
from parrotserve.server.bodies import BodyRoute
from parrotserve.server.openai.answers import ChatCompletion, Completion, as_json
from parrotserve.server.openai.errors import RESPONSES
from parrotserve.server.openai.exchange import Writing, answer_stream, answer_whole
from parrotserve.server.openai.submissions import Asked, Origin, Submission, chat_submission, completion_submission
from parrotserve.server.openai.wire import ChatRequest, CompletionRequest, Generation
from parrotserve.server.openai.writing import ChatWriter, CompletionWriter
from parrotserve.server.sse import EventStream

IdempotencyKey = Annotated[
    str | None,
    Header(
        max_length=255,
        description="A request that comes again with the same key joins the first one instead of running anew, and a "
        "client that leaves cancels nothing.",
    ),
]

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The answer; with `stream`, chunks of it as server-sent events, then `[DONE]`.",
          "content": {"text/event-stream": {}}},
    **RESPONSES,
}  # fmt: skip

router = APIRouter(prefix="/v1", tags=["OpenAI-compatible"], route_class=BodyRoute)


@router.post("/chat/completions", response_model=ChatCompletion, responses=_RESPONSES)
async def chat(
    request: Request, body: ChatRequest, service: TheService, tenant: TheTenant, idempotency_key: IdempotencyKey = None
) -> Response:
    """Answer a conversation, as OpenAI's API does; with a `parrot` object, as a part of a program."""
    origin = Origin.of(body, tenant=tenant, key=idempotency_key)

    async def writing() -> ChatWriter:
        return ChatWriter(
            await _submission(request, service, body, tenant, partial(chat_submission, body, origin=origin)), body
        )

    return await _answer(request, service, body, writing, tenant)


@router.post("/completions", response_model=Completion, responses=_RESPONSES)
async def complete(
    request: Request,
    body: CompletionRequest,
    service: TheService,
    tenant: TheTenant,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Write on from a prompt, as OpenAI's API does; with a `parrot` object, as a part of a program."""
    origin = Origin.of(body, tenant=tenant, key=idempotency_key)

    async def writing() -> CompletionWriter:
        submission = await _submission(
            request, service, body, tenant, partial(completion_submission, body, origin=origin)
        )
        return CompletionWriter(submission, body)

    return await _answer(request, service, body, writing, tenant)


async def _submission(
    request: Request, service: Service, body: Generation, tenant: TenantId, convert: Callable[..., Submission]
) -> Submission:
    """The submission of a body. If its model is yet to be fetched, other errors are raised before."""
    unfetched = service.reception.unfetched(body.model)
    if unfetched is not None:
        asked = _asked(service, body, tenant, unfetched, unfetched.context_length)
        submission = await _converted(request, partial(convert, asked=asked))
        if not submission.submit.requests:
            return submission  # for an output that was declared before, which needs no model
        await service.reception.rehearse(submission.submit, tenant)
    model = await (service.model(body.model) if unfetched is None else _model(service, body))
    asked = _asked(service, body, tenant, model, service.model_view(model.name).context_length)
    return await _converted(request, partial(convert, asked=asked))


async def _model(service: Service, body: Generation) -> ServedModel:
    """The body's model, fetched if need be. A client that leaves does not stop that: others may wait for it, or this
    one may ask again."""
    fetching = asyncio.ensure_future(service.model(body.model))
    fetching.add_done_callback(lambda one: one.cancelled() or one.exception())
    return await asyncio.shield(fetching)


def _asked(service: Service, body: Generation, tenant: TenantId, model: ServedModel, context_length: int) -> Asked:
    usual = service.usual_output(tenant, texts=max(1, body.texts))
    return Asked(model, context_length, min(context_length, usual or context_length))


async def _converted(request: Request, convert: Callable[[], Submission]) -> Submission:
    """Run the conversion, for a long body in a thread, so that the event loop is not blocked."""
    length = request.headers.get("content-length", "")
    short = length.isdecimal() and int(length) <= LONG_TEXT
    return convert() if short else await asyncio.to_thread(convert)


async def _answer(
    request: Request, service: Service, body: Generation, writing: Writing, tenant: TenantId
) -> JSONResponse | EventStream:
    if body.stream:
        return await answer_stream(request, service, writing, tenant)
    return JSONResponse(as_json(await answer_whole(request, service, writing, tenant)))
