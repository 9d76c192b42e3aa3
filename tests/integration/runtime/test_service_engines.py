"""Engines that die, hang, or are many: what clients see is what one healthy engine would have given."""

import asyncio

import pytest
from runtime_programs import HEARTBEAT, SESSION, Stage, Staged, answer, batch, made, request, taken, text, wait

from parrotserve.engines.fake import Faults
from parrotserve.errors import EngineFailed
from parrotserve.ids import SessionId, VariableId
from parrotserve.runtime.keeper import KeeperPolicy

S = SessionId(SESSION)
A = VariableId("a")

STORY = "Es war einmal ein Känguru 🦘, das „naïve“ Töne sang. 漢字もあるよ!"
SCRIPT = {"tell": STORY, "then sing": "la la la"}
STORY_TOKENS = len(STORY.encode())
SING = (request("r2", text("then sing "), taken("a"), made("b", seed=7, temperature=0.8)), wait("b"))
TELL = (request("r", text("tell"), made("a", seed=7, temperature=0.8)), wait("a", stream=True))


async def until_streamed(staged: Staged, characters: int) -> None:
    """Ticks until a reader of the story has seen so much."""
    seen = 0
    events = staged.service.stream(S, A)
    while seen < characters:
        reading = asyncio.ensure_future(anext(events))
        while not reading.done():
            await staged.engine.tick()
            await asyncio.sleep(0)
        seen += len(getattr(reading.result(), "text", ""))
    await events.aclose()


# The first event, the middle of a character of three bytes and of one of four, and the last token.
@pytest.mark.parametrize("moment", [1, 2, 3, 21, 29, 30, 31, 60, STORY_TOKENS, STORY_TOKENS + 1])
async def test_a_stream_goes_on_where_the_engine_died(stage: Stage, moment: int):
    staged = await stage(script=SCRIPT, faults=[Faults(die_after_events=moment)])
    got = await answer(staged.service.submit(batch(*TELL, *SING)))
    assert got.streamed["a"] == got.values["a"] == STORY
    assert got.values["b"] == "la la la"
    assert len(staged.engines) == 2


async def test_a_stream_survives_two_deaths(stage: Stage):
    staged = await stage(script=SCRIPT, faults=[Faults(die_after_events=9), Faults(die_after_events=9)])
    got = await answer(staged.service.submit(batch(*TELL)))
    assert got.streamed["a"] == STORY
    assert len(staged.engines) == 3


async def test_a_request_that_kills_its_engine_three_times_fails(stage: Stage):
    deadly = [Faults(die_after_events=moment) for moment in (5, 5, 5)]
    staged = await stage(script=SCRIPT, faults=deadly)
    got = await answer(staged.service.submit(batch(*TELL)))
    assert got.failures["a"].error.code == EngineFailed.code
    assert "3 engines died" in got.failures["a"].error.message
    assert STORY.startswith(got.streamed["a"])
    assert len(got.streamed["a"]) > 10


async def test_a_hung_engine_is_replaced_and_the_stream_goes_on(stage: Stage):
    staged = await stage(script=SCRIPT, faults=[Faults(hang_after_events=12)])
    got = await answer(staged.service.submit(batch(*TELL)))
    assert got.streamed["a"] == STORY
    assert len(staged.engines) == 2


async def test_several_outputs_survive_a_death_in_the_second(stage: Stage):
    program = batch(
        request("r", text("tell"), made("a"), text("; then sing"), made("b")),
        wait("a", stream=True),
        wait("b", stream=True),
    )
    staged = await stage(script=SCRIPT, faults=[Faults(die_after_events=STORY_TOKENS + 5)])
    got = await answer(staged.service.submit(program))
    assert got.streamed == got.values == {"a": STORY, "b": "la la la"}


async def test_a_stream_that_begins_in_the_middle_has_the_beginning(stage: Stage):
    staged = await stage(script=SCRIPT, ticking=True)
    await answer(staged.service.submit(batch(request("r", text("tell"), made("a")))))
    while not staged.engine.heartbeat.waiting:
        await asyncio.sleep(0)
    await staged.engine.tick(20)
    reading = asyncio.ensure_future(answer(staged.service.stream(S, A)))
    while not reading.done():
        await staged.engine.tick()
        await asyncio.sleep(0)
    assert reading.result().streamed["a"] == STORY


async def test_a_stream_resumes_at_any_character(stage: Stage):
    staged = await stage(script=SCRIPT, ticking=True)
    await answer(staged.service.submit(batch(request("r", text("tell"), made("a")))))
    await until_streamed(staged, 10)
    reading = asyncio.ensure_future(rest_from(staged, 10))
    while not reading.done():
        await staged.engine.tick()
        await asyncio.sleep(0)
    assert reading.result() == STORY[10:]


