"""Outputs with JSON schemas, as the service takes them in: beside everything else, by tenant, and refused."""

import asyncio
import threading

import pytest
from runtime_programs import SESSION, Stage, answer, batch, made, request, text, wait

from parrotserve.errors import InvalidSchema, UnknownObject
from parrotserve.ids import SessionId, TenantId
from parrotserve.protocol import Submit
from parrotserve.runtime import admission
from parrotserve.sampling import ToolCalls


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"a": 1} | {"anyOf": "no list"}])
async def test_a_schema_that_cannot_be_enforced_is_refused(stage: Stage, schema: dict[str, object]):
    staged = await stage()
    with pytest.raises(InvalidSchema):
        await answer(staged.service.submit(batch(request("r", text("x"), made("a", schema=schema)))))


async def test_other_tenants_schemas_are_taken_in_while_somebodys_take_long(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    staged = await stage()
    begun, may_end = threading.Event(), threading.Event()

    def check(schema: dict[str, object], calls: ToolCalls | None) -> None:
        if "slow" in schema:
            begun.set()
            assert may_end.wait(30)

    monkeypatch.setattr(admission, "check_schema", check)

    async def ask(number: int, tenant: str, schema: dict[str, object]) -> set[str]:
        program = batch(request(f"r{number}", text("x"), made(f"a{number}", schema=schema)), wait(f"a{number}"))
        named = program.model_copy(update={"session": f"s{number}"})
        return {*(await answer(staged.service.submit(named, tenant=TenantId(tenant)))).values}

    slow = [asyncio.create_task(ask(number, "one", {"slow": True})) for number in range(64)]
    assert await asyncio.to_thread(begun.wait, 30)
    assert await asyncio.wait_for(ask(0, "other", {"type": "integer"}), 30) == {"a0"}
    assert not any(task.done() for task in slow)
    may_end.set()
    assert await asyncio.gather(*slow) == [{f"a{number}"} for number in range(64)]


async def test_who_leaves_before_his_schema_is_looked_at_leaves_nothing_behind(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    staged = await stage()
    looked_at: list[dict[str, object]] = []
    begun, may_end = threading.Event(), threading.Event()

    def check(schema: dict[str, object], calls: ToolCalls | None) -> None:
        looked_at.append(schema)
        begun.set()
        assert may_end.wait(30)

    monkeypatch.setattr(admission, "check_schema", check)

    async def ask(number: int) -> set[str]:
        output = made(f"a{number}", schema={"maximum": number})
        program = batch(request(f"r{number}", text("x"), output), wait(f"a{number}"))
        return {*(await answer(staged.service.submit(program.model_copy(update={"session": f"s{number}"})))).values}

    first, second, third = (asyncio.create_task(ask(number)) for number in range(3))
    assert await asyncio.to_thread(begun.wait, 30)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    may_end.set()
    assert await asyncio.gather(first, third) == [{"a0"}, {"a2"}]
    assert {"maximum": 1} not in looked_at
    with pytest.raises(UnknownObject):
        staged.service.session_view(SessionId("s1"))


async def test_a_schema_nested_too_deeply_is_refused(stage: Stage):
    staged = await stage()
    schema: dict[str, object] = {}
    for _ in range(5000):
        schema = {"not": schema}
    program = Submit.model_construct(
        session=SESSION, requests=(request("r", text("x"), made("a", schema=schema)),), wait=(), variables=(), calls=()
    )
    with pytest.raises(InvalidSchema):
        await answer(staged.service.submit(program))
