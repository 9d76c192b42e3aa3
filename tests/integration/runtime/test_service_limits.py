"""What no engine could take is refused, and what slips through harms nothing else."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from runtime_programs import SESSION, Stage, answer, batch, call, made, request, text, wait

from parrotserve.engines.base import Capability, Command, Open
from parrotserve.engines.fake import FakeEngine
from parrotserve.errors import (
    DeclarationError,
    EngineFailed,
    InternalError,
    InvalidGraph,
    InvalidSampling,
    NativeCallFailed,
)
from parrotserve.graph.changes import Changes
from parrotserve.graph.decisions import Decision
from parrotserve.graph.events import Event, OutputProduced, RequestEnded, Submitted
from parrotserve.ids import CallId, RequestId, SessionId, VariableId
from parrotserve.protocol import CallResult, OutputSegment, VariableSpec
from parrotserve.runtime.runs import Runs
from parrotserve.sampling import Sampling, ToolCalls

S = SessionId(SESSION)
SURROGATE = "caf\udce9"


@pytest.mark.parametrize(
    "sampling",
    [
        {"max_tokens": 10**30},
        {"top_k": 2**64},
        {"logit_bias": {10**30: 1.0}},
        {"logit_bias": {5: float("nan")}},
        {"logit_bias": {5: float("inf")}},
        {"stop": (SURROGATE,)},
        {"schema": {"type": "integer", "maximum": 10**30}},
    ],
)
async def test_numbers_and_texts_that_cannot_be_sent_are_refused(stage: Stage, sampling: dict[str, Any]):
    staged = await stage()
    with pytest.raises(InvalidSampling):
        await answer(staged.service.submit(batch(request("r", text("x"), made("a", **sampling)))))


async def test_tool_calls_with_such_numbers_are_refused(stage: Stage):
    calls = ToolCalls(schema={"type": "integer", "maximum": 10**30}, tagged=True)
    output = OutputSegment(variable="a", sampling=Sampling(), calls=calls)
    staged = await stage()
    with pytest.raises(InvalidSampling):
        await answer(staged.service.submit(batch(request("r", text("x"), output))))


@pytest.mark.parametrize(
    "program",
    [
        batch(request("r", text(SURROGATE), made("a"))),
        batch(request("r", text("x"), made("a")).model_copy(update={"function": SURROGATE})),
        batch(VariableSpec(id="x", value=SURROGATE)),
        batch(VariableSpec(id="x", name=SURROGATE)),
    ],
)
async def test_what_is_no_unicode_text_is_refused(stage: Stage, program: Any):
    staged = await stage()
    with pytest.raises(DeclarationError, match="lone surrogate"):
        await answer(staged.service.submit(program))


@pytest.mark.parametrize(
    "program",
    [
        batch(request("r", text("x"), made("a")).model_copy(update={"function": "f" * 1001})),
        batch(call("f", [], "a").model_copy(update={"function": "f" * 1001})),
        batch(VariableSpec(id="x", name="x" * 1001)),
    ],
)
async def test_names_are_no_texts(stage: Stage, program: Any):
    staged = await stage()
    with pytest.raises(DeclarationError, match="has 1,001 characters, and may have 1,000"):
        await answer(staged.service.submit(program))


async def test_values_that_are_no_unicode_text_are_refused_or_fail_their_call(stage: Stage):
    staged = await stage()
    await answer(
        staged.service.submit(batch(VariableSpec(id="x"), VariableSpec(id="y", value="1"), call("f", ["y"], "z")))
    )
    with pytest.raises(DeclarationError, match="lone surrogate"):
        staged.service.set_value(S, VariableId("x"), SURROGATE)
    staged.service.put_result(S, CallId("f"), CallResult(value=SURROGATE))
    with pytest.raises(NativeCallFailed, match="lone surrogate"):
        await staged.service.wait(S, VariableId("z"))


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan")])
async def test_a_native_call_has_a_timeout_above_nothing(stage: Stage, timeout: float):
    staged = await stage()
    with pytest.raises(InvalidGraph, match="above 0"):
        await answer(staged.service.submit(batch(VariableSpec(id="x"), call("f", ["x"], "a", timeout=timeout))))


async def test_a_request_that_cannot_be_sent_fails_alone(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    send = FakeEngine.send

    async def picky(self: FakeEngine, commands: Sequence[Command]) -> None:
        if any(isinstance(command, Open) and command.sequence == "bad" for command in commands):
            raise OverflowError("too much")
        await send(self, commands)

    monkeypatch.setattr(FakeEngine, "send", picky)
    staged = await stage()
    program = batch(
        request("good", text("x"), made("a")),
        request("bad", text("x"), made("b")),
        request("better", text("x"), made("c")),
        *(wait(name) for name in "abc"),
    )
    got = await answer(staged.service.submit(program))
    assert set(got.values) == {"a", "c"}
    assert got.failures["b"].error.code == EngineFailed.code
    assert "too much" in got.failures["b"].error.message
    assert len(staged.engines) == 1


@pytest.mark.parametrize(
    ("capability", "sampling"),
    [(Capability.GRAMMAR, {"schema": {"type": "integer"}}), (Capability.LOGPROBS, {"logprobs": 1})],
)
async def test_what_an_engine_cannot_do_fails_the_request_that_asks_for_it(
    stage: Stage, capability: Capability, sampling: dict[str, Any]
):
    staged = await stage(capabilities=frozenset(Capability) - {capability})
    program = batch(
        request("asks", text("x"), made("a", **sampling)), request("other", text("x"), made("b")), wait("a"), wait("b")
    )
    got = await answer(staged.service.submit(program))
    assert got.failures["a"].error.code == EngineFailed.code
    assert capability in got.failures["a"].error.message
    assert set(got.values) == {"b"}


async def test_many_requests_at_once_all_run(stage: Stage):
    staged = await stage(script=lambda prompt: prompt[::-1], max_running=128)
    parts = [part for n in range(300) for part in (request(f"r{n}", text(f"{n:03}"), made(f"v{n}")), wait(f"v{n}"))]
    got = await answer(staged.service.submit(batch(*parts)))
    assert got.values == {f"v{n}": f"{n:03}"[::-1] for n in range(300)}


async def test_a_bug_in_the_machine_ends_the_waits_that_it_would_leave_open(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    staged = await stage()
    machine = staged.service._driver.machine
    handle = machine.handle

    def buggy(event: Event, now: float) -> list[Decision]:
        if isinstance(event, OutputProduced | RequestEnded) and event.request == "cursed":
            raise RuntimeError("no such transition")
        return handle(event, now)

    monkeypatch.setattr(machine, "handle", buggy)
    other = batch(request("blessed", text("x"), made("b")), wait("b"), session="other")
    program = batch(request("cursed", text("x"), made("a")), wait("a"))
    got, fine = await asyncio.gather(*(answer(staged.service.submit(one)) for one in (program, other)))
    assert "unexpected error" in got.failures["a"].error.message
    assert got.failures["a"].error.code == "internal_error"
    assert set(fine.values) == {"b"}
    assert "no such transition" in caplog.text


async def test_a_bug_in_the_machine_is_told_to_whoever_brought_what_it_could_not_take_in(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    staged = await stage()
    machine = staged.service._driver.machine
    take_in = machine._submit

    def buggy(event: Submitted, changes: Changes) -> None:
        take_in(event, changes)
        raise RuntimeError("no such transition")

    monkeypatch.setattr(machine, "_submit", buggy)
    with pytest.raises(InternalError, match="unexpected error"):
        await answer(staged.service.submit(batch(request("cursed", text("x"), made("a")), wait("a"))))
    assert "no such transition" in caplog.text


async def test_a_decision_that_cannot_be_carried_out_fails_its_request(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    staged = await stage()
    begin = Runs.begin

    def buggy(self: Runs, name: RequestId, epoch: int, outputs: Sequence[VariableId]) -> Any:
        if name == "cursed":
            raise KeyError(name)
        return begin(self, name, epoch, outputs)

    monkeypatch.setattr(Runs, "begin", buggy)
    program = batch(
        request("cursed", text("x"), made("a")), request("blessed", text("x"), made("b")), wait("a"), wait("b")
    )
    got = await answer(staged.service.submit(program))
    assert set(got.failures) == {"a"}
    assert set(got.values) == {"b"}
