"""Errors as OpenAI's API has them: their shape, their statuses, and OpenAI's codes if there is one that fits."""

from typing import Any

from parrotserve.errors import AlreadyProduced, Cancelled, ParrotError, RequestFailed
from parrotserve.protocol import ErrorBody
from parrotserve.server.openai.answers import OpenAIError, OpenAIErrorBody

RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": OpenAIError, "description": "What is wrong with the request."},
    "5XX": {"model": OpenAIError, "description": "What is wrong with the service."},
}
"""Error answers of the routes, for their description."""
_PLACES = ("chat", "completions", "responses", "models")
_THERE = "of OpenAI's API there are /v1/responses, /v1/chat/completions, /v1/completions and /v1/models"
_ABSENT = {
    "embeddings": f"models here write text; {_THERE}",
    "conversations": f"use previous_response_id of /v1/responses; {_THERE}",
    **dict.fromkeys(("assistants", "threads"), f"send conversations to /v1/responses; {_THERE}"),
    "batches": f"send requests as they are; those in streams or awaited go first; {_THERE}",
    **dict.fromkeys(
        (
            "moderations", "images", "audio", "videos", "realtime", "files", "uploads", "vector_stores", "containers",
            "fine_tuning", "evals",
        ),
        _THERE,
    ),
}  # fmt: skip
"""Paths below /v1 that OpenAI's API has and Parrot does not, and what to do instead."""
_CODES = {
    "unauthorized": "invalid_api_key",
    "unknown_model": "model_not_found",
    "context_exceeded": "context_length_exceeded",
    "limit_exceeded": "rate_limit_exceeded",
}
"""OpenAI's codes, on which clients act, for Parrot's. All other codes are Parrot's own."""
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def in_openais_words(body: ErrorBody, *, status: int) -> OpenAIError:
    """An error of this status in OpenAI's form."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    told = OpenAIErrorBody(
        message=body.message,
        type=kind,
        param=body.details.get("param"),
        code=_CODES.get(body.code, body.code),
        details={name: fact for name, fact in body.details.items() if name != "param"},
    )
    return OpenAIError(error=told)


def headers(error: ParrotError) -> dict[str, str]:
    """Headers that keep OpenAI's clients from retrying on their own, as they do after a 409 and statuses above 499: a
    request that has failed here would fail again, and one that ended an engine would end the next one."""
    lasting = isinstance(error, RequestFailed | Cancelled | AlreadyProduced)
    return {"x-should-retry": "false"} if lasting else {}


def knows(path: str) -> bool:
    """Whether this path belongs to OpenAI's API, whose clients expect its form of errors."""
    place = _place(path)
    return place in _PLACES or place in _ABSENT


def instead(path: str) -> str | None:
    """What to do instead of using a path of OpenAI's API that Parrot does not have; None for other paths."""
    return _ABSENT.get(_place(path))


def _place(path: str) -> str:
    return path.removeprefix("/v1/").partition("/")[0] if path.startswith("/v1/") else ""


def status_of(status: int) -> int:
    """The status as OpenAI's API has it, which answers 400 to every request that is not valid."""
    return 400 if status == 422 else status
