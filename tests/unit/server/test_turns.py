"""Tenants take turns on the event loop."""

import asyncio
from typing import Any

import pytest

from parrotserve.server.turns import Turns
from parrotserve.tenancy.directory import Caller


class World:
    """Exchanges through `Turns`; `began` is whose began in which round of the loop."""

    def __init__(self) -> None:
        self.began: list[tuple[str, int]] = []
        self.round = 0
        self._turns = Turns(self._app)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.began.append((scope["name"], self.round))

    def ask(self, tenant: str, name: str) -> "asyncio.Task[None]":
        scope = {"type": "http", "name": name, "state": {"caller": Caller(tenant=tenant, operator=False)}}
        return asyncio.ensure_future(self._turns(scope, None, None))  # pyright: ignore[reportArgumentType]

    async def rounds(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)
            self.round += 1


@pytest.fixture
def world() -> World:
    return World()


def rounds_of(world: World, letter: str) -> list[int]:
    return [when for name, when in world.began if name.startswith(letter)]


async def test_one_exchange_of_a_tenant_begins_in_a_round(world: World):
    for number in range(20):
        world.ask("a", f"a{number}")
    await world.rounds(60)
    rounds = rounds_of(world, "a")
    assert [name for name, _ in world.began] == [f"a{number}" for number in range(20)]
    assert len(set(rounds)) == 20


async def test_another_tenant_does_not_wait_for_them(world: World):
    for number in range(20):
        world.ask("a", f"a{number}")
    world.ask("b", "b0")
    await world.rounds(60)
    assert rounds_of(world, "b") == [rounds_of(world, "a")[0]]


async def test_who_asks_alone_does_not_wait(world: World):
    await world.ask("a", "a0")
    await world.rounds(3)
    asked = world.round
    await world.ask("a", "a1")
    assert rounds_of(world, "a")[1] == asked


async def test_a_cancelled_exchange_gives_its_turn_to_the_next(world: World):
    asked = [world.ask("a", f"a{number}") for number in range(4)]
    await world.rounds(1)
    asked[1].cancel()
    asked[2].cancel()
    await world.rounds(10)
    assert [name for name, _ in world.began] == ["a0", "a3"]


async def test_what_is_nobodys_does_not_wait(world: World):
    await world._turns({"type": "http", "name": "health"}, None, None)  # pyright: ignore[reportArgumentType]
    assert world.began == [("health", 0)]
