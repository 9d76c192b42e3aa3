"""Semantic variables: reading, streaming, setting, failing."""

import asyncio
import math

import pytest
from fake_service import FakeService
from hypothesis import given
from hypothesis import strategies as st

import Parrot as P
from Parrot.PerformanceCriteria import LATENCY, THROUGHPUT, TPOT, TTFT
from parrotserve.criteria import Criteria
from parrotserve.errors import (
    AlreadyProduced,
    Cancelled,
    DeclarationError,
    EngineFailed,
    GetTimeout,
    ServiceUnavailable,
)
from parrotserve.sampling import FinishReason
from parrotserve.sdk.cell import Cell, State


@P.SemanticFunction
def Write(task: str):
    """{{input:task}}: {{output:text}}"""


class TestGet:
    def test_it_waits_for_the_value(self, service: FakeService):
        text = Write("x")
        assert (text.get(), text.get(), len(service.submits)) == ("<text>", "<text>", 1)
        assert (text.ready, text.state, text.finish_reason) == (True, State.READY, FinishReason.STOP)

    async def test_coroutines_wait_too(self, service: FakeService):
        assert await Write("x").aget() == "<text>"

    async def test_a_variable_can_be_awaited(self, service: FakeService):
        assert await Write("x") == "<text>"
        assert await P.SemanticVariable("known") == "known"

    async def test_asyncio_waits_for_several_in_one_exchange(self, service: FakeService):
        assert await asyncio.gather(Write("x"), Write("y")) == ["<text>", "<text>"]
        assert await asyncio.wait_for(Write("z"), timeout=60) == "<text>"
        assert len(service.submits) == 2

    def test_what_can_be_awaited_is_a_text_all_the_same(self, service: FakeService):
        assert P.SemanticVariable(P.SemanticVariable("known")).get() == "known"
        with pytest.raises(TypeError, match="has no text here yet: pass the variable itself"):
            P.SemanticVariable(Write("x"))

    async def test_it_works_inside_a_running_loop(self, service: FakeService):
        assert Write("x").get() == "<text>"

    @pytest.mark.parametrize("perf", [LATENCY, THROUGHPUT, TTFT, TPOT, "throughput"])
    def test_the_criteria_travel(self, service: FakeService, perf: Criteria):
        Write("x").get(perf)
        assert service.submits[0].wait[0].criteria == perf

    def test_criteria_and_states_are_there_without_an_import_of_their_own(self):
        assert [P.LATENCY, P.THROUGHPUT, P.TTFT, P.TPOT] == [LATENCY, THROUGHPUT, TTFT, TPOT]
        assert P.SemanticVariable("x").state is P.State.READY

    def test_unknown_criteria_are_refused(self, service: FakeService):
        with pytest.raises(DeclarationError, match="perf='fast' is not one of LATENCY"):
            Write("x").get("fast")

    def test_criteria_may_be_named_in_any_case(self, service: FakeService):
        Write("x").get("LATENCY")
        assert service.submits[0].wait[0].criteria == LATENCY

    @pytest.mark.parametrize("timeout", [-1, "1", True, float("nan")])
    def test_what_is_no_length_of_time_is_refused(self, service: FakeService, timeout: float):
        with pytest.raises(DeclarationError, match="a number of seconds from 0 up"):
            Write("x").get(timeout=timeout)

    @pytest.mark.parametrize("timeout", [math.inf, 1e10, 1e300, 10**40])
    async def test_what_no_clock_can_count_is_no_end(self, service: FakeService, timeout: float):
        assert Write("x").get(timeout=timeout) == "<text>"
        assert await Write("x").aget(timeout=timeout) == "<text>"
        assert P.gather(Write("x"), timeout=timeout) == ["<text>"]
        assert await P.agather(Write("x"), timeout=timeout) == ["<text>"]
        assert {wait.timeout for body in service.submits for wait in body.wait} == {None}

    def test_a_timeout_cancels_nothing(self, service: FakeService):
        service.held.add("Write")
        text = Write("x")
        with pytest.raises(GetTimeout, match=r"text PRODUCING> was not ready within 0\.01 seconds"):
            text.get(timeout=0.01)
        service.release("Write")
        assert text.get() == "<text>"
        assert "cancel" not in service.log

    def test_a_timeout_names_what_nobody_has_set(self, service: FakeService):
        language, unnamed = P.SemanticVariable(name="language"), P.SemanticVariable()
        below = Write(Write([language, unnamed]))
        with pytest.raises(GetTimeout, match=r"It waits for 'language', a variable without a name, which no call"):
            below.get(timeout=0.01)
        with pytest.raises(GetTimeout, match=r"language EMPTY> .* No call produces it"):
            language.get(timeout=0.01)
        unnamed.set("y")
        with pytest.raises(GetTimeout, match=r"It waits for 'language', which no call"):
            below.get(timeout=0.01)
        language.set("x")
        assert below.get() == "<text>"
        service.held.add("Write")
        with pytest.raises(GetTimeout, match=r"you can call get\(\) again\.$"):
            Write(language).get(timeout=0.01)

    async def test_timeouts_of_coroutines(self, service: FakeService):
        service.held.add("Write")
        with pytest.raises(GetTimeout):
            await Write("x").aget(timeout=0.01)

    def test_nobody_asks_twice_for_the_same(self, service: FakeService):
        service.held.add("Write")
        text = Write("x")
        futures = [asyncio.run_coroutine_threadsafe(text.aget(), loop) for loop in [service_loop()] * 3]
        service.until(lambda: bool(service.submits))
        service.release("Write")
        assert [future.result(10) for future in futures] == ["<text>"] * 3
        assert len(service.submits) == 1

    def test_a_stricter_wait_is_told_to_the_service(self, service: FakeService):
        service.held.add("Write")
        text = Write("x")
        first = asyncio.run_coroutine_threadsafe(text.aget(THROUGHPUT), service_loop())
        service.until(lambda: len(service.submits) == 1)
        second = asyncio.run_coroutine_threadsafe(text.aget(LATENCY), service_loop())
        service.until(lambda: len(service.submits) == 2)
        service.release("Write")
        assert first.result(10) == second.result(10) == "<text>"
        assert [body.wait[0].criteria for body in service.submits] == [THROUGHPUT, LATENCY]

    def test_a_failure_is_raised_anew_by_every_get(self, service: FakeService):
        service.script["Write"] = EngineFailed("The engine died.", engine="e0")
        text = Write("x")
        raised: list[BaseException] = []
        for _ in range(2):
            with pytest.raises(EngineFailed, match="The engine died") as caught:
                text.get()
            raised.append(caught.value)
        assert raised[0] is not raised[1]
        assert caught.value.details == {"engine": "e0"}
        assert text.state is State.FAILED

    def test_a_service_that_is_away_can_be_asked_again(self, service: FakeService):
        service.down = ServiceUnavailable("Nobody there.")
        text = Write("x")
        with pytest.raises(ServiceUnavailable, match="Nobody there"):
            text.get()
        service.down = None
        assert text.get() == "<text>"


