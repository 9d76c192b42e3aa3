"""Watching a program shows all that it produces and gives it exactly what it asked for."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from scripted_transport import (
    ACCEPTED,
    SESSION,
    RecordingScreen,
    ScriptedTransport,
    calling,
    delta,
    failure,
    producing,
    value,
)

from parrotserve.cli.watch import WatchedTransport
from parrotserve.criteria import Criteria, Objective
from parrotserve.errors import GetTimeout, InvalidGraph, RequestFailed, ServiceUnavailable
from parrotserve.protocol import RequestView, Submit, Timings, VariableEvent, VariableView, WaitSpec
from parrotserve.sampling import FinishReason, Usage


@pytest.fixture
async def inner() -> ScriptedTransport:
    return ScriptedTransport()


@pytest.fixture
async def screen() -> RecordingScreen:
    return RecordingScreen()


@pytest.fixture
async def watched(inner: ScriptedTransport, screen: RecordingScreen) -> WatchedTransport:
    return WatchedTransport(inner, screen)


def request_view(name: str, state: str, *inputs: str) -> RequestView:
    return RequestView(
        id=name, function=name, model="m", state=state, inputs=inputs, outputs=(), objective=Objective.THROUGHPUT,
        engine=None, epoch=0, timings=Timings(submitted=0.0), usage=Usage(), error=None,
    )  # fmt: skip


def variable_view(name: str, state: str) -> VariableView:
    return VariableView(id=name, name=None, state=state, producer="r-1", value=None, error=None)


async def all_of(answer: AsyncIterator[VariableEvent]) -> list[VariableEvent]:
    return [event async for event in answer]


async def test_what_nobody_asks_for_is_asked_for_as_streamed_throughput_work_in_the_same_submit(watched, inner):
    inner.answers = [[ACCEPTED, value("code-1", "x")]]
    answer = await all_of(watched.submit(producing("code-1")))
    assert answer == [ACCEPTED]
    (body,) = inner.submits
    assert body.wait == (WaitSpec(variable="code-1", criteria=Criteria.THROUGHPUT, stream=True),)


async def test_what_the_program_asks_for_keeps_its_criteria_and_timeout_and_is_streamed(watched, inner):
    inner.answers = [[ACCEPTED, delta("code-1", 0, "x"), value("code-1", "xy")]]
    wait = WaitSpec(variable="code-1", criteria=Criteria.LATENCY, timeout=5)
    answer = await all_of(watched.submit(producing("code-1", wait=[wait])))
    assert answer == [ACCEPTED, value("code-1", "xy")], "the program did not ask for deltas"
    assert inner.submits[0].wait == (wait.model_copy(update={"stream": True}),)


async def test_the_program_gets_the_deltas_that_it_asked_for(watched, inner):
    events = [ACCEPTED, delta("code-1", 0, "x"), value("code-1", "x")]
    inner.answers = [events]
    wait = WaitSpec(variable="code-1", stream=True)
    assert await all_of(watched.submit(producing("code-1", wait=[wait]))) == events


async def test_the_program_goes_on_while_the_rest_is_still_being_written(watched, inner, screen):
    inner.answers = [[ACCEPTED, value("code-1", "x"), None, value("test-2", "y")]]
    answer = await all_of(watched.submit(producing("code-1", "test-2", wait=[WaitSpec(variable="code-1")])))
    assert answer == [ACCEPTED, value("code-1", "x")]
    assert "write.test = y" not in screen.log
    inner.go_on.set()
    await watched.drained()
    assert screen.log[-2:] == ["write.test + y", "write.test = y"]


async def test_an_abandoned_answer_is_read_to_its_end(watched, inner, screen):
    inner.answers = [[ACCEPTED, None, value("code-1", "x")]]
    answer = watched.submit(producing("code-1", wait=[WaitSpec(variable="code-1")]))
    assert await anext(answer) == ACCEPTED
    await answer.aclose()
    inner.go_on.set()
    await watched.drained()
    assert screen.log == ["declared write.code", "write.code + x", "write.code = x"]


async def test_text_is_shown_once_where_two_submits_bring_it(watched, inner, screen):
    inner.answers = [
        [ACCEPTED, delta("code-1", 0, "ab"), None, value("code-1", "abc", reason=FinishReason.STOP)],
        [ACCEPTED, delta("code-1", 0, "a"), delta("code-1", 1, "bc"), value("code-1", "abc")],
    ]
    await all_of(watched.submit(producing("code-1")))
    wait = WaitSpec(variable="code-1", stream=True)
    await all_of(watched.submit(Submit(session=SESSION, wait=(wait,))))
    inner.go_on.set()
    await watched.drained()
    assert screen.log == ["declared write.code", "write.code + ab", "write.code + c", "write.code = abc"]


async def test_a_timed_out_wait_ends_for_the_program_and_not_for_the_reader(watched, inner, screen):
    late = failure("code-1", GetTimeout("too late"))
    inner.answers = [[ACCEPTED, delta("code-1", 0, "ab"), late]]
    inner.streams["code-1", 2] = [delta("code-1", 2, "c"), value("code-1", "abc")]
    answer = await all_of(watched.submit(producing("code-1", wait=[WaitSpec(variable="code-1", timeout=1)])))
    assert answer == [ACCEPTED, late]
    await watched.drained()
    assert screen.log[-2:] == ["write.code + c", "write.code = abc"]


async def test_a_refused_batch_is_raised_and_nothing_of_it_is_shown_until_it_comes_again(watched, inner, screen):
    inner.answers = [[InvalidGraph("a cycle")], [ACCEPTED, value("code-1", "x")]]
    with pytest.raises(InvalidGraph):
        await all_of(watched.submit(producing("code-1")))
    assert screen.log == []
    await all_of(watched.submit(producing("code-1")))
    await watched.drained()
    assert screen.log[-1] == "write.code = x"


async def test_failures_are_shown_and_handed_on(watched, inner, screen):
    broken = failure("code-1", RequestFailed("no"))
    inner.answers = [[ACCEPTED, broken]]
    answer = await all_of(watched.submit(producing("code-1", wait=[WaitSpec(variable="code-1")])))
    assert answer[-1] == broken
    assert screen.log[-1] == "write.code = request_failed"


async def test_a_service_that_goes_away_fails_what_was_still_to_come(watched, inner, screen):
    inner.answers = [[ACCEPTED, value("code-1", "x"), ServiceUnavailable("gone")]]
    wait = [WaitSpec(variable="code-1"), WaitSpec(variable="test-2")]
    with pytest.raises(ServiceUnavailable):
        await all_of(watched.submit(producing("code-1", "test-2", wait=wait)))
    assert screen.log[-2:] == ["write.code = x", "write.test = service_unavailable"]


async def test_titles_number_repeated_calls_and_name_a_native_function_once(watched, inner, screen):
    inner.answers = [
        [ACCEPTED, value("code-1", "x")],
        [ACCEPTED, value("code-2", "y")],
        [ACCEPTED, value("found-1", "z")],
    ]
    for body in (producing("code-1"), producing("code-2"), calling("found-1", "look_up")):
        await all_of(watched.submit(body))
    await watched.drained()
    assert [line for line in screen.log if "=" in line] == ["write.code = x", "write.code #2 = y", "look_up = z"]


async def test_a_retried_variable_is_shown_again(watched, inner, screen):
    inner.answers = [[ACCEPTED, failure("code-1", RequestFailed("no"))]]
    await all_of(watched.submit(producing("code-1")))
    await watched.drained()
    inner.streams["code-1", 0] = [value("code-1", "x")]
    await watched.retry(SESSION, "code-1")
    await watched.drained()
    assert screen.log[-1] == "write.code = x"


async def test_what_fell_with_a_retried_variable_and_comes_back_is_shown_again_too(watched, inner, screen):
    names = ("code-1", "test-2", "other-3")
    inner.answers = [[ACCEPTED, *(failure(name, RequestFailed("no")) for name in names)]]
    await all_of(watched.submit(producing(*names)))
    await watched.drained()
    inner.view = inner.view.model_copy(
        update={"variables": tuple(map(variable_view, names, ("producing", "producing", "failed")))}
    )
    inner.streams["code-1", 0] = [value("code-1", "x")]
    inner.streams["test-2", 0] = [value("test-2", "y")]
    await watched.retry(SESSION, "code-1")
    await watched.drained()
    assert screen.log[-6:-4] == ["declared write.code", "declared write.test"]
    assert {line for line in screen.log[-4:] if "=" in line} == {"write.code = x", "write.test = y"}
    assert {name: shown.error is None for name, shown in watched.variables.items()} == {
        "code-1": True, "test-2": True, "other-3": False,
    }  # fmt: skip


async def test_a_view_that_cannot_be_had_hides_no_retry(watched, inner, screen, monkeypatch):
    async def gone(session: str) -> None:
        raise ServiceUnavailable("gone")

    inner.answers = [[ACCEPTED, failure("code-1", RequestFailed("no")), failure("test-2", RequestFailed("no"))]]
    await all_of(watched.submit(producing("code-1", "test-2")))
    monkeypatch.setattr(inner, "session_view", gone)
    inner.streams["code-1", 0] = [value("code-1", "x")]
    await watched.retry(SESSION, "code-1")
    await watched.drained()
    assert screen.log[-1] == "write.code = x"


async def test_figures_count_sessions_that_have_ended_once(watched, inner):
    usage = Usage(prompt_tokens=7, cached_tokens=3, output_tokens=2)
    request = RequestView(
        id="r-1", function="write", model="fake", state="done", inputs=(), outputs=(), objective=Objective.LATENCY,
        engine=None, epoch=0, timings=Timings(submitted=0), usage=usage, error=None,
    )  # fmt: skip
    inner.view = inner.view.model_copy(update={"requests": (request, request)})
    inner.answers = [[ACCEPTED, value("code-1", "x")]]
    await all_of(watched.submit(producing("code-1")))
    before = await watched.figures()
    await watched.end_session(SESSION)
    assert await watched.figures() == before
    assert (before.requests, before.prompt_tokens, before.cached_tokens, before.output_tokens) == (2, 14, 6, 4)


async def test_after_the_last_question_sessions_end_without_another(watched, inner, monkeypatch):
    async def look(_session):
        raise AssertionError("it was looked at")

    monkeypatch.setattr(inner, "session_view", look)
    watched.finish()
    await watched.end_session(SESSION)
    assert inner.calls == ["end_session s-1"]


async def test_everything_else_is_handed_on(watched, inner, screen):
    await watched.open()
    await watched.set_value(SESSION, "v", "text")
    await watched.cancel(SESSION, "v")
    await watched.end_session(SESSION)
    await watched.close()
    assert inner.calls == ["open", "set_value s-1 v text", "cancel s-1 v", "end_session s-1", "close"]
    assert screen.log == ["starting"]


async def test_closing_ends_the_reading(watched, inner):
    inner.answers = [[ACCEPTED, None]]
    await all_of(watched.submit(producing("code-1")))
    await watched.close()
    assert len(asyncio.all_tasks()) == 1


async def test_it_waits_no_longer_where_all_that_is_left_rests_on_what_nobody_sets(watched, inner, monkeypatch):
    monkeypatch.setattr("parrotserve.cli.watch.LOOK_SECONDS", 0.0)
    inner.answers = [[ACCEPTED, None]]
    await all_of(watched.submit(producing("code-1")))
    unset = VariableView(id="v-1", name="task", state="empty", producer=None, value=None, error=None)
    stuck = request_view("write", "waiting", "v-1")
    for other in (request_view("plan", "running"), request_view("plan", "queued")):
        inner.view = inner.view.model_copy(update={"variables": (unset,), "requests": (stuck, other)})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watched.drained(lambda: False), 0.01)
    inner.view = inner.view.model_copy(update={"requests": (stuck, request_view("plan", "done"))})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watched.drained(lambda: True), 0.01)
    assert await watched.drained(lambda: False) == ["task"]
