"""Programs run by the service: dependent requests, failures, timeouts, sessions."""

import asyncio
from functools import partial

import pytest
from runtime_programs import SESSION, Stage, answer, batch, made, request, taken, text, wait

from parrotserve.engines.base import Capability
from parrotserve.engines.fake import Faults
from parrotserve.errors import (
    AlreadyProduced,
    DeclarationError,
    EngineFailed,
    GetTimeout,
    InvalidGraph,
    TransformFailed,
    UnknownModel,
    UnknownObject,
)
from parrotserve.ids import SessionId, VariableId
from parrotserve.machine import Machine
from parrotserve.protocol import RequestSpec, TokensSegment, VariableSpec, WireTransform
from parrotserve.runtime.board import AT_ONCE
from parrotserve.runtime.keeper import Order

S = SessionId(SESSION)
A, B = VariableId("a"), VariableId("b")

CODE = batch(
    VariableSpec(id="task", value="a snake game"),
    request("Code", text("Write code of "), taken("task"), text(". Code:"), made("a")),
    request("Test", text("Test "), taken("a"), text(". Test:"), made("b")),
)
SCRIPT = {"Write code of a snake game. Code:": "import snake", "Test import snake. Test:": "assert snake"}


async def test_dependent_requests_run_on_the_server_in_one_exchange(stage: Stage):
    staged = await stage(script=SCRIPT)
    program = CODE.model_copy(update={"wait": (wait("b"), wait("a", stream=True))})
    got = await answer(staged.service.submit(program))
    assert got.accepted
    assert got.values == {"a": "import snake", "b": "assert snake"}
    assert got.streamed == {"a": "import snake"}


async def test_an_engine_of_text_gives_the_same(stage: Stage):
    staged = await stage(script=SCRIPT, capabilities=frozenset(Capability) - {Capability.TOKENS})
    got = await answer(staged.service.submit(CODE.model_copy(update={"wait": (wait("b"),)})))
    assert got.values == {"b": "assert snake"}


async def test_several_outputs_of_a_request_come_one_after_another(stage: Stage):
    staged = await stage(script={"Q": "first", "first, then": "second"})
    program = batch(request("r", text("Q:"), made("a"), text(", then"), made("b")), wait("a"), wait("b", stream=True))
    got = await answer(staged.service.submit(program))
    assert got.values == {"a": "first", "b": "second"}


async def test_transforms_are_applied_by_the_service(stage: Stage):
    staged = await stage(script={"make": "```python\nx = 1\n```", "use x = 1 now": "used"})
    program = batch(
        request("one", text("make"), made("a")),
        request("two", text("use "), taken("a", WireTransform(name="code_block")), text(" now"), made("b")),
        wait("b"),
    )
    assert (await answer(staged.service.submit(program))).values == {"b": "used"}


async def test_a_transform_that_does_not_fit_fails_the_request_that_reads_it_and_no_other(stage: Stage):
    staged = await stage(script={"make": '{"steps": ["boil", "steep"]}', "use steep": "used", "try": "tried"})

    def read(name: str, transform: str, argument: str, output: str) -> RequestSpec:
        return request(name, text("use "), taken("a", WireTransform(name=transform, args=(argument,))), made(output))

    program = batch(
        request("make", text("make"), made("a")),
        read("good", "json", "steps[1]", "b"),
        read("wrong", "json", "steps[2]", "c"),
        read("none", "regex", "fry", "d"),
        *map(wait, "abcd"),
    )
    got = await answer(staged.service.submit(program))
    assert got.values == {"a": '{"steps": ["boil", "steep"]}', "b": "used"}
    assert {failure.error.code for failure in got.failures.values()} == {TransformFailed.code}
    assert "'steps' has 2 items" in got.failures["c"].error.message
    assert "no match of 'fry'" in got.failures["d"].error.message
    assert "wrong" in got.failures["c"].error.message


async def test_what_was_declared_can_be_waited_for_and_streamed_later(stage: Stage):
    staged = await stage(script=SCRIPT)
    await answer(staged.service.submit(CODE))
    assert (await staged.service.wait(S, B)).value == "assert snake"
    got = await answer(staged.service.stream(S, A, offset=0))
    assert got.streamed == got.values == {"a": "import snake"}
    rest = [event async for event in staged.service.stream(S, A, offset=7)]
    assert [getattr(event, "text", None) for event in rest] == ["snake", None]


