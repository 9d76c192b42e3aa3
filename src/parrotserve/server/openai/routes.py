"""The routes of OpenAI's API for chats and completions."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from starlette.responses import JSONResponse, Response

from parrotserve.ids import TenantId
from parrotserve.runtime.service import Service
from parrotserve.server.access import TheService, TheTenant
from parrotserve.server.bodies import BodyRoute
from parrotserve.server.openai.answers import ChatCompletion, Completion, as_json
from parrotserve.server.openai.asking import submission_of
from parrotserve.server.openai.errors import RESPONSES
from parrotserve.server.openai.exchange import Writing, answer_stream, answer_whole
from parrotserve.server.openai.submissions import Origin, chat_submission, completion_submission
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
            await submission_of(request, service, body, tenant, partial(chat_submission, body, origin=origin)), body
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
        submission = await submission_of(
            request, service, body, tenant, partial(completion_submission, body, origin=origin)
        )
        return CompletionWriter(submission, body)

    return await _answer(request, service, body, writing, tenant)


async def _answer(
    request: Request, service: Service, body: Generation, writing: Writing, tenant: TenantId
) -> JSONResponse | EventStream:
    if body.stream:
        return await answer_stream(request, service, writing, tenant)
    return JSONResponse(as_json(await answer_whole(request, service, writing, tenant)))
