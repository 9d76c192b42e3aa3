"""A service that ends and is started again on the same journal: its sessions go on where they were."""

import asyncio
from contextlib import aclosing

import pytest
from restart_programs import (
    SING,
    STORY,
    TELL,
    A,
    B,
    Begin,
    S,
    beginning_of,
    declared,
    next_of,
    refuses_to_run,
    value_of,
)
from runtime_programs import Staged, answer, batch, call, made, request, taken, text, wait

from parrotserve.engines.fake import Faults
from parrotserve.errors import Cancelled, EngineFailed, UnknownObject
from parrotserve.ids import CallId, SessionId, VariableId
from parrotserve.protocol import CallResult, CallSpec, Delta, Value, VariableSpec


async def test_what_was_done_is_known_and_not_run_again(begin: Begin):
    first = await begin()
    before = await answer(first.service.submit(batch(TELL, SING, wait("b"))))
    usage = await first.service.request_usage(S, first.service.request_of(S, B))
    await first.close()

    second = await begin(script=refuses_to_run)
    assert await value_of(second, A) == STORY
    assert await value_of(second, B) == before.values["b"]
    assert await second.service.request_usage(S, second.service.request_of(S, B)) == usage


async def test_what_was_not_done_runs(begin: Begin):
    first = await begin(ticking=True)
    await declared(first, batch(TELL, SING))
    await first.close()

    second = await begin()
    assert await value_of(second, B) == "la la la"


async def test_a_stream_goes_on_at_the_next_character(begin: Begin):
    first = await begin(ticking=True)
    _, events = await first.service.declare(batch(TELL, SING, wait("a", stream=True)))
    seen = await beginning_of(first, events)
    await first.close()

    second = await begin()
    rest = await answer_from(second, len(seen))
    assert seen + rest == STORY
    assert await value_of(second, B) == "la la la"


async def test_log_probabilities_go_on_with_their_text(begin: Begin):
    first = await begin(ticking=True)
    asked = request("r", text("tell"), made("a", logprobs=1))
    _, events = await first.service.declare(batch(asked, wait("a", stream=True)))
    told: list[Delta] = []
    async with aclosing(events):
        while len(told) < 12:
            told.append(await next_of(first, events))
    await first.close()

    seen = told[:5]  # the client's last ones were lost with its connection
    second = await begin()
    offset = sum(len(delta.text) for delta in seen)
    after = [event async for event in second.service.stream(S, A, offset=offset)]
    *deltas, value = after
    assert isinstance(value, Value)
    logprobs = [one for delta in (*seen, *deltas) if isinstance(delta, Delta) for one in delta.logprobs]
    assert tuple(logprobs) == value.logprobs


async def answer_from(staged: Staged, offset: int) -> str:
    pieces = [event.text async for event in staged.service.stream(S, A, offset=offset) if hasattr(event, "text")]
    return "".join(pieces)


async def test_an_output_that_was_made_is_given_to_the_rerun(begin: Begin):
    both = request("r", text("two "), made("a"), text("then sing"), made("b"))
    first = await begin(ticking=True)
    _, events = await first.service.declare(batch(both, wait("a")))
    assert (await next_of(first, events)).value == "one"
    await first.close()

    second = await begin()
    assert await value_of(second, A) == "one"
    assert await value_of(second, B) == "la la la"


async def test_failures_stay_and_can_be_retried(begin: Begin):
    deadly = [Faults(die_after_events=0) for _ in range(3)]
    first = await begin(faults=deadly)
    told = await answer(first.service.submit(batch(TELL, SING, wait("b"))))
    await first.close()

    second = await begin()
    with pytest.raises(EngineFailed) as failed:
        await second.service.wait(S, B)
    assert failed.value.message == told.failures["b"].error.message
    second.service.retry(S, B)
    assert await value_of(second, B) == "la la la"
    await second.close()

    third = await begin()
    assert await value_of(third, B) == "la la la"


