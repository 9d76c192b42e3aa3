"""Errors as HTTP answers: in OpenAI's format on its routes, as an `ErrorAnswer` on all others.

All refusals are made here, whether a route, one of its dependencies or a middleware refuses an exchange.
"""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Scope

from parrotserve.errors import LimitExceeded, ParrotError, Unauthorized
from parrotserve.protocol import ErrorAnswer, ErrorBody
from parrotserve.server import errors
from parrotserve.server.openai import errors as openai
from parrotserve.server.openai.answers import as_json


def refusal(scope: Scope, status: int, body: ErrorBody, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer to an exchange that is refused with `status`."""
    if openai.knows(scope["path"]):
        status = openai.status_of(status)
        told = as_json(openai.in_openais_words(body, status=status))
    else:
        told = ErrorAnswer(error=body).model_dump(mode="json")
    return JSONResponse(told, status_code=status, headers=headers)


def refusal_of(scope: Scope, error: ParrotError) -> JSONResponse:
    """The answer to an exchange that is refused with one of Parrot's own errors, which has a status."""
    headers = _headers(error) | (openai.headers(error) if openai.knows(scope["path"]) else {})
    return refusal(scope, error.status, ErrorBody.of(error), headers)


def _headers(error: ParrotError) -> dict[str, str]:
    if isinstance(error, Unauthorized) and error.status == Unauthorized.status:
        return {"WWW-Authenticate": "Bearer"}
    after = error.details.get("retry_after") if isinstance(error, LimitExceeded) else None
    return {"Retry-After": after} if after else {}


REFUSED = (ParrotError, RequestValidationError, HTTPException)
"""Exceptions that routes raise to refuse an exchange."""


def refusal_to(request: Request, error: Exception) -> JSONResponse:
    """The answer to an exchange whose route raised one of `REFUSED`."""
    if isinstance(error, ParrotError):
        return refusal_of(request.scope, error)
    if isinstance(error, RequestValidationError):
        return refusal(request.scope, 422, errors.invalid_request(error))
    assert isinstance(error, HTTPException)
    return refusal(request.scope, error.status_code, errors.of_http(request, error), dict(error.headers or {}))


def install(app: FastAPI) -> None:
    """Make the application answer the exceptions that routes raise."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        return refusal_to(request, error)

    for kind in REFUSED:
        app.add_exception_handler(kind, answer)
