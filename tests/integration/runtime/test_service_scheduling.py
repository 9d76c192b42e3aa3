"""What the scheduler decides reaches the engines: reading ahead, pauses, retained beginnings."""

import asyncio

from runtime_programs import Stage, Staged, answer, batch, made, request, taken, text, wait

from parrotserve.criteria import Criteria
from parrotserve.protocol import VariableSpec, WireTransform

LONG = "You are a careful reader of very long texts. " * 8


async def ticks(staged: Staged, count: int) -> None:
    """Lets an engine make steps, and the service hear of them."""
    for _ in range(count):
        await staged.engine.tick()
        for _ in range(5):
            await asyncio.sleep(0)


async def until(staged: Staged, done: "asyncio.Future[object]") -> None:
    while not done.done():
        await ticks(staged, 1)


def opened(staged: Staged) -> dict[str, str]:
    """What the engine knows of each open sequence."""
    return {state.sequence: staged.engine.tokenizer.decode(state.known) for state in staged.engine._core._sequences}


async def test_a_prompt_is_read_while_its_input_is_being_written(stage: Stage):
    words = "import snake and then go on for a good while with words that end in a space or two, as words do. " * 2
    staged = await stage(script={"Write": words, "Test it:": "tested"}, ticking=True)
    program = batch(
        request("Write", text("Write"), made("code", max_tokens=250)),
        request("Test", text("Test it: "), taken("code"), text(" Now:"), made("test")),
        wait("test"),
    )
    waiting = asyncio.ensure_future(answer(staged.service.submit(program)))
    await ticks(staged, 20)
    assert opened(staged)["Test"] == "Test it:"
    await ticks(staged, 100)
    early = opened(staged)["Test"]
    assert early.startswith("Test it: import snake and then")
    assert f"Test it: {words}".startswith(early)
    await until(staged, waiting)
    assert waiting.result().values == {"test": "tested"}


async def test_nothing_is_read_ahead_without_the_switch(stage: Stage):
    staged = await stage(script={"Write": "words " * 30}, ticking=True, config={"without": ("ahead",)})
    program = batch(
        request("Write", text("Write"), made("code")),
        request("Test", text("Test it: "), taken("code"), made("test")),
        wait("test"),
    )
    waiting = asyncio.ensure_future(answer(staged.service.submit(program)))
    await ticks(staged, 50)
    assert opened(staged).keys() == {"Write"}
    await until(staged, waiting)


async def test_a_writer_that_is_run_again_does_not_confuse_its_reader(stage: Stage):
    words = "one two three four five six seven eight nine ten and so on until this is long enough to be sent early " * 2
    script = {"Write": words, "Test it:": "tested"}
    staged = await stage(script=script, ticking=True)
    program = batch(
        request("Write", text("Write"), made("code", max_tokens=250)),
        request("Test", text("Test it: "), taken("code"), text(" Now:"), made("test")),
        wait("test"),
    )
    waiting = asyncio.ensure_future(answer(staged.service.submit(program)))
    await ticks(staged, 100)
    await staged.engine.die()
    while len(staged.engines) < 2 or not opened(staged):
        await asyncio.sleep(0.001)
    await until(staged, waiting)
    assert waiting.result().values == {"test": "tested"}


async def test_a_failure_of_what_was_read_ahead_is_told_as_ever(stage: Stage):
    staged = await stage(script={"Write": "x" * 100}, context_length=150)
    program = batch(
        request("Write", text("Write"), made("code")),
        request("Test", text("Test it, " * 10), taken("code"), made("test")),
        wait("test"),
        wait("code"),
    )
    got = await answer(staged.service.submit(program))
    assert got.values.keys() == {"code"}
    assert got.failures["test"].error.code == "context_exceeded"


async def test_what_was_read_ahead_is_paid_for_though_it_fails(stage: Stage):
    staged = await stage(script={"Write": "no JSON, " * 10}, ticking=True)
    program = batch(
        request("Write", text("Write"), made("code", max_tokens=100)),
        request("Test", text(LONG), taken("code", WireTransform(name="json", args=("a",))), made("test")),
        wait("test"),
    )
    waiting = asyncio.ensure_future(answer(staged.service.submit(program)))
    await ticks(staged, 20)
    assert opened(staged)["Test"].startswith("You are a careful reader")
    await until(staged, waiting)
    assert waiting.result().failures["test"].error.code == "transform_failed"
    await ticks(staged, 20)
    (row,) = await staged.service.usage(None)
    assert row.requests == 2
    assert row.prompt_tokens >= len(LONG.strip())


async def test_who_is_waited_for_does_not_wait_for_bulk_work(stage: Stage):
    staged = await stage(script={"Bulk": "b" * 200, "Chat": "hello"}, ticking=True, max_running=1)
    bulk = batch(request("Bulk", text("Bulk"), made("b")), wait("b", criteria=Criteria.THROUGHPUT), session="bulk")
    chat = batch(request("Chat", text("Chat"), made("c")), wait("c"), session="chat")
    working = asyncio.ensure_future(answer(staged.service.submit(bulk)))
    await ticks(staged, 5)
    talking = asyncio.ensure_future(answer(staged.service.submit(chat)))
    await until(staged, talking)
    assert talking.result().values == {"c": "hello"}
    assert not working.done()
    await until(staged, working)
    assert working.result().values == {"b": "b" * 200}


async def test_an_engine_keeps_what_waiting_requests_begin_with(stage: Stage):
    staged = await stage(script={"one": "1", "other": "2", "two": "3"}, ticking=True, max_running=1)
    program = batch(
        request("One", text(LONG), text("one"), made("a")),
        request("Other", text("other"), made("b", max_tokens=9)),
        request("Two", text(LONG), text("two"), made("c")),
        *(wait(name) for name in "abc"),
    )
    waiting = asyncio.ensure_future(answer(staged.service.submit(program)))
    retained = []
    while not waiting.done():
        await ticks(staged, 1)
        retained.append(staged.engine.heartbeat.retained_pages)
    assert max(retained) == len(LONG.rstrip())
    assert retained[-1] == 0


async def test_a_beginning_that_cannot_be_made_harms_no_engine(stage: Stage):
    staged = await stage(script={"fine": "fine"})
    begins = (text(LONG), taken("x", WireTransform(name="json", args=("a",))))
    program = batch(
        VariableSpec(id="x", value="no JSON"),
        VariableSpec(id="later"),
        request("One", *begins, text("one"), made("a")),
        request("Two", *begins, taken("later"), made("b")),
        wait("a"),
    )
    got = await answer(staged.service.submit(program))
    assert got.failures["a"].error.code == "transform_failed"
    fine = await answer(
        staged.service.submit(batch(request("Fine", text("fine"), made("c")), wait("c"), session="s-2"))
    )
    assert fine.values == {"c": "fine"}
    assert len(staged.engines) == 1
