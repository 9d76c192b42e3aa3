"""A service that ends and is started again on the same journal: its sessions go on where they were."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from runtime_programs import SESSION, Stage, Staged, answer, batch, call, made, request, taken, text, wait

from parrotserve.config import ServiceConfig
from parrotserve.engines.fake import FakeEngine, Faults
from parrotserve.errors import Cancelled, EngineFailed, UnknownObject
from parrotserve.graph.events import NewVariable, Submitted
from parrotserve.ids import LOCAL_TENANT, CallId, RequestId, SessionId, VariableId
from parrotserve.models.pull import Progress
from parrotserve.protocol import CallResult, CallSpec, Delta, Submit, Value, VariableSpec, WireTransform
from parrotserve.runtime.catalog import ServedModel, fake_model
from parrotserve.runtime.service import Service
from parrotserve.store.entries import encoded_batch
from parrotserve.store.journal import Entry, Journal

S = SessionId(SESSION)
A, B = VariableId("a"), VariableId("b")
STORY = "Es war einmal ein Känguru 🦘, das „naïve“ Töne sang. 漢字もあるよ!"
SCRIPT = {"tell": STORY, "then sing": "la la la", "two": "one", "fail": "x"}
TELL = request("r", text("tell"), made("a", seed=7, temperature=0.8))
SING = request("r2", text("then sing "), taken("a"), made("b", seed=7))

Begin = Callable[..., Awaitable[Staged]]


@pytest.fixture
def begin(stage: Stage, tmp_path: Path) -> Begin:
    """Starts a service on the test's journal; the one before must have been closed."""

    async def one(**options: Any) -> Staged:
        return await stage(journal=tmp_path / "journal.db", **{"script": SCRIPT} | options)

    return one


def refuses_to_run(prompt: str) -> str:
    """A script for engines that nothing should be sent to."""
    raise AssertionError(prompt)


async def declared(staged: Staged, body: Submit) -> None:
    _, events = await staged.service.declare(body)
    await events.aclose()


async def next_of(staged: Staged, events: AsyncGenerator[Any, None]) -> Any:
    """The next event, while the engine ticks."""
    reading = asyncio.ensure_future(anext(events))
    while not reading.done():
        await staged.engine.tick()
        await asyncio.sleep(0)
    return reading.result()


async def beginning_of(staged: Staged, events: AsyncGenerator[Any, None]) -> str:
    """The first 20 characters of a stream, or more."""
    seen = ""
    async with aclosing(events):
        while len(seen) < 20:
            seen += (await next_of(staged, events)).text
    return seen


async def value_of(staged: Staged, variable: VariableId) -> str:
    return (await staged.service.wait(S, variable)).value


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


async def test_a_session_that_only_waits_for_anothers_value_comes_back(begin: Begin):
    first = await begin()
    await declared(first, batch(VariableSpec(id="a", value="set"), session="other"))
    await declared(first, batch(VariableSpec(id="b", value="mine"), wait("a")))
    first.service.end_session(SessionId("other"))
    await first.close()

    second = await begin()
    assert (await value_of(second, A), await value_of(second, B)) == ("set", "mine")


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


async def test_a_session_that_ended_is_gone_and_its_texts_too(begin: Begin, tmp_path: Path):
    first = await begin()
    await declared(first, batch(TELL, request("x", text("A secret."), made("b")), wait("a")))
    await first.service.committed()
    assert b"A secret." in everything_in(tmp_path)
    first.service.end_session(S)
    await first.close()
    assert b"A secret." not in everything_in(tmp_path)

    second = await begin()
    assert second.service.sessions(None).data == ()


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_a_batch_sent_again_after_the_restart_changes_nothing(begin: Begin):
    first = await begin()
    body = batch(TELL, SING, wait("b"))
    await answer(first.service.submit(body))
    await first.close()

    second = await begin(script=refuses_to_run)
    assert (await answer(second.service.submit(body))).values["b"] == "la la la"


async def test_a_session_whose_model_is_not_served_waits_in_the_journal(begin: Begin, caplog: pytest.LogCaptureFixture):
    first = await begin()
    await answer(first.service.submit(batch(TELL, wait("a"))))
    await first.close()

    second = await begin(config={"models": ("other",)})
    with pytest.raises(UnknownObject):
        second.service.session_view(S)
    assert "cannot go on" in caplog.text
    await second.close()

    third = await begin()
    assert await value_of(third, A) == STORY