async def test_what_a_failed_request_used_stays_in_the_account(begin: Begin):
    first = await begin(faults=[Faults(fail_prompts=("then",))])
    two = request("r", text("tell"), made("a"), text("then"), made("b"))
    await answer(first.service.submit(batch(two, wait("b"))))
    used = first.service.session_view(S).usage
    assert used.output_tokens
    await first.close()

    second = await begin()
    assert second.service.session_view(S).usage == used


async def test_what_a_cancelled_request_used_stays_in_the_account(begin: Begin):
    first = await begin(ticking=True)
    _, events = await first.service.declare(batch(TELL, wait("a", stream=True)))
    await beginning_of(first, events)
    first.service.cancel_variable(S, A)
    while not (used := first.service.session_view(S).usage).output_tokens:  # its engine tells when it has let go of it
        await first.engine.tick()
        await asyncio.sleep(0)
    await first.close()

    second = await begin()
    assert second.service.session_view(S).usage == used


async def test_what_was_cancelled_stays_cancelled(begin: Begin):
    first = await begin()
    await declared(first, batch(VariableSpec(id="a"), request("r2", text("then sing "), taken("a"), made("b"))))
    first.service.cancel_variable(S, A)
    await first.close()

    second = await begin()
    with pytest.raises(Cancelled):
        await second.service.wait(S, B)


async def test_values_that_clients_set_are_kept_for_every_session_that_uses_them(begin: Begin):
    first = await begin()
    await declared(first, batch(VariableSpec(id="a"), session="other"))
    first.service.set_value(SessionId("other"), A, "tell")
    await declared(first, batch(request("r", taken("a"), made("b")), wait("b")))
    first.service.end_session(SessionId("other"))
    await first.close()

    second = await begin()
    assert await value_of(second, B) == STORY
    with pytest.raises(UnknownObject):
        second.service.session_view(SessionId("other"))


async def test_native_calls_are_offered_again_and_their_values_kept(begin: Begin):
    calls: tuple[CallSpec, ...] = (call("f", ["a"], "b"), call("g", ["b"], "c"))
    first = await begin()
    await declared(first, batch(TELL, *calls))
    async with aclosing(first.service.calls(S)) as offers:
        assert (await anext(offers)).id == "f"
        first.service.put_result(S, CallId("f"), CallResult(value="loud"))
        assert (await anext(offers)).id == "g"
    await first.close()

    second = await begin()
    assert await value_of(second, B) == "loud"
    async with aclosing(second.service.calls(S)) as offers:
        offer = await anext(offers)
    assert (offer.id, offer.inputs) == ("g", ("loud",))


async def test_attempts_at_native_calls_are_counted_on(begin: Begin):
    first = await begin()
    await declared(first, batch(call("f", [], "b")))
    first.service.put_result(S, CallId("f"), CallResult(error="no"))
    first.service.retry(S, B)
    await first.close()

    second = await begin()
    assert second.service.put_result(S, CallId("f"), CallResult(error="late"), attempt=1).state == "offered"
    assert second.service.put_result(S, CallId("f"), CallResult(value="yes"), attempt=2).state == "done"


async def test_a_batch_sent_again_after_the_restart_changes_nothing(begin: Begin):
    first = await begin()
    body = batch(TELL, SING, wait("b"))
    await answer(first.service.submit(body))
    await first.close()

    second = await begin(script=refuses_to_run)
    assert (await answer(second.service.submit(body))).values["b"] == "la la la"


async def test_a_session_that_only_waits_for_anothers_value_goes_on_without_it(begin: Begin):
    first = await begin()
    await declared(first, batch(VariableSpec(id="x", value="set"), session="other"))
    await declared(first, batch(TELL, wait("x")))
    first.service.end_session(SessionId("other"))
    await first.close()

    second = await begin()
    assert await value_of(second, VariableId("x")) == "set"
    assert await value_of(second, A) == STORY
