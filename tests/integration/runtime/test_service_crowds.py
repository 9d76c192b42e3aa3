"""Exchanges that wait for much, and orders that pile up: what there is much of holds nothing up and is not lost."""

import asyncio
from collections.abc import Sequence

import pytest
from runtime_programs import SESSION, Stage, answer, batch, made, request, taken, text, wait

from parrotserve.engines.base import Command, EngineDescription
from parrotserve.ids import SessionId
from parrotserve.protocol import VariableSpec
from parrotserve.runtime.keeper import Extending, Order
from parrotserve.runtime.orders import Orders
from parrotserve.runtime.render import Opening


@pytest.mark.parametrize("count", [150, 450])
async def test_a_session_may_end_while_an_exchange_begins_that_waits_for_much(stage: Stage, count: int):
    staged = await stage(ticking=True)
    names = [f"v{number}" for number in range(count)]
    program = batch(*(VariableSpec(id=name) for name in names), *map(wait, names))
    _, events = await staged.service.declare(program)
    asyncio.get_running_loop().call_soon(staged.service.end_session, SessionId(SESSION))
    got = await answer(events)
    assert got.failures.keys() == set(names)


async def test_a_reader_is_sent_at_once_what_was_written_while_its_engine_was_busy(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    carried: list[str] = []
    busy = asyncio.Event()
    real = Orders.commands

    async def commands(self: Orders, order: Order, description: EngineDescription) -> Sequence[Command]:
        if isinstance(order, Opening) and order.request == "slow":
            await busy.wait()
        if isinstance(order, Extending):
            carried.append(order.request)
        return await real(self, order, description)

    monkeypatch.setattr(Orders, "commands", commands)
    staged = await stage(ticking=True, script=lambda prompt: "word " * 400)
    program = batch(
        request("write", text("x"), made("a", max_tokens=2000)),
        request("read", taken("a"), text("tail"), made("b")),
        wait("a", stream=True),
    )
    first = asyncio.ensure_future(answer(staged.service.submit(program)))
    while not staged.engine.heartbeat.running:
        await staged.engine.tick()
        await asyncio.sleep(0)
    slow = batch(request("slow", text("y"), made("z")), session="other")
    second = asyncio.ensure_future(answer(staged.service.submit(slow)))
    carried.clear()
    for _ in range(600):
        await staged.engine.tick()
        await asyncio.sleep(0)
    assert carried == []
    busy.set()
    while not first.done():
        await staged.engine.tick()
        await asyncio.sleep(0)
    await second
    assert 1 <= len(carried) <= 12