async def test_a_variable_that_is_set_later_lets_its_consumers_run(stage: Stage):
    staged = await stage(script={"hello you": "hi"})
    program = batch(VariableSpec(id="who"), request("r", text("hello "), taken("who"), made("a")))
    await answer(staged.service.submit(program))
    staged.service.set_value(S, VariableId("who"), "you")
    assert (await staged.service.wait(S, A)).value == "hi"
    with pytest.raises(AlreadyProduced):
        staged.service.set_value(S, VariableId("who"), "me")
    with pytest.raises(AlreadyProduced):
        staged.service.set_value(S, A, "no")


async def test_more_readers_of_a_value_than_one_event_takes_in_all_get_theirs(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("parrotserve.runtime.service.Machine", partial(Machine, at_once=3))
    service = (await stage(script={"say word": "said"})).service
    names = [f"x{number}" for number in range(20)]
    readers = [request(f"r{name}", text("say "), taken("doc"), made(name)) for name in names]
    await answer(service.submit(batch(VariableSpec(id="doc"), *readers)))
    (keeper,) = service._driver.keepers.values()
    orders = list[Order]()
    with monkeypatch.context() as held:
        held.setattr(keeper, "order", orders.append)  # so that nothing the engine says moves it on
        service.set_value(S, VariableId("doc"), "word")
        while service._driver.machine.unfinished:
            assert len(orders) < 20
            await asyncio.sleep(0)
    for order in orders:
        keeper.order(order)
    waiting = [asyncio.ensure_future(service.wait(S, VariableId(name))) for name in names]
    assert [one.value for one in await asyncio.gather(*waiting)] == ["said"] * 20


async def test_a_set_value_is_used_in_another_session_even_after_its_own_has_ended(stage: Stage):
    staged = await stage(script={"say word": "said"})
    await answer(staged.service.submit(batch(VariableSpec(id="w", value="word"), session="first")))
    other = batch(request("r", text("say "), taken("w"), made("a")), wait("w"), wait("a"), session="second")
    assert (await answer(staged.service.submit(other))).values == {"w": "word", "a": "said"}
    staged.service.end_session(SessionId("first"))
    assert (await staged.service.wait(SessionId("second"), VariableId("w"))).value == "word"


async def test_a_failure_flows_downstream_with_its_cause(stage: Stage):
    staged = await stage(faults=[Faults(fail_prompts=("broken",))])
    program = batch(
        request("First", text("broken"), made("a")),
        request("Second", text("from "), taken("a"), made("b")),
        wait("b"),
        wait("a"),
    )
    got = await answer(staged.service.submit(program))
    assert {failure.error.code for failure in got.failures.values()} == {EngineFailed.code}
    assert "First" in got.failures["b"].error.message
    with pytest.raises(EngineFailed, match="First"):
        await staged.service.wait(S, B)


async def test_a_wait_that_runs_out_cancels_nothing(stage: Stage):
    staged = await stage(script=SCRIPT, ticking=True)
    program = CODE.model_copy(update={"wait": (wait("a", timeout=0.0), wait("b", timeout=0.01))})
    got = await answer(staged.service.submit(program))
    assert {failure.error.code for failure in got.failures.values()} == {GetTimeout.code}
    with pytest.raises(GetTimeout):
        await staged.service.wait(S, A, timeout=0.01)
    waiting = asyncio.ensure_future(staged.service.wait(S, B))
    await tick_until(staged, waiting)
    assert waiting.result().value == "assert snake"


async def tick_until(staged, done: asyncio.Future) -> None:
    while not done.done():
        await staged.engine.tick()
        await asyncio.sleep(0)


async def test_the_same_batch_again_changes_nothing(stage: Stage):
    staged = await stage(script=SCRIPT)
    program = CODE.model_copy(update={"wait": (wait("b"),)})
    first, second = await answer(staged.service.submit(program)), await answer(staged.service.submit(program))
    assert first.values == second.values == {"b": "assert snake"}
    assert len(staged.service.session_view(S).requests) == 2


async def test_a_refused_batch_leaves_nothing(stage: Stage):
    staged = await stage()
    bad = batch(request("r", text("x"), taken("nowhere"), made("a")), wait("a"))
    with pytest.raises(UnknownObject):
        await answer(staged.service.submit(bad))
    with pytest.raises(UnknownObject):
        staged.service.session_view(S)


async def test_a_cycle_is_refused(stage: Stage):
    staged = await stage()
    cycle = batch(request("one", taken("b"), made("a")), request("two", taken("a"), made("b")))
    with pytest.raises(InvalidGraph):
        await answer(staged.service.submit(cycle))


async def test_an_unknown_model_is_refused_with_those_that_are_served(stage: Stage):
    staged = await stage()
    with pytest.raises(UnknownModel, match="does not serve 'gpt-9'; it serves: fake"):
        await answer(staged.service.submit(batch(request("r", text("x"), made("a"), model="gpt-9"))))


async def test_models_are_served_beside_each_other_and_on_demand(stage: Stage):
    staged = await stage(config={"models": ("one", "two"), "on_demand": True, "engines": 2}, by_path=True)
    program = batch(
        request("r1", text("x"), made("a")),
        request("r2", text("x"), made("b"), model="two"),
        request("r3", text("x"), made("c"), model="three"),
        wait("a"),
        wait("b"),
        wait("c"),
    )
    got = await answer(staged.service.submit(program))
    assert set(got.values) == {"a", "b", "c"}
    view = staged.service.session_view(S)
    assert [(one.model, (one.engine or "")[:-2]) for one in view.requests] == [
        ("one", "one"),
        ("two", "two"),
        ("three", "three"),
    ]
    assert [(model.name, model.default) for model in staged.service.models()] == [
        ("one", True),
        ("two", False),
        ("three", False),
    ]
    assert len(staged.engines) == 6


@pytest.mark.parametrize("name", ["/etc/passwd", "/nowhere/model.gguf", "three", ""])
async def test_from_the_network_only_known_models_are_served_on_demand(stage: Stage, name: str):
    staged = await stage(config={"models": ("one",), "on_demand": True})
    with pytest.raises(UnknownModel, match="; it serves: one; when named: smollm2-135m") as refused:
        await answer(staged.service.submit(batch(request("r", text("x"), made("a"), model=name))))
    assert refused.value.message.startswith(f"This service does not serve {name!r}")
    got = await answer(
        staged.service.submit(batch(request("r", text("x"), made("a"), model="SmolLM2-135M"), wait("a")))
    )
    assert set(got.values) == {"a"}
    assert len(staged.engines) == 2


async def test_what_is_refused_starts_no_engine(stage: Stage):
    staged = await stage(config={"models": ("one",), "on_demand": True})
    with pytest.raises(UnknownObject):
        await answer(staged.service.submit(batch(request("r", text("x"), taken("y"), made("a"), model="fake"))))
    assert len(staged.engines) == 1
    got = await answer(staged.service.submit(batch(request("r", text("x"), made("a"), model="fake"), wait("a"))))
    assert set(got.values) == {"a"}
    assert len(staged.engines) == 2


async def test_a_file_has_its_engines_once_however_its_path_is_written(stage: Stage):
    staged = await stage(config={"models": ("one",), "on_demand": True}, by_path=True)
    for number, name in enumerate(("/m/x.gguf", "/m/./x.gguf", "//m/x.gguf", "/m/../m/x.gguf")):
        await answer(staged.service.submit(batch(request(f"r{number}", text("x"), made(f"v{number}"), model=name))))
    assert [model.name for model in staged.service.models()] == ["one", "/m/x.gguf"]
    assert len(staged.engines) == 2


@pytest.mark.parametrize(
    ("models", "answers"),
    [
        (("one", "two"), "one"),
        (("one", "default"), "default"),
        (("Default",), "Default"),
        (("default", "one"), "default"),
    ],
)
async def test_default_is_the_first_model_unless_another_is_configured_by_that_name(
    stage: Stage, models: tuple[str, ...], answers: str
):
    staged = await stage(config={"models": models, "on_demand": True})
    for number, name in enumerate(("default", "DEFAULT")):
        await answer(staged.service.submit(batch(request(f"r{number}", text("x"), made(f"v{number}"), model=name))))
    view = staged.service.session_view(S)
    assert [one.model for one in view.requests] == [answers, answers]
    assert staged.service.model_view("default").name == answers
    assert [model.name for model in staged.service.models()] == list(models)
    assert [model.name for model in staged.service.models() if model.default] == [models[0]]


async def test_cancelling_a_variable_frees_its_engine(stage: Stage):
    staged = await stage(ticking=True)
    program = batch(
        request("one", text("x"), made("a")), request("two", taken("a"), made("b")), wait("b"), session=SESSION
    )
    waiting = asyncio.ensure_future(answer(staged.service.submit(program)))
    while not (staged.engine.heartbeat.running or staged.engine.heartbeat.waiting):
        await asyncio.sleep(0)
    staged.service.cancel_variable(S, B)
    got = await waiting
    assert got.failures["b"].error.code == "cancelled"
    while staged.engine.heartbeat.running or staged.engine.heartbeat.waiting:
        await staged.engine.tick()
        await asyncio.sleep(0)


async def test_a_batch_is_refused_where_no_engine_of_its_model_could_be_started(stage: Stage):
    staged = await stage(faults=[Faults(refuse_start=EngineFailed("no memory"))] * 3, started=False)
    program = batch(request("r", text("x"), made("a")), session=SESSION)
    with pytest.raises(EngineFailed, match="no memory"):
        await staged.service.wait_started()
    with pytest.raises(EngineFailed, match="no memory"):
        await answer(staged.service.submit(program))


async def test_requests_that_wait_for_an_engine_fail_when_it_is_given_up(stage: Stage):
    faults = [Faults(start_seconds=0.01, refuse_start=EngineFailed("no memory"))] * 3
    staged = await stage(faults=faults, started=False)
    got = await answer(staged.service.submit(batch(request("r", text("x"), made("a")), wait("a"))))
    assert got.failures["a"].error.code == EngineFailed.code
    assert "no memory" in got.failures["a"].error.message
    assert not staged.ready


async def test_a_failed_variable_is_produced_again_on_retry(stage: Stage):
    said = {"broken": True}

    def script(prompt: str) -> str:
        if said["broken"]:
            raise EngineFailed("a bad day")
        return "well"

    staged = await stage(script=script)
    got = await answer(staged.service.submit(batch(request("r", text("x"), made("a")), wait("a"))))
    assert "a bad day" in got.failures["a"].error.message
    said["broken"] = False
    staged.service.retry(S, A)
    assert (await staged.service.wait(S, A)).value == "well"


async def test_a_session_ends_with_its_exchanges(stage: Stage):
    staged = await stage(ticking=True)
    waiting = asyncio.ensure_future(answer(staged.service.submit(CODE.model_copy(update={"wait": (wait("b"),)}))))
    while not staged.engine.heartbeat.waiting:
        await asyncio.sleep(0)
    staged.service.end_session(S)
    got = await waiting
    assert got.failures["b"].error.code == "cancelled"
    with pytest.raises(UnknownObject):
        await staged.service.wait(S, B)


async def test_an_answer_read_only_after_its_session_ended_says_so(stage: Stage):
    staged = await stage(ticking=True)
    _, events = await staged.service.declare(CODE.model_copy(update={"wait": (wait("b"),)}))
    staged.service.end_session(S)
    got = await answer(events)
    assert got.failures["b"].error.code == UnknownObject.code


async def test_a_prompt_may_be_the_tokens_themselves(stage: Stage):
    staged = await stage(script={"Q:": "told"})
    got = await answer(staged.service.submit(batch(request("r", TokensSegment(tokens=(81, 58)), made("a")), wait("a"))))
    assert got.values == {"a": "told"}


async def test_tokens_that_the_model_does_not_have_are_refused(stage: Stage):
    staged = await stage()
    program = batch(request("r", TokensSegment(tokens=(81, 300)), made("a")))
    with pytest.raises(DeclarationError, match="Token 300"):
        await staged.service.declare(program)


@pytest.mark.parametrize(("prompt", "kept"), [("Q:", " told"), ("Q: ", "told")])
async def test_a_space_that_the_prompt_does_not_have_may_be_kept(stage: Stage, prompt: str, kept: str):
    staged = await stage(script={"Q:": " told"})
    program = batch(request("r", text(prompt), made("a", keep_space=True)), wait("a"))
    assert (await answer(staged.service.submit(program))).values == {"a": kept}


async def test_who_waits_for_many_variables_lets_others_go_on(stage: Stage):
    staged = await stage()
    names = [f"v{number}" for number in range(5 * AT_ONCE)]
    program = batch(*(VariableSpec(id=name, value="there") for name in names), *map(wait, names))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    _, events = await staged.service.declare(program)
    beside = asyncio.create_task(others())
    got = await answer(events)
    beside.cancel()
    assert len(got.values) == len(names)
    assert turns >= 8, "while all are looked at, and while all are told"
