"""Every answer that is an error has one shape: `ErrorAnswer`. A traceback never leaves the service."""

import http
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from parrotserve.errors import LimitExceeded, ParrotError, TooLarge, Unauthorized, UnknownObject
from parrotserve.protocol import ErrorAnswer, ErrorBody
from parrotserve.settings import show_size

log = logging.getLogger(__name__)

INVALID_REQUEST = "invalid_request"
INTERNAL_ERROR = "internal_error"
RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "What is wrong with the request."},
    "5XX": {"model": ErrorAnswer, "description": "What is wrong with the service."},
}
"""What every route may answer instead of what it is for."""
_MOST_PROBLEMS = 5
_OURS = "Value error, "
"""What pydantic puts before sentences of our own."""
_LONGEST_PLACE = 200


def answer(status: int, body: ErrorBody, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error as HTTP carries it."""
    return JSONResponse(ErrorAnswer(error=body).model_dump(mode="json"), status_code=status, headers=headers)


def answer_error(error: ParrotError) -> JSONResponse:
    """One of Parrot's own errors, with its status."""
    return answer(error.status, ErrorBody.of(error), _headers(error))


def _headers(error: ParrotError) -> dict[str, str]:
    if isinstance(error, Unauthorized) and error.status == Unauthorized.status:
        return {"WWW-Authenticate": "Bearer"}
    after = error.details.get("retry_after") if isinstance(error, LimitExceeded) else None
    return {"Retry-After": after} if after else {}


def internal_error(error: Exception) -> ErrorBody:
    """What a client is told of a bug; the log gets the whole of it."""
    log.error("unexpected error in an exchange", exc_info=error)
    return ErrorBody(code=INTERNAL_ERROR, message="The service hit an unexpected error; its log has the details.")


def too_large(max_bytes: int) -> ErrorBody:
    """Why a body is refused."""
    return ErrorBody.of(
        TooLarge(f"The body is larger than {show_size(max_bytes)}, the most that is taken here of you.")
    )


def install(app: FastAPI) -> None:
    """Make every kind of error answer in the one shape."""

    @app.exception_handler(ParrotError)
    async def _(_request: Request, error: ParrotError) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        return answer_error(error)

    @app.exception_handler(RequestValidationError)
    async def _(_request: Request, error: RequestValidationError) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        return answer(422, invalid_request(error))

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        return answer(error.status_code, of_http(request, error), dict(error.headers or {}))


def of_http(request: Request, error: HTTPException) -> ErrorBody:
    """What a client is told of an error that the framework raised."""
    if error.status_code == 404:
        return ErrorBody.of(UnknownObject(f"There is nothing at {request.method} {request.url.path}; see /docs."))
    if error.status_code == 413:
        return ErrorBody(code=TooLarge.code, message=error.detail)
    if error.status_code == 400:
        return ErrorBody(code=INVALID_REQUEST, message=f"The body cannot be read as JSON: {error.detail}.")
    code = http.HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return ErrorBody(code=code, message=f"{request.method} {request.url.path}: {error.detail}.")


def invalid_request(error: RequestValidationError) -> ErrorBody:
    """What a client is told of a request that is not of the protocol; `param` is the first place that is wrong."""
    problem = error.errors()[0]
    first = problem["loc"]
    inside = first[1:] if len(first) > 1 and problem["type"] != "json_invalid" else first[:1]
    return ErrorBody(code=INVALID_REQUEST, message=_problems(error), details={"param": _place(inside)})


def _problems(error: RequestValidationError) -> str:
    """Where the request is wrong and how, without repeating what it holds."""
    problems = error.errors()
    if any(problem["type"] == "json_invalid" for problem in problems):
        why = "; ".join(str(problem.get("ctx", {}).get("error", "")) for problem in problems)
        _, *position = problems[0]["loc"]
        return f"The body cannot be read as JSON: {why}{f' (at character {position[0]})' if position else ''}."
    told = [f"{_place(problem['loc'])}: {problem['msg'].removeprefix(_OURS)}" for problem in problems[:_MOST_PROBLEMS]]
    more = len(problems) - len(told)
    return "; ".join(told) + (f"; and {more} more" if more > 0 else "") + "."


def _place(location: tuple[object, ...]) -> str:
    place = ".".join(str(part) for part in location)
    return place if len(place) <= _LONGEST_PLACE else place[:_LONGEST_PLACE] + "..."
