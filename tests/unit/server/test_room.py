"""Tenants share the connections of a service."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest

from parrotserve.ids import TenantId
from parrotserve.server.room import Doorkeeper, OpenExchanges, Room
from parrotserve.tenancy.directory import Caller


class World:
    """Exchanges that stay open until they are ended, with room for twelve."""

    def __init__(self) -> None:
        self.room = Room(12)
        self.statuses: list[int] = []
        self.headers: list[tuple[bytes, bytes]] = []
        self._ends = asyncio.Event()
        self._exchanges: list[asyncio.Future[None]] = []
        self._app = Doorkeeper(OpenExchanges(self._answer, room=self.room, most=self.most), room=self.room)

    def most(self, tenant: TenantId, free: int | None) -> int | None:
        return free

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await self._ends.wait()

    async def _sent(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.statuses.append(message["status"])
            self.headers = message["headers"]

    async def ask(self, tenant: str | None, times: int = 1, path: str = "/v1/submit") -> list[int]:
        """The statuses of exchanges that are begun."""
        state = {} if tenant is None else {"caller": Caller(tenant=TenantId(tenant), operator=False)}
        self.statuses = []
        for _ in range(times):
            scope: Any = {"type": "http", "path": path, "headers": [], "state": state}
            exchange = self._app(scope, None, self._sent)  # pyright: ignore[reportArgumentType]
            self._exchanges.append(asyncio.ensure_future(exchange))
            await asyncio.sleep(0)
        return self.statuses

    async def end(self) -> None:
        self._ends.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self._ends.clear()

    @contextmanager
    def connected(self, count: int) -> Generator[None]:
        self.room.connections = range(count)
        yield
        self.room.connections = ()


@pytest.fixture
def world() -> World:
    return World()


async def test_a_tenant_leaves_as_many_to_others_as_it_has(world: World):
    assert await world.ask("a", 8) == [200] * 6 + [429] * 2
    assert await world.ask("b", 5) == [200] * 3 + [429] * 2
    assert await world.ask("c", 2) == [200, 200]


async def test_what_ended_counts_no_more(world: World):
    assert (await world.ask("a", 7))[-1] == 429
    await world.end()
    assert await world.ask("a", 7) == [200] * 6 + [429]


async def test_health_checks_are_not_counted(world: World):
    assert await world.ask(None, 40, "/healthz") == [200] * 40
    assert await world.ask("a") == [200]


async def test_when_all_connections_are_taken_health_checks_alone_are_answered(world: World):
    with world.connected(13):
        assert await world.ask("a") == [503]
        assert (b"connection", b"close") in world.headers
        assert await world.ask(None, path="/healthz") == [200]
        assert await world.ask(None, path="/readyz") == [200]
    with world.connected(12):
        assert await world.ask("a") == [200]


@pytest.mark.parametrize(("count", "kept"), [(3, True), (4, False)])
async def test_connections_are_kept_idle_while_there_are_few(world: World, count: int, kept: bool):
    with world.connected(count):
        await world.ask("a")
    assert ((b"connection", b"close") in world.headers) is not kept


async def test_without_a_limit_all_are_answered(world: World):
    world.room.most = None
    with world.connected(100):
        assert await world.ask("a", 50) == [200] * 50
