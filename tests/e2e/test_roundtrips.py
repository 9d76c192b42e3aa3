"""A program travels whole: what it costs in exchanges with the service, counted."""

from collections.abc import Callable, Iterator

import httpx
import pytest
from processes import served

import Parrot as P
from parrotserve.sdk.connection import use
from parrotserve.sdk.http import HttpTransport


@P.SemanticFunction(max_tokens=16)
def go_on(text):
    """Go on with this text: {{input:text}}
    {{output:more}}
    """


@P.NativeFunction
def louder(text: str) -> str:
    return text.upper()


def chain(calls: int) -> str:
    """So many calls, each reading the one before; the last one's text."""
    text = P.SemanticVariable("Once upon a time")
    for _ in range(calls):
        text = go_on(text)
    return text.get()


class Counted(httpx.AsyncHTTPTransport):
    """The network, keeping what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.exchanges: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.exchanges.append(f"{request.method} {request.url.path}")
        return await super().handle_async_request(request)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served("--model", "fake") as url:
        yield url


@pytest.fixture
def exchanges(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    # A machine that pauses this process for 5 ms must not split a program in two.
    monkeypatch.setattr("parrotserve.sdk.courier.FLUSH_SECONDS", 60.0)
    wire = Counted()
    with use(HttpTransport(url, wire=wire)):
        yield wire.exchanges


@pytest.mark.parametrize("calls", [1, 8, 40])
def test_dependent_calls_take_one_exchange(calls: int, exchanges: list[str]):
    assert chain(calls)
    assert exchanges == ["POST /v1/submit"]


def test_many_results_take_one_exchange(exchanges: list[str]):
    assert len(P.gather(*(go_on(str(number)) for number in range(20)))) == 20
    assert exchanges == ["POST /v1/submit"]


def test_a_stream_takes_no_exchange_of_its_own(exchanges: list[str]):
    assert "".join(go_on("x").stream())
    assert exchanges == ["POST /v1/submit"]


def test_a_native_call_takes_two_more_to_fetch_it_and_to_answer_it(exchanges: list[str]):
    assert go_on(louder(go_on("x"))).get()
    kinds = [each.split("/sessions/")[0] + each.rpartition("/calls")[1] for each in exchanges]
    assert kinds == ["POST /v1/submit", "GET /v1/calls", "PUT /v1/calls"]


def test_ending_the_session_is_one_more(exchanges: list[str]):
    def ended(act: Callable[[], object]) -> list[str]:
        session = P.Session()
        with session:
            act()
        session.end()
        return [each.replace(session.id, "S") for each in exchanges]

    assert ended(lambda: chain(8)) == ["POST /v1/submit", "DELETE /v1/sessions/S"]
