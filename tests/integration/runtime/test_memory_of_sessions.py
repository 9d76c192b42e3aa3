"""What sessions may hold of a service's memory: texts, values, and all that there is of them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from parrotserve.config import ServiceConfig
from parrotserve.engines.fake import FakeEngine
from parrotserve.errors import LimitExceeded, TooLarge
from parrotserve.graph.memory import SESSION
from parrotserve.ids import CallId, SessionId, TenantId, VariableId
from parrotserve.protocol import CallResult, Submit
from parrotserve.runtime import gate
from parrotserve.runtime.catalog import fake_model
from parrotserve.runtime.service import Service
from parrotserve.tenancy.directory import Directory
from parrotserve.tenancy.limits import Limits
from parrotserve.tenancy.store import TenantStore

MB = 1_000_000
ANN, BOB = TenantId("ann"), TenantId("bob")

Begin = Callable[..., Awaitable[Service]]


@pytest.fixture
async def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Begin]:
    """Starts a service of two tenants on a machine that has 20 MB."""
    store = TenantStore(tmp_path)
    services: list[Service] = []
    monkeypatch.setattr(gate, "usable_memory", lambda: 20 * MB)

    async def start(limits: Limits | None = None, *, closed: bool = True) -> Service:
        store.create_tenant(ANN, limits or Limits())
        store.create_tenant(BOB, Limits())
        load = lambda *_: fake_model(lambda engine: FakeEngine(engine, script=lambda _: "x" * 3000))  # noqa: E731
        directory = Directory(store, always=closed)
        services.append(await Service.start(ServiceConfig(models=("fake",)), load=load, directory=directory))
        await services[-1].wait_started()
        return services[-1]

    yield start
    for service in services:
        await service.close()
    store.close()


def holding(session: str, size: int = MB) -> Submit:
    """A batch that brings so many bytes in a value."""
    return batch(session, [{"id": f"{session}-value", "value": "x" * size}])


def batch(session: str, variables: list[dict[str, Any]], **more: Any) -> Submit:
    return Submit.model_validate({"session": session, "variables": variables, **more})


async def hold(service: Service, body: Submit, tenant: TenantId = ANN) -> None:
    async for _ in service.submit(body, tenant=tenant):
        pass


async def test_a_tenants_sessions_hold_so_much_together_and_no_more(begin: Begin):
    service = await begin(Limits(held_bytes=2_500_000))
    for session in ("one", "two", "two"):  # what is there already is not held again
        await hold(service, holding(session))
    with pytest.raises(LimitExceeded, match=r"hold about 2\.0 MB, and may not hold 1\.0 MB more") as refused:
        await hold(service, holding("three"))
    assert refused.value.details == {"limit": "held_bytes", "retry_after": "1"}
    with pytest.raises(TooLarge):
        await hold(service, holding("much", 3 * MB))
    await hold(service, holding("bobs"), BOB)
    service.end_session(SessionId("one"), tenant=ANN)
    await hold(service, holding("three"))


async def test_whatever_comes_counts(begin: Begin):
    service = await begin(Limits(held_bytes=1_200_000))
    await hold(service, holding("before", 300_000))
    text = [{"kind": "text", "text": "x" * 600_000}, {"kind": "output", "variable": "out"}]
    variables = [{"id": "out"}, {"id": "in", "value": "x" * 500_000}]
    with pytest.raises(LimitExceeded):
        await hold(service, batch("s", variables, requests=[{"id": "r", "segments": text}]))
    calls = [{"id": "c", "function": "f", "inputs": [], "output": "made"}]
    await hold(service, batch("s", [{"id": "empty"}, {"id": "made"}], calls=calls))
    session, more = SessionId("s"), "x" * MB
    with pytest.raises(LimitExceeded):
        service.set_value(session, VariableId("empty"), more, tenant=ANN)
    with pytest.raises(LimitExceeded):
        service.put_result(session, CallId("c"), CallResult(value=more), tenant=ANN)
    service.put_result(session, CallId("c"), CallResult(value=more[:1000]), tenant=ANN)


async def test_a_session_takes_some_whatever_is_in_it(begin: Begin):
    service = await begin(Limits(held_bytes=3 * SESSION))
    for number in range(3):
        await hold(service, batch(f"s{number}", []))
    with pytest.raises(LimitExceeded):
        await hold(service, batch("s3", []))
    await hold(service, batch("s0", []))  # contact with one that is there takes nothing


async def test_where_nobody_says_a_tenant_leaves_as_much_as_it_has(begin: Begin):
    service = await begin()
    for number in range(4):
        await hold(service, holding(f"a{number}"))
    with pytest.raises(LimitExceeded):
        await hold(service, holding("much", 3 * MB))
    await hold(service, holding("bobs", 2 * MB), BOB)
    with pytest.raises(LimitExceeded):
        await hold(service, holding("more"))
    service.end_session(SessionId("bobs"), tenant=BOB)
    await hold(service, holding("more", MB // 2))


async def test_without_keys_all_of_it_is_everybodys(begin: Begin):
    service = await begin(closed=False)
    for number in range(9):
        await hold(service, holding(f"s{number}"))
    with pytest.raises(LimitExceeded):
        await hold(service, holding("last"))


async def test_what_models_write_is_held_too_and_all_is_given_back(begin: Begin):
    service = await begin()
    segments = [{"kind": "text", "text": "write"}, {"kind": "output", "variable": "out"}]
    requests = [{"id": "r", "segments": segments}]
    graph = service._driver.machine.graph
    await hold(service, batch("s", [{"id": "out"}], requests=requests, wait=[{"variable": "out"}]))
    assert 3000 < graph.held[ANN] < 20_000
    service._driver.machine.check_integrity()
    service.end_session(SessionId("s"), tenant=ANN)
    assert graph.held == {}


async def test_log_probabilities_are_held_too(begin: Begin):
    service = await begin()
    graph = service._driver.machine.graph

    async def held(session: str, sampling: dict[str, int]) -> int:
        segments = [{"kind": "text", "text": "write"}, {"kind": "output", "variable": session, "sampling": sampling}]
        requests = [{"id": session, "segments": segments}]
        await hold(service, batch(session, [{"id": session}], requests=requests, wait=[{"variable": session}]))
        service._driver.machine.check_integrity()
        taken = graph.held[ANN]
        service.end_session(SessionId(session), tenant=ANN)
        assert graph.held == {}
        return taken

    plain = await held("plain", {"max_tokens": 1000})
    chosen = await held("chosen", {"max_tokens": 1000, "logprobs": 0})
    rivals = await held("rivals", {"max_tokens": 1000, "logprobs": 4})
    assert chosen - plain >= 100 * 1000
    assert rivals - plain >= 100 * 5000


async def test_a_submit_has_so_many_variables(begin: Begin):
    service = await begin(closed=False)
    with pytest.raises(TooLarge, match="20000 variables"):
        await hold(service, batch("s", [{"id": f"v{number}"} for number in range(20_001)]))