class TestStream:
    def test_pieces_come_as_the_text_grows(self, service: FakeService):
        service.held.add("Write")
        service.script["Write"] = "one two three"
        text = Write("x")
        pieces = text.stream()
        read: list[str] = []
        service_grow = iter(["one", " two"])

        def grow() -> None:
            service.until(lambda: bool(service.submits))
            service.grow("text", next(service_grow))

        grown = asyncio.run_coroutine_threadsafe(asyncio.to_thread(grow), service_loop())
        read.append(next(pieces))
        grown.result(10)
        grow()
        read.append(next(pieces))
        service.release("Write")
        assert [*read, *pieces] == ["one", " two", " three"]
        assert text.get() == "one two three"
        assert service.submits[0].wait[0].stream
        assert service.submits[0].wait[0].criteria is TTFT

    async def test_coroutines_stream_too(self, service: FakeService):
        assert "".join([piece async for piece in Write("x").astream()]) == "<text>"

    def test_every_stream_starts_at_the_beginning(self, service: FakeService):
        text = Write("x")
        assert ["".join(text.stream()) for _ in range(2)] == ["<text>", "<text>"]
        assert len(service.submits) == 1

    def test_values_that_were_set_stream_too(self):
        assert list(P.SemanticVariable("known").stream()) == ["known"]

    def test_an_empty_text_has_no_pieces(self, service: FakeService):
        service.script["Write"] = ""
        assert list(Write("x").stream()) == []

    def test_a_timeout_ends_the_stream_and_cancels_nothing(self, service: FakeService):
        service.held.add("Write")
        text = Write("x")
        grown = asyncio.run_coroutine_threadsafe(asyncio.to_thread(grow_once, service), service_loop())
        pieces = text.stream(timeout=60)
        assert next(pieces) == "half"
        grown.result(10)
        for timeout in (0.01, 0):
            late = text.stream(timeout=timeout)
            assert next(late) == "half"
            with pytest.raises(GetTimeout, match=f"text PRODUCING> was not ready within {timeout} seconds"):
                next(late)
        service.release("Write")
        with pytest.raises(DeclarationError, match="timeout='1'"):
            text.stream(timeout="1")  # pyright: ignore[reportArgumentType]

    async def test_so_does_one_of_a_coroutine(self, service: FakeService):
        service.held.add("Write")
        text = Write("x")
        with pytest.raises(GetTimeout, match=r"within 0\.01 seconds"):
            await anext(text.astream(timeout=0.01))
        service.release("Write")
        assert "".join([piece async for piece in text.astream(timeout=60)]) == "<text>"

    def test_a_failure_comes_after_the_pieces(self, service: FakeService):
        service.held.add("Write")
        service.script["Write"] = EngineFailed("It died.")
        text = Write("x")
        pieces = text.stream()
        grown = asyncio.run_coroutine_threadsafe(asyncio.to_thread(grow_once, service), service_loop())
        assert next(pieces) == "half"
        grown.result(10)
        service.release("Write")
        with pytest.raises(EngineFailed):
            next(pieces)

    def test_leaving_a_stream_cancels_nothing(self, service: FakeService):
        text = Write("x")
        pieces = text.stream()
        next(pieces)
        del pieces
        assert text.get() == "<text>"
        assert service.log == ["open"]


