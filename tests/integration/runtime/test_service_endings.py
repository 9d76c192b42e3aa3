"""How it ends: what requests used, models that are still being loaded, and the service itself."""

import asyncio
import threading

import pytest
from runtime_programs import SESSION, Stage, answer, batch, call, made, request, taken, text, wait

from parrotserve.config import ServiceConfig
from parrotserve.engines.fake import FakeEngine
from parrotserve.errors import ServiceUnavailable
from parrotserve.ids import EngineId, RequestId, SessionId, VariableId
from parrotserve.models.pull import Progress
from parrotserve.protocol import VariableSpec
from parrotserve.runtime.catalog import ServedModel, fake_model
from parrotserve.runtime.service import Service
from parrotserve.sampling import Usage

S = SessionId(SESSION)
A = VariableId("a")


async def test_closing_ends_open_exchanges_clearly(stage: Stage):
    staged = await stage(ticking=True)
    program = batch(request("r", text("x"), made("a")), call("f", ["a"], "b"), wait("a"), wait("b", stream=True))
    waiting = asyncio.ensure_future(answer(staged.service.submit(program)))
    offers = staged.service.submit(batch(session="other"))
    await anext(offers)
    taking = asyncio.ensure_future(anext(staged.service.calls(SessionId("other")), None))
    while not staged.engine.heartbeat.waiting:
        await asyncio.sleep(0)
    await staged.service.close()
    got = await waiting
    assert {one.error.code for one in got.failures.values()} == {ServiceUnavailable.code}
    assert await taking is None
    with pytest.raises(ServiceUnavailable):
        await answer(staged.service.submit(program))


async def test_who_waits_for_what_nobody_has_set_learns_that_the_session_ended(stage: Stage):
    staged = await stage()
    events = staged.service.submit(batch(VariableSpec(id="a"), wait("a")))
    await anext(events)
    waiting = asyncio.ensure_future(answer(events))
    await asyncio.sleep(0)
    staged.service.end_session(S)
    error = (await waiting).failures["a"].error
    assert (error.code, error.message) == ("cancelled", "The variable a was cancelled: its session ended.")


async def test_stopping_in_the_middle_of_a_pull_ends_it():
    fetching, ended = threading.Event(), threading.Event()

    def load(name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
        assert progress is not None
        try:
            while True:
                progress(1, 2)
                fetching.set()
        finally:
            ended.set()

    seen: set[tuple[int, int]] = set()
    starting = asyncio.ensure_future(Service.start(ServiceConfig(), progress=lambda *of: seen.add(of), load=load))
    await asyncio.to_thread(fetching.wait)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await asyncio.to_thread(ended.wait)
    assert seen == {(1, 2)}


async def test_usage_is_told_once_the_request_runs_no_more(stage: Stage):
    staged = await stage(ticking=True, script={"Q": "four"})
    await staged.service.declare(batch(request("r", text("Q:"), made("a")), wait("a")))
    used = asyncio.create_task(staged.service.request_usage(S, RequestId("r")))
    while not used.done():
        await staged.engines[0].tick()
        await asyncio.sleep(0)
    assert (used.result().prompt_tokens, used.result().output_tokens) == (2, 5)  # "four", and the end of the turn
    assert await staged.service.request_usage(S, RequestId("r")) == used.result()
    assert await staged.service.request_usage(S, RequestId("nobody's")) == Usage()


async def test_whoever_waits_for_usage_is_let_go_when_the_service_ends(stage: Stage):
    staged = await stage(ticking=True)
    await staged.service.declare(batch(request("r", text("Q:"), made("a"))))
    used = asyncio.create_task(staged.service.request_usage(S, RequestId("r")))
    await asyncio.sleep(0)
    staged.service.end_exchanges()
    assert await used == Usage()


async def test_whoever_waits_for_the_usage_of_a_request_that_never_ran_is_told_when_it_is_cancelled(stage: Stage):
    staged = await stage()
    program = batch(VariableSpec(id="x"), request("r", text("Q:"), taken("x"), made("a")))
    await staged.service.declare(program)
    used = asyncio.create_task(staged.service.request_usage(S, RequestId("r")))
    await asyncio.sleep(0)
    staged.service.cancel_variable(S, A)
    assert await used == Usage()


async def test_a_model_that_has_come_only_after_the_service_ended_starts_no_engine():
    finding, found, made_for = threading.Event(), threading.Event(), list[EngineId]()

    def make(engine: EngineId) -> FakeEngine:
        made_for.append(engine)
        return FakeEngine(engine)

    def load(name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
        if name != "one":
            finding.set()
            assert found.wait(60)
        return fake_model(make, name=name)

    service = await Service.start(ServiceConfig(models=("one",), on_demand=True), load=load)
    submitting = asyncio.ensure_future(service.declare(batch(request("r", text("x"), made("a"), model="fake"))))
    await asyncio.to_thread(finding.wait)
    await service.close()
    found.set()
    with pytest.raises(ServiceUnavailable):
        await submitting
    await asyncio.sleep(0)
    assert made_for == ["one-0"]
