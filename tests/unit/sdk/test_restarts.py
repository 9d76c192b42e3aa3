"""What programs see of a service that went away and came back without their sessions."""

import json
from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import pytest
from fake_service import FakeService
from fake_time import FakeTime
from scripted_wire import ACCEPTED, BREAK, OURS, SESSION, STREAM, URL, VARIABLE, WAIT, Answer, Wired, events, refused

import Parrot as P
from parrotserve.errors import EngineFailed, ServiceUnavailable, SessionLost, UnknownObject
from parrotserve.ids import SessionId, VariableId
from parrotserve.protocol import (
    Accepted,
    Delta,
    ErrorBody,
    Failure,
    OutputSegment,
    Submit,
    Value,
    VariableEvent,
    VariableSpec,
    WaitSpec,
)
from parrotserve.sdk import http_client
from parrotserve.sdk.cell import Cell
from parrotserve.sdk.connection import Connection, use
from parrotserve.sdk.http import HttpTransport

OTHER = VariableId("v-2")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "FIRST_PAUSE", 0.0001)


def delta(offset: int, text: str) -> Delta:
    return Delta(variable=VARIABLE, offset=offset, text=text)


def value(text: str, variable: VariableId = VARIABLE) -> Value:
    return Value(variable=variable, value=text)


class TestSeeds:
    """A request that is sent again is the same request, its chance included."""

    def seeds(self, service: FakeService) -> list[int | None]:
        return [
            segment.sampling.seed
            for body in service.submits
            for request in body.requests
            for segment in request.segments
            if isinstance(segment, OutputSegment)
        ]

    def test_they_are_fixed_where_a_request_is_declared(self, service: FakeService):
        @P.SemanticFunction(
            temperature=0.8, outputs={"given": P.Sampling(temperature=0.8, seed=7), "sure": P.Sampling()}
        )
        def Dream(topic: str):
            """{{input:topic}}: {{output:drawn}} {{output:given}} {{output:sure}}"""

        P.gather([Dream("x").drawn, Dream("x").drawn])
        first, *others, second, _, _ = self.seeds(service)
        assert others == [7, None]  # where there is no chance there is nothing to fix
        assert None not in (first, second)
        assert first != second
        assert Dream.samplings["drawn"].seed is None

    def test_turns_of_a_conversation_have_one_each(self, service: FakeService):
        chat = P.Chat(temperature=1.0)
        P.gather([chat.say("one"), chat.say("one")])
        first, second = self.seeds(service)
        assert None not in (first, second)
        assert first != second

    def test_what_is_sent_again_has_the_same(self, service: FakeService):
        @P.SemanticFunction(temperature=0.8)
        def Dream(topic: str):
            """{{input:topic}}: {{output:dream}}"""

        service.fragile = 1
        dream = Dream("x")
        with pytest.raises(ServiceUnavailable):
            dream.get()
        dream.get()
        first, second = self.seeds(service)
        assert first is not None
        assert first == second


async def told(*answers: Answer, waits: tuple[WaitSpec, ...] = (STREAM,)) -> AsyncIterator[VariableEvent]:
    """The events that a submit over this wire gives."""
    transport = HttpTransport(URL, wire=httpx.MockTransport(Wired(*answers)), patience=5)
    await transport.open()
    try:
        variables = (VariableSpec(id=VARIABLE, name="code"),)
        async for event in transport.submit(Submit(session=SESSION, variables=variables, wait=waits)):
            yield event
    finally:
        await transport.close()


async def read_until_lost(seen: AsyncIterator[VariableEvent], match: str) -> list[VariableEvent]:
    """What came before `SessionLost` was raised."""
    came: list[VariableEvent] = []

    async def read() -> None:
        async for event in seen:
            came.append(event)  # noqa: PERF401 - a list is lost with what ends it

    with pytest.raises(SessionLost, match=match):
        await read()
    return came


