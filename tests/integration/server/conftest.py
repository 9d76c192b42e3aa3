"""The HTTP application in front of a service whose engine is fake: without a socket, and on one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from parrotserve.config import ServiceConfig
from parrotserve.engines.fake import FakeEngine
from parrotserve.ids import EngineId
from parrotserve.models.pull import Progress
from parrotserve.runtime.catalog import ServedModel, fake_model
from parrotserve.runtime.service import Service
from parrotserve.server.app import create_app
from parrotserve.server.run import serve_until_stopped
from parrotserve.tenancy.directory import Directory
from parrotserve.tenancy.limits import Limits
from parrotserve.tenancy.store import TenantStore

SCRIPT = {"tell": "a tale 🦘 of some length", "then": "the end"}

Client = Callable[..., Awaitable[httpx.AsyncClient]]


@pytest.fixture
async def served() -> AsyncIterator[Client]:
    """Starts a service and gives a client of it; keywords are for its engine."""
    services: list[Service] = []
    clients: list[httpx.AsyncClient] = []
    apps: list[FastAPI] = []

    async def begin(*, started: bool = True, directory: Directory | None = None, **options: Any) -> httpx.AsyncClient:
        def make(engine: EngineId) -> FakeEngine:
            return FakeEngine(engine, **{"script": SCRIPT} | options)

        def load(name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
            return fake_model(make, name=name)

        service = await Service.start(ServiceConfig(models=("fake",)), load=load, directory=directory)
        services.append(service)
        if started:
            await service.wait_started()
        apps.append(create_app(service))
        transport = httpx.ASGITransport(apps[-1])
        clients.append(httpx.AsyncClient(transport=transport, base_url="http://parrot.localhost"))
        return clients[-1]

    yield begin
    for client in clients:
        await client.aclose()
    for app in apps:
        app.state.parser.close()
    for service in services:
        await service.close()


@pytest.fixture
async def address() -> AsyncIterator[tuple[str, int]]:
    """A server on a real socket."""
    lines: asyncio.Queue[str] = asyncio.Queue()
    config = ServiceConfig(models=("fake",), port=0)
    serving = asyncio.ensure_future(
        serve_until_stopped(config, announce=lines.put_nowait, load=lambda *_: fake_model())
    )
    line = await lines.get()
    port = int(line.partition("http://127.0.0.1:")[2].partition(" ")[0])
    yield "127.0.0.1", port
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TenantStore]:
    store = TenantStore(tmp_path)
    store.create_tenant("ann", Limits())
    store.create_tenant("bob", Limits())
    yield store
    store.close()


@pytest.fixture
def directory(store: TenantStore, tmp_path: Path) -> Iterator[Directory]:
    """The service's own view of the file; `store` stands for the commands, which are other processes."""
    own = TenantStore(tmp_path)
    yield Directory(own)
    own.close()
