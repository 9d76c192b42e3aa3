"""Clients that leave, on a real socket: what nobody can get any more is cancelled, and what somebody can is not."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse

from parrotserve.config import ServiceConfig
from parrotserve.engines.fake import FakeEngine
from parrotserve.ids import EngineId
from parrotserve.models.pull import Progress
from parrotserve.runtime.catalog import ServedModel, fake_model
from parrotserve.server.run import serve_until_stopped

WORDS = "word " * 1000
"""So many that nobody reads them to the end by accident."""
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}
PATHS: dict[str, dict[str, Any]] = {"/v1/chat/completions": BODY, "/v1/responses": {"input": "Hello"}}


class Running:
    """A server whose engine makes a step only when told to."""

    def __init__(self) -> None:
        self.engines: list[FakeEngine] = []
        self.lines: asyncio.Queue[str] = asyncio.Queue()
        config = ServiceConfig(models=("fake",), port=0)
        self.task = asyncio.create_task(serve_until_stopped(config, announce=self.lines.put_nowait, load=self._load))

    def _load(self, name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
        return fake_model(self._make, name=name)

    def _make(self, engine: EngineId) -> FakeEngine:
        self.engines.append(FakeEngine(engine, script={"Hello": WORDS}, ticking=True))
        return self.engines[-1]


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    server = Running()
    yield server
    server.task.cancel()
    await asyncio.gather(server.task, return_exceptions=True)


@pytest.fixture
async def client(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    line = await running.lines.get()
    async with httpx.AsyncClient(base_url=line.split()[4], timeout=30) as client:
        yield client


async def until(client: httpx.AsyncClient, sessions: int) -> None:
    while f"parrot_sessions {sessions}.0" not in (await client.get("/metrics")).text:
        await asyncio.sleep(0.01)


async def leave(asking: "asyncio.Future[Any]") -> None:
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.parametrize("path", PATHS)
async def test_a_request_whose_client_leaves_is_cancelled(running: Running, client: httpx.AsyncClient, path: str):
    asking = asyncio.ensure_future(client.post(path, json=PATHS[path]))
    await until(client, 1)
    await leave(asking)
    await until(client, 0)
    await running.engines[0].tick()
    assert running.engines[0].heartbeat.waiting == running.engines[0].heartbeat.running == 0


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_whose_client_leaves_is_cancelled(running: Running, client: httpx.AsyncClient, path: str):
    streaming = aconnect_sse(client, "POST", path, json=PATHS[path] | {"stream": True})
    opening = asyncio.ensure_future(streaming.__aenter__())
    while not opening.done():
        await running.engines[0].tick()
        await asyncio.sleep(0)
    events = opening.result().aiter_sse()
    first = (await anext(events)).json()
    assert first.get("type") == "response.created" or first["choices"][0]["delta"]["role"] == "assistant"
    await until(client, 1)
    await events.aclose()
    await streaming.__aexit__(None, None, None)
    await until(client, 0)


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_that_has_not_begun_is_cancelled_too(running: Running, client: httpx.AsyncClient, path: str):
    asking = asyncio.ensure_future(client.post(path, json=PATHS[path] | {"stream": True}))
    await until(client, 1)
    await leave(asking)
    await until(client, 0)


async def test_with_a_key_a_client_may_leave_and_come_back(running: Running, client: httpx.AsyncClient):
    headers = {"Idempotency-Key": "k-1"}
    asking = asyncio.ensure_future(client.post("/v1/chat/completions", json=BODY, headers=headers))
    await until(client, 1)
    await leave(asking)
    again = asyncio.ensure_future(client.post("/v1/chat/completions", json=BODY, headers=headers))
    while not again.done():
        await running.engines[0].tick(100)
        await asyncio.sleep(0)
    assert again.result().json()["choices"][0]["message"]["content"] == WORDS
    assert running.engines[0].heartbeat.steps <= len(WORDS) + 2  # one run


async def test_in_a_session_a_client_may_leave_and_get_the_answer_later(running: Running, client: httpx.AsyncClient):
    body = BODY | {"parrot": {"session": "s-1", "output": "words"}}
    asking = asyncio.ensure_future(client.post("/v1/chat/completions", json=body))
    await until(client, 1)
    await leave(asking)
    got = asyncio.ensure_future(client.get("/v1/sessions/s-1/variables/s-1:words"))
    while not got.done():
        await running.engines[0].tick(100)
        await asyncio.sleep(0)
    assert got.result().json()["value"] == WORDS


async def test_a_response_outlives_a_client_that_leaves_as_soon_as_it_is_complete(
    running: Running, client: httpx.AsyncClient
):
    streaming = aconnect_sse(client, "POST", "/v1/responses", json={"input": "Hello", "stream": True})
    opening = asyncio.ensure_future(streaming.__aenter__())
    while not opening.done():
        await running.engines[0].tick()
        await asyncio.sleep(0)

    async def last() -> dict[str, Any]:
        async for event in opening.result().aiter_sse():
            if event.event == "response.completed":
                return event.json()["response"]
        raise AssertionError("the response was never completed")

    reading = asyncio.ensure_future(last())
    while not reading.done():
        await running.engines[0].tick(100)
        await asyncio.sleep(0)
    await streaming.__aexit__(None, None, None)
    answer = await client.get(f"/v1/responses/{reading.result()['id']}")
    assert answer.json() == reading.result()
