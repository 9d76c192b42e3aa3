"""A service with few file descriptors, on a real socket: who holds its connections, and who still gets in."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tenants_here import key_of

from parrotserve.config import ServiceConfig
from parrotserve.runtime.catalog import fake_model
from parrotserve.server import run
from parrotserve.server.run import serve_until_stopped
from parrotserve.tenancy.limits import Limits
from parrotserve.tenancy.store import TenantStore

CONNECTIONS = 8
DECLARED = {"session": "s", "variables": [{"id": "never"}]}
WAIT = "/v1/sessions/s/variables/never"


@contextlib.asynccontextmanager
async def serving(folder: Path, **options: Any) -> AsyncGenerator[str]:
    lines: asyncio.Queue[str] = asyncio.Queue()
    config = ServiceConfig(models=("fake",), port=0, data=folder, **options)
    task = asyncio.create_task(serve_until_stopped(config, announce=lines.put_nowait, load=lambda *_: fake_model()))
    try:
        yield (await lines.get()).split()[4]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Crowd:
    """Exchanges that stay open, each on a connection of its own."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._url, self._headers = url, headers
        self._open: list[asyncio.Task[httpx.Response]] = []

    async def declare(self) -> int:
        async with self._client() as client:
            return (await client.post("/v1/submit", json=DECLARED)).status_code

    async def wait(self, times: int, path: str = WAIT) -> list[dict[str, Any]]:
        """The answers of those that are not left open."""
        for _ in range(times):
            self._open.append(asyncio.create_task(self._get(path)))
            await asyncio.wait({self._open[-1]}, timeout=0.2)
        return [task.result().json() for task in self._open if task.done()]

    async def leave(self) -> None:
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _get(self, path: str) -> httpx.Response:
        async with self._client() as client:
            return await client.get(path, timeout=30)

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self._url, headers=self._headers)


@pytest.fixture(autouse=True)
def few_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "most_connections", lambda: CONNECTIONS)


@pytest.mark.parametrize("path", [WAIT, f"{WAIT}/stream"])
async def test_a_tenant_that_holds_exchanges_open_leaves_room_to_others(store: TenantStore, tmp_path: Path, path: str):
    keys = {tenant: key_of(store, tenant) for tenant in ("ann", "bob")}
    async with serving(tmp_path) as url:
        ann, bob = Crowd(url, keys["ann"]), Crowd(url, keys["bob"])
        assert await ann.declare() == 200
        (refused,) = await ann.wait(CONNECTIONS // 2 + 1, path)
        assert refused["error"]["code"] == "too_many_exchanges"
        assert refused["error"]["details"] == {"limit": "exchanges", "retry_after": "1"}
        assert await bob.declare() == 200
        assert await bob.wait(1, path) == []
        await ann.leave()
        await asyncio.sleep(0.1)
        assert await ann.declare() == 200
        await asyncio.gather(ann.leave(), bob.leave())


@pytest.mark.parametrize(("setting", "limit"), [(2, None), (7, 2), (None, 2)])
async def test_operators_say_how_many_a_tenant_may_have(
    store: TenantStore, tmp_path: Path, setting: int | None, limit: int | None
):
    key = key_of(store, "ann")
    store.set_limits("ann", Limits(exchanges=limit))
    async with serving(tmp_path, max_exchanges=setting) as url:
        ann = Crowd(url, key)
        assert await ann.declare() == 200
        assert len(await ann.wait(3)) == 1
        await ann.leave()


async def test_connections_that_ask_for_nothing_make_way(tmp_path: Path):
    async with serving(tmp_path) as url, contextlib.AsyncExitStack() as opened:
        host, _, port = url.removeprefix("http://").rpartition(":")
        silent: list[asyncio.StreamReader] = []
        for number in range(CONNECTIONS):
            reader, writer = await asyncio.open_connection(host, int(port))
            opened.callback(writer.close)
            writer.write(b"GET /v1/mod" if number % 2 else b"")
            silent.append(reader)
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/v1/models")).status_code == 200
        assert await silent[0].read() == b""
        assert not any(reader.at_eof() for reader in silent[1:]), "no more than one has to"


async def test_without_keys_all_connections_are_everybodys_and_health_checks_have_some_left(tmp_path: Path):
    async with serving(tmp_path) as url:
        crowd = Crowd(url, {})
        assert await crowd.declare() == 200
        (refused,) = await crowd.wait(CONNECTIONS + 1)
        assert refused["error"]["code"] == "service_unavailable"
        async with httpx.AsyncClient(base_url=url) as client:
            for path in ("/healthz", "/readyz"):
                answer = await client.get(path)
                assert answer.status_code == 200
                assert answer.headers["Connection"] == "close"
        await crowd.leave()
