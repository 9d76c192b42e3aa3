"""Who is there: leases, native calls, and what is left when clients come and go."""

import asyncio
import gc
import os

import pytest
from runtime_programs import SESSION, Stage, Staged, answer, batch, call, made, request, taken, text, wait

from parrotserve.errors import NativeCallFailed, UnknownObject
from parrotserve.ids import CallId, SessionId, VariableId
from parrotserve.protocol import CallOffer, CallResult, VariableSpec

S = SessionId(SESSION)
A, B = VariableId("a"), VariableId("b")
TELL = (request("r", text("tell"), made("a")),)


async def until_gone(staged: Staged, session: SessionId = S) -> None:
    """Returns when the session has ended (the test's timeout is the limit)."""
    while session in staged.service._driver.machine.graph.sessions:
        await asyncio.sleep(0.001)


async def test_a_session_without_contact_ends_and_frees_its_engine(stage: Stage):
    staged = await stage(ticking=True)
    await answer(staged.service.submit(batch(*TELL, lease=0.02)))
    await until_gone(staged)
    with pytest.raises(UnknownObject, match="lease"):
        await staged.service.wait(S, A)
    while staged.engine.heartbeat.waiting:
        await staged.engine.tick()
        await asyncio.sleep(0)


async def test_the_lease_does_not_run_while_somebody_waits(stage: Stage):
    staged = await stage(ticking=True)
    waiting = asyncio.ensure_future(answer(staged.service.submit(batch(*TELL, wait("a"), lease=0.01))))
    streaming = asyncio.ensure_future(anext(staged.service.submit(batch(session="probe", lease=0.05))))
    await streaming
    await until_gone(staged, SessionId("probe"))  # five leases have passed
    assert not waiting.done()
    assert staged.service.session_view(S).id == S
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await until_gone(staged)


async def test_a_lease_is_no_longer_than_the_service_allows(stage: Stage):
    staged = await stage(config={"max_lease_seconds": 0.02})
    await answer(staged.service.submit(batch(*TELL, lease=86_400)))
    await until_gone(staged)


async def test_native_calls_are_offered_answered_and_flow_on(stage: Stage):
    staged = await stage(script={"tell": "told", "use TOLD": "used"})
    program = batch(*TELL, call("upper", ["a"], "up"), request("r2", text("use "), taken("up"), made("b")), wait("b"))
    waiting = asyncio.ensure_future(answer(staged.service.submit(program)))
    await asyncio.sleep(0)
    while not staged.ready or S not in staged.service._driver.machine.graph.sessions:
        await asyncio.sleep(0)
    offers = staged.service.calls(S)
    offer = await anext(offers)
    assert offer == CallOffer(id=CallId("upper"), function="upper", inputs=("told",))
    staged.service.put_result(S, offer.id, CallResult(value=offer.inputs[0].upper()))
    assert (await waiting).values == {"b": "used"}
    await offers.aclose()


async def test_a_native_call_that_fails_fails_its_variable(stage: Stage):
    staged = await stage()
    program = batch(VariableSpec(id="x", value="1"), call("f", ["x"], "a"))
    await answer(staged.service.submit(program))
    staged.service.put_result(S, CallId("f"), CallResult(error="ValueError: no"))
    with pytest.raises(NativeCallFailed, match="ValueError: no"):
        await staged.service.wait(S, A)
    assert staged.service.put_result(S, CallId("f"), CallResult(value="too late")).state == "failed"


async def test_a_late_result_leaves_the_retried_call_with_its_client(stage: Stage):
    staged = await stage()
    await answer(staged.service.submit(batch(VariableSpec(id="x", value="1"), call("f", ["x"], "a"))))
    staged.service.cancel_variable(S, A)
    staged.service.retry(S, A)
    staged.service.put_result(S, CallId("f"), CallResult(value="late"), attempt=1)
    offers = staged.service.calls(S)
    assert await anext(offers) == CallOffer(id=CallId("f"), function="f", inputs=("1",), attempt=2)
    staged.service.put_result(S, CallId("f"), CallResult(value="in time"), attempt=2)
    assert (await staged.service.wait(S, A)).value == "in time"
    await offers.aclose()


async def test_a_native_call_that_never_returns_times_out(stage: Stage):
    staged = await stage()
    program = batch(VariableSpec(id="x", value="1"), call("f", ["x"], "a", timeout=0.01), wait("a"))
    got = await answer(staged.service.submit(program))
    assert got.failures["a"].error.code == NativeCallFailed.code


async def test_the_next_connection_gets_the_calls_of_one_that_went(stage: Stage):
    staged = await stage()
    program = batch(VariableSpec(id="x", value="1"), call("f", ["x"], "a"), call("g", ["x"], "b"))
    await answer(staged.service.submit(program))
    first = staged.service.calls(S)
    assert [(await anext(first)).id, (await anext(first)).id] == ["f", "g"]
    staged.service.put_result(S, CallId("f"), CallResult(value="done"))
    await first.aclose()
    second = staged.service.calls(S)
    assert (await anext(second)).id == "g"
    await second.aclose()


async def test_the_calls_of_a_session_end_with_it(stage: Stage):
    staged = await stage()
    await answer(staged.service.submit(batch(VariableSpec(id="x", value="1"))))
    taking = asyncio.ensure_future(anext(staged.service.calls(S), None))
    await asyncio.sleep(0)
    staged.service.end_session(S)
    assert await taking is None
    with pytest.raises(UnknownObject):
        staged.service.calls(S)


async def drop(staged: Staged, number: int) -> None:
    """A client that leaves in the middle of a stream, its session to its lease, or reads to the end and ends it."""
    session = SessionId(f"s{number}")
    program = batch(
        request(f"r{number}", text("tell"), made(f"a{number}")),
        request(f"q{number}", taken(f"a{number}"), made(f"b{number}")),
        call(f"c{number}", [f"b{number}"], f"d{number}"),
        wait(f"a{number}", stream=True, timeout=600),
        wait(f"b{number}"),
        session=session,
        lease=0.05,
    )
    events = staged.service.submit(program)
    if number % 2:
        for _ in range(3):
            await anext(events)
        await events.aclose()
    else:
        async for _ in events:
            pass
        staged.service.end_session(session)


async def test_a_thousand_sessions_half_of_them_dropped_leave_nothing(stage: Stage):
    staged = await stage(script={"tell": "a tale of some length"})
    driver = staged.service._driver

    async def settle() -> tuple[int, int]:
        while driver.machine.graph.sessions or staged.engine.heartbeat.running or staged.engine.heartbeat.waiting:
            await asyncio.sleep(0.001)
        gc.collect()
        return len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))

    await drop(staged, 0)
    before = await settle()
    for start in range(0, 1000, 50):
        await asyncio.gather(*(drop(staged, number) for number in range(start + 1, start + 51)))
    assert await settle() == before
    graph = driver.machine.graph
    assert (graph.sessions, graph.variables, graph.requests, graph.calls) == ({}, {}, {}, {})
    assert graph.deadlines.first() is None
    assert (len(driver.board), len(driver.runs), driver.desk.is_empty) == (0, 0, True)
    assert not staged.service._attachments
    assert not staged.service._admissions
    driver.machine.check_integrity()
