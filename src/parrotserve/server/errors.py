"""Error answers: what clients are told about errors. A traceback never leaves the service."""

import http
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from parrotserve.errors import InternalError, TooLarge, UnknownObject
from parrotserve.protocol import ErrorAnswer, ErrorBody
from parrotserve.server.openai.errors import instead
from parrotserve.server.problems import problems_in
from parrotserve.settings import show_size

log = logging.getLogger(__name__)

INVALID_REQUEST = "invalid_request"
RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "What is wrong with the request."},
    "5XX": {"model": ErrorAnswer, "description": "What is wrong with the service."},
}
"""OpenAPI responses with errors, which every route may give."""
MOST_PROBLEMS = 5
"""Most problems of one body that are reported."""
_LONGEST_PLACE = 200
_OPENAI_PATH = re.compile(r"/(?:chat/completions|completions|responses|models(?:/[^/]+)?)/?$")
"""Ends of the paths that OpenAI's clients request."""


def internal_error(error: Exception) -> ErrorBody:
    """The answer to a bug, without details. They go to the log."""
    log.error("unexpected error in an exchange", exc_info=error)
    return ErrorBody.of(InternalError("The service hit an unexpected error; its log has the details."))


def too_large(max_bytes: int) -> ErrorBody:
    """The answer to a body larger than `max_bytes`."""
    return ErrorBody.of(
        TooLarge(f"The body is larger than {show_size(max_bytes)}, the most that is accepted from you.")
    )


def of_http(request: Request, error: HTTPException) -> ErrorBody:
    """The answer to an error that the framework raised."""
    if error.status_code == 404:
        base = "the base URL of OpenAI's clients ends in /v1 here" if _misses_base(request.url.path) else "see /docs"
        hint = instead(request.url.path) or base
        return ErrorBody.of(UnknownObject(f"There is nothing at {request.method} {request.url.path}; {hint}."))
    if error.status_code == 413:
        return ErrorBody(code=TooLarge.code, message=error.detail)
    if error.status_code == 400:
        return ErrorBody(code=INVALID_REQUEST, message=f"The body cannot be read as JSON: {error.detail}.")
    code = http.HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return ErrorBody(code=code, message=f"{request.method} {request.url.path}: {error.detail}.")


def _misses_base(path: str) -> bool:
    """Whether a path looks like an OpenAI client's with a wrong base URL."""
    return _OPENAI_PATH.search(path) is not None


def invalid_request(error: RequestValidationError) -> ErrorBody:
    """The answer to a request that does not conform to the protocol; `param` is the first wrong place."""
    problems = tuple(error.errors())
    if any(problem["type"] == "json_invalid" for problem in problems):
        return ErrorBody(code=INVALID_REQUEST, message=_no_json(problems), details={"param": "body"})
    wrong = problems_in(problems, error.body)
    told = [f"{_place(one.place)}: {one.what}" for one in wrong[:MOST_PROBLEMS]]
    more = f"; and {len(wrong) - len(told)} more" if len(wrong) > len(told) else ""
    first = wrong[0].place
    return ErrorBody(
        code=INVALID_REQUEST,
        message="; ".join(told) + f"{more}.",
        details={"param": _place(first[1:] if len(first) > 1 else first)},
    )


def _no_json(problems: Sequence[Mapping[str, Any]]) -> str:
    why = "; ".join(str(problem.get("ctx", {}).get("error", "")) for problem in problems)
    _, *position = problems[0]["loc"]
    return f"The body cannot be read as JSON: {why}{f' (at character {position[0]})' if position else ''}."


def _place(location: Sequence[object]) -> str:
    place = ".".join(str(part) for part in location)
    return place if len(place) <= _LONGEST_PLACE else place[:_LONGEST_PLACE] + "..."
