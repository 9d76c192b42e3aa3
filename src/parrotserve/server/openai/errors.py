"""Errors in OpenAI's words: its shape, its statuses, and its codes where clients know them."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from parrotserve.errors import ParrotError
from parrotserve.protocol import ErrorBody
from parrotserve.server import errors
from parrotserve.server.bodies import BodyRoute
from parrotserve.server.openai.answers import OpenAIError, OpenAIErrorBody, as_json

_CODES = {
    "unknown_model": "model_not_found",
    "context_exceeded": "context_length_exceeded",
    "limit_exceeded": "rate_limit_exceeded",
}
"""Clients act on these; all other codes are Parrot's own."""
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def in_openais_words(body: ErrorBody, *, status: int) -> OpenAIError:
    """An error that would be answered with this status."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    told = OpenAIErrorBody(
        message=body.message,
        type=kind,
        param=body.details.get("param"),
        code=_CODES.get(body.code, body.code),
        details={name: fact for name, fact in body.details.items() if name != "param"},
    )
    return OpenAIError(error=told)


class OpenAIRoute(BodyRoute):
    """A route whose errors are in OpenAI's words, those of its dependencies included."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, with errors translated."""
        handle = super().get_route_handler()

        async def translated(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                return _answer(400, errors.invalid_request(error))
            except HTTPException as error:
                return _answer(error.status_code, errors.of_http(request, error), dict(error.headers or {}))
            except ParrotError as error:
                headers = dict(errors.answer_error(error).headers)
                return _answer(error.status, ErrorBody.of(error), headers)

        return translated


def _answer(status: int, body: ErrorBody, headers: dict[str, str] | None = None) -> JSONResponse:
    """OpenAI answers 400 to whatever is wrong with a request; its clients have no other class for it."""
    status = 400 if status == 422 else status
    kept = {name: value for name, value in (headers or {}).items() if not name.startswith("content-")}
    return JSONResponse(as_json(in_openais_words(body, status=status)), status_code=status, headers=kept)
