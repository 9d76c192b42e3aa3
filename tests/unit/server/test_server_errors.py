"""One shape of errors, and the limits on every exchange, around an application of two routes."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from parrotserve.errors import AlreadyProduced, TooLarge
from parrotserve.protocol import PROTOCOL_HEADER, PROTOCOL_VERSION, ErrorAnswer, ErrorBody, Submit
from parrotserve.server import errors, refusals
from parrotserve.server.bodies import checked_submit
from parrotserve.server.middleware import BodyLimit, ProtocolVersion, Unexpected
from parrotserve.server.openai.answers import CompletionChoice
from parrotserve.server.openai.wire import ChatRequest

LIMIT = 2000


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()
    refusals.install(app)
    app.add_middleware(Unexpected)
    app.add_middleware(BodyLimit, most_bytes=lambda _: LIMIT)
    app.add_middleware(ProtocolVersion)

    @app.post("/submit")
    async def submit(body: Submit) -> str:
        return body.session

    @app.get("/refused")
    async def refused() -> None:
        raise AlreadyProduced("It has a value.", variable="v-1")

    @app.get("/bug")
    async def bug() -> None:
        raise KeyError(SECRET)

    @app.post("/reading")
    async def reading(request: Request) -> None:
        async for _ in request.stream():
            pass

    return app


@pytest.fixture
async def client(app: FastAPI):
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


SECRET = "a secret of the prompt"


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (Submit, {"session": "s", "requests": [{"id": "r", "segments": [{"kind": "text", "text": {"a": SECRET}}]}]}),
        (ChatRequest, {"messages": [{"role": "user", "content": {"a": SECRET}}]}),
        (CompletionChoice, {"index": SECRET, "text": SECRET, "logprobs": None, "finish_reason": None}),
    ],
)
def test_what_a_bug_makes_of_them_shows_no_prompts_in_the_log(model: type[BaseModel], body: dict[str, Any]):
    with pytest.raises(ValidationError) as error:
        model.model_validate(body)
    assert "validation error" in str(error.value)
    assert SECRET not in str(error.value)


def refusal_of(batch: dict[str, Any]) -> str:
    """What is said of a batch that `/v1/submit` refuses for its fields."""
    with pytest.raises(RequestValidationError) as refused:
        checked_submit(batch)
    return errors.invalid_request(refused.value).message


def error_of(answer: httpx.Response) -> ErrorBody:
    return ErrorAnswer.model_validate_json(answer.content).error


async def test_an_error_of_ours_travels_whole(client: httpx.AsyncClient):
    answer = await client.get("/refused")
    assert answer.status_code == 409
    assert error_of(answer) == ErrorBody(
        code="already_produced", message="It has a value.", details={"variable": "v-1"}
    )


async def test_a_bug_tells_nothing_but_that_it_is_one(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture):
    answer = await client.get("/bug")
    assert answer.status_code == 500
    assert error_of(answer).code == "internal_error"
    assert "secret" not in answer.text
    assert "KeyError" in caplog.text


async def test_a_client_that_leaves_within_its_body_is_no_bug(app: FastAPI, caplog: pytest.LogCaptureFixture):
    heard = [
        {"type": "http.request", "body": b"half", "more_body": True},
        {"type": "http.disconnect"},
    ]
    told: list[Any] = []

    async def receive() -> Any:
        return heard.pop(0)

    async def send(message: Any) -> None:
        told.append(message)

    scope = {"type": "http", "method": "POST", "path": "/reading", "query_string": b"", "headers": []}
    await app(scope, receive, send)
    assert not heard
    assert not told
    assert not caplog.records


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nowhere", 404, "unknown_object"), ("DELETE", "/submit", 405, "method_not_allowed")],
)
async def test_what_is_not_there_answers_in_the_same_shape(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
):
    answer = await client.request(method, path)
    assert (answer.status_code, error_of(answer).code) == (status, code)


async def test_a_wrong_body_is_told_where_it_is_wrong_but_not_repeated(client: httpx.AsyncClient):
    body = {"session": "s", "requests": [{"id": "r", "segments": [{"kind": "text", "txt": "my secret prompt"}]}]}
    answer = await client.post("/submit", json=body)
    error = error_of(answer)
    assert (answer.status_code, error.code) == (422, "invalid_request")
    assert "body.requests.0.segments.0.text" in error.message
    assert "secret" not in answer.text


def test_misspelt_fields_are_found_in_big_batches_too():
    requests = [{"id": f"r{number}", "segments": []} for number in range(5)]
    told = refusal_of({"session": "s", "requests": [*requests, {"id": "r", "segments": [], "chatt": True}]})
    assert told == "body.requests.5.chatt: there is no such field, but there is 'chat'."


async def test_a_sampling_that_nobody_could_honour_keeps_its_own_code(client: httpx.AsyncClient):
    output = {"kind": "output", "variable": "v", "sampling": {"max_tokens": 0}}
    answer = await client.post("/submit", json={"session": "s", "requests": [{"id": "r", "segments": [output]}]})
    assert (answer.status_code, error_of(answer).code) == (422, "invalid_sampling")
    assert "max_tokens" in error_of(answer).message


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 900, b'{"session":' + b'{"a":' * 200])
async def test_what_is_no_json_is_refused(client: httpx.AsyncClient, body: bytes):
    answer = await client.post("/submit", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in {400, 422}
    assert error_of(answer).code == "invalid_request"


@pytest.mark.parametrize("declared", [True, False])
async def test_bodies_above_the_limit_are_refused(client: httpx.AsyncClient, declared: bool):
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(LIMIT):
            yield b"12345678"

    answer = await client.post("/submit", content=b"1" * (LIMIT + 1) if declared else pieces())
    assert (answer.status_code, error_of(answer).code) == (413, TooLarge.code)


async def test_a_body_of_just_the_limit_is_read(client: httpx.AsyncClient):
    body = b'{"session": "s"}'.ljust(LIMIT)
    answer = await client.post("/submit", content=body, headers={"content-type": "application/json"})
    assert answer.json() == "s"


async def test_every_answer_names_the_protocols_version(client: httpx.AsyncClient):
    for path in ("/refused", "/nowhere", "/bug"):
        assert (await client.get(path)).headers[PROTOCOL_HEADER] == str(PROTOCOL_VERSION)


async def test_a_client_of_another_version_is_told_so(client: httpx.AsyncClient):
    answer = await client.get("/refused", headers={PROTOCOL_HEADER: "999"})
    assert (answer.status_code, error_of(answer).code) == (426, "incompatible_versions")
    assert answer.headers[PROTOCOL_HEADER] == str(PROTOCOL_VERSION)


async def test_a_client_of_the_same_version_is_welcome(client: httpx.AsyncClient):
    answer = await client.post("/submit", json={"session": "s"}, headers={PROTOCOL_HEADER: str(PROTOCOL_VERSION)})
    assert answer.json() == "s"
