"""Bad requests over raw HTTP."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from bad_input import unharmed

import Parrot as P
from parrotserve.protocol import ErrorAnswer, ErrorBody


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30) as client, P.connect(url):
        yield client


@pytest.fixture
def http(client: httpx.Client) -> Iterator[httpx.Client]:
    with unharmed():
        yield client


def refused(answer: httpx.Response) -> tuple[int, str]:
    """The status and code of an error, which has the one shape and no traceback."""
    error = ErrorAnswer.model_validate_json(answer.content).error
    assert "Traceback" not in answer.text
    return answer.status_code, error.code


def request(name: str, *segments: tuple[str, Any], **options: Any) -> dict[str, Any]:
    return {
        "id": name,
        "segments": [
            {"kind": kind, ("text" if kind == "text" else "variable"): what} | options.get(kind, {})
            for kind, what in segments
        ],
        **{key: value for key, value in options.items() if key == "model"},
    }


@pytest.mark.usefixtures("http")
class TestExchanges:
    @pytest.mark.parametrize(
        ("requests", "status", "code"),
        [
            ([request("r", ("input", "a"), ("output", "a"))], 422, "invalid_graph"),
            (
                [request("r", ("input", "a"), ("output", "b")), request("q", ("input", "b"), ("output", "a"))],
                422,
                "invalid_graph",
            ),
            ([request("r", ("text", "x"), ("output", "a"), ("output", "a"))], 422, "invalid_graph"),
            ([request("r", ("output", "a")), request("q", ("output", "a"))], 422, "invalid_graph"),
            ([request("r", ("text", "x"))], 422, "invalid_graph"),
            ([request("r", ("output", "undeclared"))], 404, "unknown_object"),
            ([request("r", ("output", "a"), model="gpt-9")], 404, "unknown_model"),
            ([request("r", ("output", "a"), output={"sampling": {"max_tokens": 0}})], 422, "invalid_sampling"),
            ([request("r", ("output", "a"), output={"sampling": {"max_tokens": -1}})], 422, "invalid_sampling"),
            ([request("r", ("output", "a"), output={"sampling": {"max_tokens": "x"}})], 422, "invalid_request"),
            ([request("r", ("output", "a"), output={"sampling": {"max_tokens": True}})], 422, "invalid_request"),
            ([request("r", ("output", "a"), output={"sampling": {"max_tokens": "5"}})], 422, "invalid_request"),
            ([request("r", ("output", "a"), output={"sampling": {"max_tokens": 10**30}})], 422, "invalid_sampling"),
            (
                [request("r", ("output", "a"), output={"sampling": {"schema": {"type": "bogus"}}})],
                422,
                "invalid_schema",
            ),
            (
                [request("r", ("input", "a"), ("output", "b"), input={"transforms": [{"name": "nope"}]})],
                422,
                "invalid_transform",
            ),
            ([request("r/../r", ("output", "a"))], 422, "invalid_request"),
        ],
    )
    def test_a_refused_batch_leaves_nothing(
        self, http: httpx.Client, requests: list[dict[str, Any]], status: int, code: str
    ):
        body = {"session": "refused", "variables": [{"id": "a"}, {"id": "b"}], "requests": requests}
        assert refused(http.post("/v1/submit", json=body)) == (status, code)
        assert refused(http.get("/v1/sessions/refused")) == (404, "unknown_object")

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null"])
    def test_what_is_no_batch(self, http: httpx.Client, content: bytes):
        answer = http.post("/v1/submit", content=content, headers={"content-type": "application/json"})
        assert refused(answer) in {(422, "invalid_request"), (400, "invalid_request")}

    def test_a_session_of_somebody_else(self, http: httpx.Client):
        mine = {"variables": [{"id": "made"}], "requests": [request("maker", ("text", "x"), ("output", "made"))]}
        assert http.post("/v1/submit", json={"session": "mine"} | mine).status_code == 200
        theirs = {"variables": [{"id": "b"}], "requests": [request("r", ("input", "made"), ("output", "b"))]}
        assert refused(http.post("/v1/submit", json={"session": "other"} | theirs)) == (403, "foreign_variable")
        set_it = http.put("/v1/sessions/mine/variables/made", json={"value": "x"})
        assert refused(set_it) == (409, "already_produced")
        assert http.get("/v1/sessions/mine/variables/made").json()["value"]
        assert http.delete("/v1/sessions/mine").status_code == 204
        assert refused(http.delete("/v1/sessions/mine")) == (404, "unknown_object")

    def test_a_prompt_longer_than_the_context_fails_its_request(self, http: httpx.Client):
        body = {
            "session": "long",
            "variables": [{"id": "long"}],
            "requests": [request("longer", ("text", "x" * 10_000), ("output", "long"))],
        }
        assert http.post("/v1/submit", json=body).status_code == 200
        assert refused(http.get("/v1/sessions/long/variables/long")) == (422, "context_exceeded")
        view = http.get("/v1/sessions/long").json()
        assert [each["state"] for each in view["requests"]] == ["failed"]
        assert ErrorBody.model_validate(view["requests"][0]["error"]).code == "context_exceeded"
        http.delete("/v1/sessions/long")