async def rest_from(staged: Staged, offset: int) -> str:
    return "".join([getattr(event, "text", "") async for event in staged.service.stream(S, A, offset=offset)])


async def test_a_retry_gives_an_output_that_was_complete_as_its_request_was_cancelled(stage: Stage):
    staged = await stage(script={"tell": "abc"}, ticking=True)
    await answer(staged.service.submit(batch(request("r", text("tell"), made("a")))))
    while not staged.engine.heartbeat.waiting:
        await asyncio.sleep(0)
    staged.service.cancel_variable(S, A)
    await staged.engine.tick(4)  # before the engine is told
    while not staged.service.metrics.get_sample_value("parrot_sequences_total", {"status": "done"}):
        await asyncio.sleep(0)
    staged.service.retry(S, A)
    reading = asyncio.ensure_future(staged.service.wait(S, A, timeout=5))
    while not reading.done():
        await staged.engine.tick()
        await asyncio.sleep(0)
    assert reading.result().value == "abc"


async def test_many_requests_survive_the_death_of_one_of_two_engines(stage: Stage):
    staged = await stage(
        script=SCRIPT, config={"engines": 2}, faults=[Faults(die_after_events=100)], credits=20, max_running=8
    )
    parts = [
        part for n in range(40) for part in (request(f"r{n}", text("tell"), made(f"v{n}")), wait(f"v{n}", stream=True))
    ]
    got = await answer(staged.service.submit(batch(*parts)))
    assert set(got.streamed.values()) == {STORY}
    assert len(got.values) == 40


async def test_a_service_that_has_lost_one_of_its_engines_is_ready(stage: Stage):
    staged = await stage(config={"engines": 2}, faults=[Faults(), Faults(), Faults(start_seconds=3600)])
    await staged.engines[0].die()
    while sorted(view.state for view in staged.service.engines()) != ["restarting", "up"]:
        await asyncio.sleep(0)
    assert staged.ready
    await staged.engines[1].die()
    while staged.ready:
        await asyncio.sleep(0)


async def test_a_service_whose_engines_are_down_is_not_ready(stage: Stage):
    staged = await stage(faults=[Faults(), Faults(start_seconds=3600)])
    assert staged.ready
    await staged.engine.die()
    while staged.ready:
        await asyncio.sleep(0)
    assert [view.state for view in staged.service.engines()] == ["restarting"]


# Without chance, so that the one that is tried first is the one that was given up first.
QUICK = KeeperPolicy(heartbeat=HEARTBEAT, first_backoff=0.001, longest_backoff=0.001, first_retry=0.3, retry_jitter=0.0)
REFUSES = Faults(refuse_start=EngineFailed("no memory"))


@pytest.mark.parametrize("engines", [1, 2])
async def test_a_model_that_was_given_up_serves_again_once_an_engine_of_it_is_back(stage: Stage, engines: int):
    never = Faults(start_seconds=3600)
    faults = [*[Faults()] * engines, *[REFUSES] * 3 * engines, Faults(), never]
    staged = await stage(script=SCRIPT, config={"engines": engines}, faults=faults, policy=QUICK)
    for engine in staged.engines[:]:
        await engine.die()
    early = batch(request("early", text("tell"), made("e")), wait("e"))
    got = await answer(staged.service.submit(early))
    assert "no memory" in got.failures["e"].error.message, "what waits when the last one is given up fails"
    with pytest.raises(EngineFailed, match="no memory"):
        await answer(staged.service.submit(batch(*TELL)))
    for view in staged.service.engines():
        assert (view.state, view.error) == ("failed", "no memory")
        assert 0 <= (view.retry_after or 0.0) <= 0.3
    while not staged.ready:
        await asyncio.sleep(0.001)
    got = await answer(staged.service.submit(batch(*TELL)))
    assert got.values == {"a": STORY}
    states = sorted((view.state, view.error, view.retry_after) for view in staged.service.engines())
    assert states[-1] == ("up", None, None)
    assert [state for state, *_ in states] == ["failed", "up"][-engines:]


async def test_a_long_prompt_keeps_its_place(stage: Stage):
    long = "word " * 20_000
    staged = await stage(script=lambda prompt: f"{len(prompt)}", context_length=1 << 20)
    program = batch(
        request("long", text(long), text("."), made("a")),
        request("short", text("tell"), made("b")),
        wait("a"),
        wait("b"),
    )
    got = await answer(staged.service.submit(program))
    assert got.values == {"a": str(len(long) + 1), "b": "4"}