async def test_what_is_sent_again_is_not_written_again(begin: Begin):
    document = VariableSpec(id="doc", value="A long document. " * 1000)
    first = await begin()
    await declared(first, batch(document, session="other"))
    body = batch(VariableSpec(id="x"), VariableSpec(id="y"), request("r", taken("doc"), taken("x"), made("a")))

    async def do_all(number: int) -> int:
        await declared(first, body)
        await declared(first, batch(document))
        await declared(first, batch(request(f"r{number}", taken("doc"), made(f"b{number}"))))
        first.service.set_value(S, VariableId("x"), "x" * 10_000)
        first.service.cancel_variable(S, VariableId("y"))
        await first.service.committed()
        return sum(len(entry.body) for entry in entries_of(first))

    once = await do_all(1)
    assert await do_all(2) - once < 1000


def entries_of(staged: Staged) -> list[Entry]:
    assert staged.journal is not None
    return [entry for _, entries in staged.journal.sessions() for entry in entries]


async def test_a_session_that_only_waits_for_anothers_value_goes_on_without_it(begin: Begin):
    first = await begin()
    await declared(first, batch(VariableSpec(id="x", value="set"), session="other"))
    await declared(first, batch(TELL, wait("x")))
    first.service.end_session(SessionId("other"))
    await first.close()

    second = await begin()
    assert await value_of(second, VariableId("x")) == "set"
    assert await value_of(second, A) == STORY


async def test_a_new_session_has_nothing_of_one_of_its_id_that_could_not_go_on(begin: Begin, tmp_path: Path):
    first = await begin()
    await answer(first.service.submit(batch(TELL, wait("a"))))
    await first.close()

    second = await begin(config={"models": ("other",)})
    await answer(second.service.submit(batch(request("r", text("two"), made("a")), wait("a"))))
    await second.close()

    third = await begin(config={"models": ("other",)})
    assert await value_of(third, A) == "one"
    third.service.end_session(S)
    await third.close()
    assert STORY.encode() not in everything_in(tmp_path)


async def test_nothing_is_left_of_a_session_that_is_refused(begin: Begin, tmp_path: Path):
    first = await begin(ticking=True)
    await declared(first, batch(TELL))
    await beginning_of(first, first.service.stream(S, A))
    await first.close()
    journal = Journal(tmp_path / "journal.db")
    again = Submitted(session=S, tenant=LOCAL_TENANT, lease_seconds=30, variables=(NewVariable(id=A, name="another"),))
    journal.add(S, Entry("batch", "", encoded_batch(again)))
    await journal.close()

    second = await begin()
    assert second.service.recovered == 0
    new = await answer(second.service.submit(batch(request("r", text("two"), made("a")), wait("a", stream=True))))
    assert new.streamed == new.values == {"a": "one"}


async def test_numbers_of_any_size_can_be_kept(begin: Begin):
    every_line = WireTransform(name="lines", args=(1, 10**30))
    first = await begin(ticking=True)
    await declared(first, batch(VariableSpec(id="x", value="tell"), request("r", taken("x", every_line), made("a"))))
    await first.close()

    second = await begin()
    assert await value_of(second, A) == STORY


async def test_leases_begin_when_all_models_are_there(begin: Begin, tmp_path: Path):
    first = await begin(config={"models": ("fake", "slow")})
    await declared(first, batch(TELL, lease=0.2))
    await declared(first, batch(request("s", text("two"), made("x"), model="slow"), session="other"))
    await first.close()

    def load(name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
        time.sleep(0.5 if name == "slow" else 0)
        return fake_model(lambda engine: FakeEngine(engine, ticking=True), name=name)

    journal = Journal(tmp_path / "journal.db")
    service = await Service.start(
        ServiceConfig(models=("fake",), on_demand=True), load=load, journal=journal, by_path=True
    )
    back = {one.id for one in service.sessions(None).data}
    await service.close()
    await journal.close()
    assert back == {SESSION, "other"}


async def test_what_a_request_used_is_told_once_it_is_committed(begin: Begin):
    staged = await begin()
    journal = staged.journal
    assert journal is not None
    await declared(staged, batch(TELL))
    assert await value_of(staged, A) == STORY
    with journal._using:
        journal.add(S, Entry("usage", "r", b""))
        telling = asyncio.ensure_future(staged.service.request_usage(S, RequestId("r")))
        await asyncio.sleep(0.1)
        assert not telling.done()
    assert (await telling).output_tokens
