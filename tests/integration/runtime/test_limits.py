"""Limits of tenants: nothing overshoots however much comes at once, and what is cancelled is given back."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from parrotserve.config import ServiceConfig
from parrotserve.engines.fake import FakeEngine, Faults
from parrotserve.errors import LimitExceeded, TooLarge
from parrotserve.ids import SessionId, TenantId, VariableId, new_id
from parrotserve.protocol import Submit
from parrotserve.runtime.catalog import fake_model
from parrotserve.runtime.claims import SEAM
from parrotserve.runtime.render import Renderer
from parrotserve.runtime.service import Service
from parrotserve.store.journal import Journal
from parrotserve.tenancy.directory import Directory
from parrotserve.tenancy.limits import Limits
from parrotserve.tenancy.store import TenantStore

ANN = TenantId("ann")
LONG = "word " * 1000


@pytest.fixture
async def limited(tmp_path) -> AsyncIterator[Callable[..., object]]:
    """Starts a service with one tenant, Ann, who has these limits."""
    store = TenantStore(tmp_path)
    services: list[Service] = []

    async def begin(limits: Limits, **options: object) -> Service:
        store.create_tenant(ANN, limits)
        load = lambda *_: fake_model(lambda engine: FakeEngine(engine, **({"script": lambda _: "word"} | options)))  # noqa: E731
        service = await Service.start(ServiceConfig(models=("fake",)), load=load, directory=Directory(store))
        services.append(service)
        await service.wait_started()
        return service

    yield begin
    for service in services:
        await service.close()
    store.close()


def program(
    session: str, *, requests: int = 1, text: str = "tell", max_tokens: int = 20, chain: bool = False
) -> Submit:
    """Requests, each reading the output of the one before in a chain."""
    names = [new_id("v") for _ in range(requests)]
    return Submit.model_validate(
        {
            "session": session,
            "variables": [{"id": name} for name in names],
            "requests": [
                {
                    "id": new_id("r"),
                    "segments": [
                        {"kind": "text", "text": text},
                        *([{"kind": "input", "variable": names[number - 1]}] if chain and number else []),
                        {"kind": "output", "variable": name, "sampling": {"max_tokens": max_tokens}},
                    ],
                }
                for number, name in enumerate(names)
            ],
            "wait": [{"variable": name} for name in names],
        }
    )


async def test_a_restart_leaves_a_request_the_room_that_it_had(tmp_path: Path):
    """What its inputs were set to counts at once, and not only when an engine takes it."""
    store = TenantStore(tmp_path)
    store.create_tenant(ANN, Limits(tokens_per_minute=2000))
    for start_seconds in (0.0, 0.5):
        load = lambda *_, late=start_seconds: fake_model(  # noqa: E731
            lambda engine: FakeEngine(engine, ticking=not late, faults=Faults(start_seconds=late))
        )
        journal = Journal(tmp_path / "journal.db")
        config = ServiceConfig(models=("fake",))
        service = await Service.start(config, load=load, directory=Directory(store), journal=journal)
        if not start_seconds:
            await service.declare(Submit.model_validate({"session": "s", "variables": [{"id": "x"}]}), tenant=ANN)
            service.set_value(SessionId("s"), VariableId("x"), "x" * 1000, tenant=ANN)
            body = {"id": "r", "segments": [{"kind": "input", "variable": "x"}, {"kind": "output", "variable": "y"}]}
            whole = {"session": "s", "variables": [{"id": "y"}], "requests": [body]}
            await service.declare(Submit.model_validate(whole), tenant=ANN)
        else:
            with pytest.raises(LimitExceeded):
                await service.declare(program("other", max_tokens=1200), tenant=ANN)
            await service.wait(SessionId("s"), VariableId("y"), tenant=ANN)
        await service.close()
        await journal.close()
    store.close()


async def test_a_restart_leaves_a_session_what_is_left_of_its_budget(tmp_path: Path):
    store = TenantStore(tmp_path)
    store.create_tenant(ANN, Limits(session_tokens=1000, session_requests=4))
    used = 0
    for start in range(3):
        journal = Journal(tmp_path / "journal.db")
        load = lambda *_: fake_model(lambda engine: FakeEngine(engine, script=lambda _: "word"))  # noqa: E731
        service = await Service.start(
            ServiceConfig(models=("fake",)), load=load, directory=Directory(store), journal=journal
        )
        if start:
            with pytest.raises(TooLarge, match=f"and {1000 - used} are left of the 1000"):
                await service.declare(program("s", max_tokens=1000 - used), tenant=ANN)
            with pytest.raises(TooLarge, match=f"this one has {start}, and this would add 4"):
                await service.declare(program("s", requests=4), tenant=ANN)
        await run(service, program("s"))
        await settled(service)
        usage = service.session_view(SessionId("s"), tenant=ANN).usage
        assert usage.prompt_tokens + usage.output_tokens > used
        used = usage.prompt_tokens + usage.output_tokens
        await service.close()
        await journal.close()
    store.close()


async def run(service: Service, body: Submit) -> None:
    async with asyncio.timeout(20):
        async for _ in service.submit(body, tenant=ANN):
            pass


def held(service: Service) -> tuple[int, int, int, int]:
    """Sessions, requests, tokens claimed and tokens taken."""
    return service.meter.ledger.held(ANN, now=asyncio.get_running_loop().time())


async def settled(service: Service) -> tuple[int, int, int, int]:
    """The same once engines have let go of all."""
    while held(service)[1]:
        await asyncio.sleep(0)
    return held(service)


async def test_budgets_never_overshoot_under_100_requests_at_once(limited):
    service = await limited(Limits(tokens_per_minute=500, requests_in_flight=12))
    outcomes = await asyncio.gather(*(run(service, program(new_id("s"))) for _ in range(100)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if outcome is not None]
    assert {type(outcome) for outcome in refused} == {LimitExceeded}
    assert len(refused) < 100
    _, in_flight, claimed, taken = await settled(service)
    assert (in_flight, claimed) == (0, 0)
    used = service.meter.unsaved[ANN]
    assert used.requests == 100 - len(refused)
    assert taken == used.prompt_tokens + used.output_tokens
    assert 0 < taken <= 500


async def test_a_cancelled_graph_gets_its_reservation_back(limited):
    service = await limited(Limits(tokens_per_minute=1000, requests_in_flight=5), script=lambda _: LONG)
    body = program("s", requests=5, max_tokens=100, chain=True).model_copy(update={"wait": ()})
    await run(service, body)
    sessions, in_flight, claimed, _ = held(service)
    assert (sessions, in_flight) == (1, 5)
    assert claimed >= 500
    with pytest.raises(LimitExceeded):
        await run(service, program("other"))
    service.end_session(SessionId("s"), tenant=ANN)
    sessions, in_flight, claimed, taken = await settled(service)
    assert (sessions, in_flight, claimed) == (0, 0, 0)
    assert taken <= 120  # what the one that ran had read and written, at most


async def test_a_refused_batch_leaves_nothing_behind(limited):
    service = await limited(Limits(tokens_per_minute=1000, sessions=1))
    body = program("s")
    cyclic = body.model_copy(update={"requests": (body.requests[0], body.requests[0].model_copy(update={"id": "r2"}))})
    with pytest.raises(Exception, match="one producer"):
        await run(service, cyclic)
    assert held(service) == (0, 0, 0, 0)
    await run(service, program("t"))


async def test_a_batch_sent_again_is_claimed_once(limited):
    service = await limited(Limits(tokens_per_minute=1000), script=lambda _: LONG)
    body = program("s").model_copy(update={"wait": ()})
    await run(service, body)
    before = held(service)
    await run(service, body)
    assert held(service) == before


async def test_a_request_that_stands_twice_in_a_batch_is_claimed_once(limited):
    service = await limited(Limits(tokens_per_minute=1000, requests_in_flight=1))
    body = program("s")
    await run(service, body.model_copy(update={"requests": body.requests * 2}))
    assert (await settled(service))[1:3] == (0, 0)
    await run(service, program("s"))


async def test_an_id_that_is_used_again_while_an_engine_lets_go_of_it_is_another_request(limited):
    service = await limited(Limits(tokens_per_minute=1000, requests_in_flight=2), script=lambda _: LONG)
    first = program("s", max_tokens=200)
    await run(service, first.model_copy(update={"wait": ()}))
    service.end_session(SessionId("s"), tenant=ANN)
    again = first.model_copy(update={"session": "t"})
    answers = [event async for event in service.submit(again, tenant=ANN)]
    assert [event.event for event in answers] == ["accepted", "value"]
    assert (await settled(service))[1:3] == (0, 0)
    used = service.meter.unsaved[ANN]
    assert held(service)[3] == used.prompt_tokens + used.output_tokens


async def test_a_retried_request_is_claimed_again(limited):
    service = await limited(Limits(requests_in_flight=1), script=lambda _: LONG)
    body = program("s").model_copy(update={"wait": ()})
    await run(service, body)
    variable = VariableId(body.variables[0].id)
    service.cancel_variable(SessionId("s"), variable, tenant=ANN)
    service.retry(SessionId("s"), variable, tenant=ANN)
    with pytest.raises(LimitExceeded):
        await run(service, program("s"))


async def test_tokens_of_a_big_batch_are_counted_beside_the_event_loop(limited, monkeypatch: pytest.MonkeyPatch):
    threads: list[int] = []
    count = Renderer.most_tokens

    def noted(renderer: Renderer, text: str) -> int:
        threads.append(threading.get_ident())
        return count(renderer, text)

    monkeypatch.setattr(Renderer, "most_tokens", noted)
    service = await limited(Limits(tokens_per_minute=10_000_000), script=lambda _: LONG)
    body = program("s", requests=5, text=LONG).model_copy(update={"wait": ()})
    await run(service, body)
    assert len(threads) >= 5
    variable = VariableId(body.variables[0].id)
    service.cancel_variable(SessionId("s"), variable, tenant=ANN)
    service.retry(SessionId("s"), variable, tenant=ANN)
    assert held(service)[1:3] == (5, 5 * (len(LONG) + 2 * SEAM + 20))
    assert threading.get_ident() not in threads


async def test_nobody_counts_where_tokens_have_no_limit(limited, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Renderer, "most_tokens", None)
    service = await limited(Limits(requests_in_flight=5))
    await run(service, program("s", requests=5, text=LONG))


async def test_graphs_and_outputs_have_their_limits(limited):
    service = await limited(Limits(session_requests=3, output_tokens=50))
    with pytest.raises(TooLarge, match="may have 3 requests"):
        await run(service, program("s", requests=4))
    await run(service, program("s", requests=2))
    with pytest.raises(TooLarge, match="this one has 2"):
        await run(service, program("s", requests=2))
    with pytest.raises(TooLarge, match="may write 51 tokens"):
        await run(service, program("s", max_tokens=51))


async def test_a_prompt_that_was_underestimated_is_caught_before_it_runs(limited):
    """What a client sets later is not known when a request is accepted: its claim is made right before it runs."""
    service = await limited(Limits(tokens_per_minute=200))
    body = Submit.model_validate(
        {
            "session": "s",
            "variables": [{"id": "late"}, {"id": "out"}],
            "requests": [
                {
                    "id": "r",
                    "segments": [
                        {"kind": "input", "variable": "late"},
                        {"kind": "output", "variable": "out", "sampling": {"max_tokens": 20}},
                    ],
                }
            ],
        }
    )
    await run(service, body)
    service.set_value(SessionId("s"), VariableId("late"), "x" * 190, tenant=ANN)
    with pytest.raises(TooLarge, match="more than the 200 a minute"):
        await service.wait(SessionId("s"), VariableId("out"), tenant=ANN)
    assert held(service)[1:] == (0, 0, 0)
