"""Native calls that the service runs itself, among requests, within limits, and without being noticed."""

import asyncio
from typing import Any

import psutil
import pytest
from runtime_programs import SESSION, Stage, answer, batch, made, request, taken, text, wait

from parrotserve.errors import Cancelled, InvalidGraph, NativeCallFailed
from parrotserve.ids import CallId, SessionId, VariableId
from parrotserve.protocol import CallResult, CallSpec, ListArgument, SandboxSpec, ValueArgument, VariableArgument

S = SessionId(SESSION)
JOIN = "def join(texts, mark):\n    return mark.join(texts)\n"
LOOP = "def loop(text):\n    for i in range(1 << 30):\n        for j in range(1 << 30): pass\n"


def sandboxed(name: str, source: str, output: str, *, inputs: tuple[str, ...] = (), **arguments: Any) -> CallSpec:
    arguments = arguments or {"text": VariableArgument(variable=inputs[0])}
    function = source.partition("(")[0].split()[-1]
    return CallSpec(
        id=name,
        function=name,
        inputs=inputs,
        output=output,
        sandbox=SandboxSpec(source=source, name=function, arguments=arguments),
    )


PROGRAM = batch(
    request("First", text("one"), made("a")),
    request("Second", text("two"), made("b")),
    sandboxed(
        "Join",
        JOIN,
        "c",
        inputs=("a", "b"),
        texts=ListArgument(items=(VariableArgument(variable="a"), VariableArgument(variable="b"))),
        mark=ValueArgument(value="+"),
    ),
    request("Third", text("use "), taken("c"), made("d")),
    wait("c"),
    wait("d"),
)
SCRIPT = {"one": "1", "two": "2", "use 1+2": "used"}


async def test_a_program_with_one_in_the_middle_is_one_exchange(stage: Stage):
    staged = await stage(script=SCRIPT)
    got = await answer(staged.service.submit(PROGRAM))
    assert got.values == {"c": "1+2", "d": "used"}


async def test_an_error_fails_what_reads_its_value(stage: Stage):
    staged = await stage()
    source = "def shout(text):\n    return text.upperr()\n"
    program = batch(
        request("First", text("one"), made("a")),
        sandboxed("Shout", source, "b", inputs=("a",)),
        request("Next", text("use "), taken("b"), made("c")),
        wait("c"),
    )
    got = await answer(staged.service.submit(program))
    error = got.failures["c"].error
    assert error.code == NativeCallFailed.code
    assert "native call 'Shout' (Shout) failed: Object of type `string` has no attribute `upperr`" in error.message
    assert "line 2: return text.upperr()" in error.message


async def test_what_is_no_starlark_fails_where_it_runs(stage: Stage):
    staged = await stage()
    program = batch(request("First", text("x"), made("a")), sandboxed("F", "def f(", "b", inputs=("a",)), wait("b"))
    got = await answer(staged.service.submit(program))
    assert got.failures["b"].error.code == NativeCallFailed.code


async def test_one_that_never_ends_is_ended_and_the_service_does_not_notice(stage: Stage):
    staged = await stage(config={"sandbox_seconds": 0.5})
    program = batch(
        request("First", text("x"), made("a")),
        *(sandboxed(f"Loop{number}", LOOP, f"out{number}", inputs=("a",)) for number in range(4)),
        *(wait(f"out{number}") for number in range(4)),
    )
    looping = asyncio.create_task(answer(staged.service.submit(program)))
    served = 0
    while not looping.done():
        session, output = f"other-{served}", f"o-{served}"
        other = batch(request(f"r-{served}", text("y"), made(output)), wait(output), session=session)
        assert (await answer(staged.service.submit(other))).values
        staged.service.end_session(SessionId(session))
        served += 1
    messages = {failure.error.message for failure in looping.result().failures.values()}
    assert len(messages) == 4
    assert all("it did not return within 0.5 s" in message for message in messages)
    assert served > 10  # nobody waited for those that looped


async def test_the_end_of_its_session_ends_it(stage: Stage):
    staged = await stage(config={"sandbox_seconds": 3600.0})
    program = batch(request("First", text("x"), made("a")), sandboxed("Loop", LOOP, "b", inputs=("a",)))
    await answer(staged.service.submit(program))
    await staged.service.wait(S, VariableId("a"))
    while not (children := children_of_the_sandbox()):
        await asyncio.sleep(0.001)
    staged.service.end_session(S)
    await gone(children)


async def test_the_end_of_the_service_ends_it(stage: Stage):
    staged = await stage(config={"sandbox_seconds": 3600.0})
    program = batch(request("First", text("x"), made("a")), sandboxed("Loop", LOOP, "b", inputs=("a",)))
    await answer(staged.service.submit(program))
    await staged.service.wait(S, VariableId("a"))
    while not (children := children_of_the_sandbox()):
        await asyncio.sleep(0.001)
    await staged.service.close()
    assert not any(child.is_running() for child in children)


async def test_cancelled_it_ends_and_a_retry_runs_it_again(stage: Stage):
    staged = await stage(config={"sandbox_seconds": 3600.0})
    program = batch(request("First", text("x"), made("a")), sandboxed("Loop", LOOP, "b", inputs=("a",)))
    await answer(staged.service.submit(program))
    await staged.service.wait(S, VariableId("a"))
    for _ in range(2):
        while not (children := children_of_the_sandbox()):
            await asyncio.sleep(0.001)
        staged.service.cancel_variable(S, VariableId("b"))
        await gone(children)
        with pytest.raises(Cancelled):
            await staged.service.wait(S, VariableId("b"))
        staged.service.retry(S, VariableId("b"))


async def test_no_client_is_offered_it_or_can_answer_it(stage: Stage):
    staged = await stage(config={"sandbox_seconds": 3600.0})
    program = batch(request("First", text("x"), made("a")), sandboxed("Loop", LOOP, "b", inputs=("a",)))
    await answer(staged.service.submit(program))
    await staged.service.wait(S, VariableId("a"))
    with pytest.raises(InvalidGraph, match="The service itself runs native call"):
        staged.service.put_result(S, CallId("Loop"), CallResult(value="mine"))


async def test_every_variable_among_its_arguments_is_an_input(stage: Stage):
    staged = await stage()
    program = batch(
        request("First", text("x"), made("a")),
        sandboxed("Join", JOIN, "b", texts=VariableArgument(variable="a"), mark=ValueArgument(value="")),
    )
    with pytest.raises(InvalidGraph, match="'a', which is none of its inputs"):
        await answer(staged.service.submit(program))


def children_of_the_sandbox() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "parrotserve.sandbox.child" in one.cmdline()]


async def gone(children: list[psutil.Process]) -> None:
    while any(child.is_running() for child in children):
        await asyncio.sleep(0.001)