class TestSet:
    def test_an_empty_variable_is_set_for_those_that_wait(self, service: FakeService):
        task = P.SemanticVariable(name="task")
        text = Write(task)
        assert (task.state, repr(task)) == (State.EMPTY, "<SemanticVariable task EMPTY>")
        future = asyncio.run_coroutine_threadsafe(text.aget(), service_loop())
        service.until(lambda: bool(service.submits))
        task.set("late")
        assert future.result(10) == "<text>"
        assert task.get() == "late"
        assert service.log == ["open", "set late"]

    def test_set_before_anything_was_sent_it_travels_with_the_call(self, service: FakeService):
        task = P.SemanticVariable()
        text = Write(task)
        task.set(7)
        assert text.get() == "<text>"
        assert service.submits[0].variables[0].value == "7"
        assert service.log == ["open"]

    def test_what_the_service_could_not_be_told_is_set_again(self, service: FakeService):
        task = P.SemanticVariable()
        text = Write(task)
        future = asyncio.run_coroutine_threadsafe(text.aget(), service_loop())
        service.until(lambda: bool(service.submits))
        service.down = ServiceUnavailable("Gone for a moment.")
        with pytest.raises(ServiceUnavailable):
            task.set("late")
        service.down = None
        with pytest.raises(AlreadyProduced):
            task.set("another")
        task.set("late")
        assert future.result(10) == "<text>"
        with pytest.raises(AlreadyProduced):
            task.set("late")

    def test_what_is_no_unicode_text_is_not_set(self, service: FakeService):
        task = P.SemanticVariable()
        with pytest.raises(DeclarationError, match="lone surrogate"):
            task.set("caf\udce9")
        task.set("café")
        assert Write(task).get() == "<text>"

    def test_nothing_is_set_twice(self, service: FakeService):
        with pytest.raises(AlreadyProduced, match="has a value"):
            P.SemanticVariable("x").set("y")

    def test_a_produced_variable_cannot_be_set(self, service: FakeService):
        with pytest.raises(AlreadyProduced, match="is produced by a call"):
            Write("x").set("y")

    def test_a_value_may_be_used_in_any_session(self, service: FakeService):
        task = P.SemanticVariable("shared")
        with P.Session():
            first = Write(task).get()
        with P.Session():
            second = Write(task).get()
        assert first == second == "<text>"
        one, other = service.submits
        assert one.variables[0].value == other.variables[0].value == "shared"
        assert one.variables[0].id != other.variables[0].id


class TestRetryAndCancel:
    def test_a_failed_variable_can_be_retried(self, service: FakeService):
        service.script["Write"] = EngineFailed("It died.")
        text = Write("x")
        with pytest.raises(EngineFailed):
            text.get()
        service.script["Write"] = "well"
        text.retry()
        assert text.get() == "well"

    def test_cancelling_tells_the_service(self, service: FakeService):
        service.held.add("Write")
        text = Write("x")
        text.cancel()
        assert text.state is State.CANCELLED
        with pytest.raises(Cancelled, match="Somebody"):
            text.get()

    @pytest.mark.parametrize("act", [P.SemanticVariable.retry, P.SemanticVariable.cancel])
    def test_only_produced_variables_have_a_producer(self, act):
        with pytest.raises(DeclarationError, match="has no producer"):
            act(P.SemanticVariable("x"))

    def test_the_state_is_asked_of_the_service(self, service: FakeService):
        service.held.add("Write")
        text = Write("x")
        assert (text.state, text.ready) == (State.PRODUCING, False)
        service.release("Write")
        assert text.ready


class TestCells:
    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9))))
    def test_whatever_deltas_come_again_the_text_grows_once(self, pieces: list[tuple[int, int]]):
        text, cell, end = "0123456789", Cell(produced=True), 0
        for start, length in pieces:
            start = min(start, end)
            cell.grow(start, text[start : start + length])
            end = max(end, min(start + length, len(text)))
            assert cell.text == text[:end]

    def test_a_delta_beyond_a_gap_is_left_for_the_value(self):
        cell = Cell(produced=True)
        cell.grow(5, "x")
        assert cell.text == ""


def grow_once(service: FakeService) -> None:
    service.until(lambda: bool(service.submits))
    service.grow("text", "half")


def service_loop() -> asyncio.AbstractEventLoop:
    """Any loop of another thread will do; the front end's own is at hand."""
    from parrotserve.sdk.loop import background

    return background().loop
