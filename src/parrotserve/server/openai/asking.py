"""Asking the service: the submission that a body stands for, with its model fetched if need be."""

import asyncio
from collections.abc import Callable
from functools import partial

from fastapi import Request

from parrotserve.ids import TenantId
from parrotserve.runtime.catalog import ServedModel
from parrotserve.runtime.render import LONG_TEXT
from parrotserve.runtime.service import Service
from parrotserve.server.openai.submissions import Asked, Submission
from parrotserve.server.openai.wire import Generation


async def submission_of(
    request: Request,
    service: Service,
    body: Generation,
    tenant: TenantId,
    convert: Callable[..., Submission],
    *,
    more: int = 0,
) -> Submission:
    """The submission of a body, which `convert` makes of it and of so many `more` characters. If its model is yet to be
    fetched, other errors are raised before."""
    unfetched = service.reception.unfetched(body.model)
    if unfetched is not None:
        asked = _asked(service, body, tenant, unfetched, unfetched.context_length)
        submission = await _converted(request, partial(convert, asked=asked), more)
        if not submission.submit.requests:
            return submission  # for an output that was declared before, which needs no model
        await service.reception.rehearse(submission.submit, tenant)
    model = await (service.model(body.model) if unfetched is None else _model(service, body))
    asked = _asked(service, body, tenant, model, service.model_view(model.name).context_length)
    return await _converted(request, partial(convert, asked=asked), more)


async def _model(service: Service, body: Generation) -> ServedModel:
    """The body's model, fetched if need be. A client that leaves does not stop that: others may wait for it, or this
    one may ask again."""
    fetching = asyncio.ensure_future(service.model(body.model))
    fetching.add_done_callback(lambda one: one.cancelled() or one.exception())
    return await asyncio.shield(fetching)


def _asked(service: Service, body: Generation, tenant: TenantId, model: ServedModel, context_length: int) -> Asked:
    usual = service.usual_output(tenant, texts=max(1, body.texts))
    return Asked(model, context_length, min(context_length, usual or context_length))


async def _converted(request: Request, convert: Callable[[], Submission], more: int) -> Submission:
    """Run the conversion, for long texts in a thread, so that the event loop is not blocked."""
    length = request.headers.get("content-length", "0" if request.method == "GET" else "")
    short = length.isdecimal() and int(length) + more <= LONG_TEXT
    return convert() if short else await asyncio.to_thread(convert)