class TestTransport:
    @pytest.mark.parametrize(
        "again",
        [
            [delta(0, "He went")],
            [delta(0, "H"), delta(1, "e w")],
            [value("He went")],
            [value("He")],
            [delta(0, "He"), value("He went")],
        ],
        ids=["in one", "in pieces", "as a value", "as a shorter value", "after a beginning"],
    )
    async def test_another_text_is_never_joined_to_what_came(self, again: list[VariableEvent]):
        seen = told(events(ACCEPTED, delta(0, "He lived"), BREAK), events(ACCEPTED, *again))
        assert await read_until_lost(seen, f"{URL}.*'code'") == [ACCEPTED, delta(0, "He lived")]

    async def test_the_same_text_goes_on(self):
        seen = told(
            events(ACCEPTED, delta(0, "He l"), BREAK),
            events(ACCEPTED, delta(0, "He"), delta(2, " lived"), value("He lived.")),
        )
        assert [each async for each in seen] == [ACCEPTED, delta(0, "He l"), delta(4, "ived"), value("He lived.")]

    async def test_a_value_that_is_not_what_was_streamed_is_an_error_without_a_break_too(self):
        seen = told(events(ACCEPTED, delta(0, "He lived"), value("He went")))
        assert await read_until_lost(seen, "'code'") == [ACCEPTED, delta(0, "He lived")]

    async def test_nothing_is_read_that_rests_on_another_value(self):
        waits = (WAIT, WaitSpec(variable=OTHER))
        seen = told(
            events(ACCEPTED, value("one"), BREAK),
            events(ACCEPTED, value("two"), value("of two", OTHER)),
            waits=waits,
        )
        assert await read_until_lost(seen, "'code'") == [ACCEPTED, value("one")]

    async def test_the_same_value_is_told_once(self):
        waits = (WAIT, WaitSpec(variable=OTHER))
        seen = told(
            events(ACCEPTED, value("one"), BREAK),
            events(ACCEPTED, value("one"), value("of one", OTHER)),
            waits=waits,
        )
        assert [each async for each in seen] == [ACCEPTED, value("one"), value("of one", OTHER)]

    async def test_what_was_told_is_not_waited_for_again(self):
        waits = (WAIT, WaitSpec(variable=OTHER))
        seen = told(events(ACCEPTED, value("one"), BREAK), events(ACCEPTED, value("else", OTHER), BREAK), waits=waits)
        assert [each async for each in seen] == [ACCEPTED, value("one"), value("else", OTHER)]

    async def test_failures_are_not_asked_for_again(self):
        wire = Wired(
            events(ACCEPTED, Failure(variable=VARIABLE, error=ErrorBody.of(EngineFailed("It died."))), BREAK),
            events(ACCEPTED, value("else", OTHER)),
        )
        transport = HttpTransport(URL, wire=httpx.MockTransport(wire), patience=5)
        await transport.open()
        _ = [each async for each in transport.submit(Submit(session=SESSION, wait=(WAIT, WaitSpec(variable=OTHER))))]
        assert [wait.variable for wait in wire.bodies[1].wait] == [OTHER]
        await transport.close()

    async def test_a_session_that_is_gone_is_told_apart_from_one_that_never_was(self):
        gone = refused(UnknownObject("There is no variable."))
        seen = told(events(ACCEPTED, BREAK), gone)
        assert await read_until_lost(seen, f"{URL} .*{SESSION}") == [ACCEPTED]
        with pytest.raises(UnknownObject):
            _ = [each async for each in told(gone)]

    async def test_a_stream_alone_is_compared_too(self):
        wire = Wired(events(delta(3, "lived"), BREAK), events(delta(3, "went")))
        transport = HttpTransport(URL, wire=httpx.MockTransport(wire), patience=5)
        await transport.open()
        assert await read_until_lost(transport.stream(SESSION, VARIABLE, 3), str(VARIABLE)) == [delta(3, "lived")]
        await transport.close()


@P.SemanticFunction
def Write(task: str):
    """{{input:task}}: {{output:text}}"""


@P.SemanticFunction
def Review(text: str):
    """{{input:text}}: {{output:review}}"""


class Forgetful:
    """A service that breaks its first answer off after `beginning` and then writes `text`, as it would anew."""

    def __init__(self, beginning: str, text: str) -> None:
        self.submits = 0
        self._beginning, self._text = beginning, text

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method != "POST":
            return httpx.Response(204, headers=OURS)
        body = Submit.model_validate_json(request.content)
        accepted = Accepted(session=SessionId(body.session))
        if not body.wait:
            return httpx.Response(200, headers=OURS, json=json.loads(accepted.model_dump_json()))
        self.submits += 1
        variable = VariableId(body.wait[0].variable)
        if self.submits == 1:
            return events(accepted, Delta(variable=variable, offset=0, text=self._beginning), BREAK)
        text = Delta(variable=variable, offset=0, text=self._text)
        return events(accepted, text, Value(variable=variable, value=self._text))


class TestPrograms:
    @pytest.fixture
    def forgetful(self, time: FakeTime) -> Iterator[Callable[[str, str], Forgetful]]:
        """Makes it the service that programs use."""
        connections: list[Connection] = []

        def start(beginning: str, text: str) -> Forgetful:
            service = Forgetful(beginning, text)
            connections.append(use(HttpTransport(URL, wire=httpx.MockTransport(service), patience=5), timer=time))
            return service

        yield start
        for connection in connections:
            connection.close()

    def test_the_same_text_again_is_no_news(self, forgetful: Callable[[str, str], Forgetful]):
        forgetful("He l", "He lived.")
        assert "".join(Write("x").stream()) == "He lived."

    def test_another_text_is_an_error_for_good(self, forgetful: Callable[[str, str], Forgetful]):
        service = forgetful("He lived", "He went away.")
        text = Write("x")
        review = Review(text)
        pieces: list[str] = []
        with pytest.raises(SessionLost, match="'text'"):
            pieces.extend(text.stream())
        assert pieces == ["He lived"]
        # Whatever else the session has may rest on the new text, which nobody has read: none of it can be had.
        for variable in (text, review):
            with pytest.raises(SessionLost):
                variable.get()
        assert service.submits == 2
        assert Write("x").get() == "He went away."


class TestCells:
    """Texts come in several exchanges, and one variable's are compared over all of them."""

    def test_pieces_that_contradict_it_fail_it(self):
        cell = Cell(name="text", produced=True)
        cell.grow(0, "He lived")
        cell.grow(0, "He went away")
        assert isinstance(cell.error(), SessionLost)
        assert cell.text == "He lived"

    def test_so_does_a_value(self):
        cell = Cell(name="text", produced=True)
        cell.grow(0, "He lived")
        assert cell.resolve("He went away")
        error = cell.error()
        assert isinstance(error, SessionLost)
        assert "'text'" in error.message
