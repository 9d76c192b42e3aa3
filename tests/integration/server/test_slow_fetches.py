"""Programs that name a model which is still to be fetched: their clients hear that the service is there."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse

from parrotserve.config import ServiceConfig
from parrotserve.engines.fake import FakeEngine
from parrotserve.errors import PullFailed
from parrotserve.models.pull import Progress
from parrotserve.runtime.catalog import ServedModel, fake_model
from parrotserve.server import sse
from parrotserve.server.openai import exchange
from parrotserve.server.routes import submit
from parrotserve.server.run import serve_until_stopped

ABSENT = "smollm2-135m"


def program(**fields: Any) -> dict[str, Any]:
    segments = [{"kind": "text", "text": "tell"}, {"kind": "output", "variable": "tale"}]
    request = {"id": "r", "model": ABSENT, "segments": segments}
    return {
        "session": "s",
        "variables": [{"id": "tale"}],
        "requests": [request],
        "wait": [{"variable": "tale"}],
        **fields,
    }


class Slow:
    """A service to which a model comes when it may."""

    def __init__(self) -> None:
        self.may_come = threading.Event()
        self.fault: Exception | None = None
        self.fetched: list[str] = []
        lines: asyncio.Queue[str] = asyncio.Queue()
        self._lines = lines
        config = ServiceConfig(models=("fake",), port=0, on_demand=True)
        self.task = asyncio.create_task(serve_until_stopped(config, announce=lines.put_nowait, load=self._load))

    def _load(self, name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
        if name == ABSENT:
            self.fetched.append(name)
            self.may_come.wait(30)
            if self.fault is not None:
                raise self.fault
        return fake_model(lambda engine: FakeEngine(engine, script={"tell": "a tale"}), name=name)

    async def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=(await self._lines.get()).split()[4], timeout=10)


@pytest.fixture
async def slow(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Slow]:
    monkeypatch.setattr(sse, "PING_SECONDS", 0.02)
    monkeypatch.setattr(submit, "PING_SECONDS", 0.02)
    monkeypatch.setattr(exchange, "PING_SECONDS", 0.02)
    server = Slow()
    yield server
    server.may_come.set()
    server.task.cancel()
    await asyncio.gather(server.task, return_exceptions=True)


async def test_they_hear_of_it_and_then_have_their_answer(slow: Slow):
    async with await slow.client() as client:
        async with client.stream("POST", "/v1/submit", json=program()) as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == ": ping"
            slow.may_come.set()
            told = [line async for line in lines if line.startswith("event: ")]
        assert (answer.status_code, told) == (200, ["event: accepted", "event: value"])


async def test_what_is_refused_then_is_an_event(slow: Slow):
    slow.fault = PullFailed("There is no network.")
    async with await slow.client() as client:
        async with aconnect_sse(client, "POST", "/v1/submit", json=program()) as source:
            await asyncio.sleep(0.1)
            slow.may_come.set()
            (event,) = [event async for event in source.aiter_sse()]
        assert (event.event, event.json()["error"]["code"]) == ("error", "pull_failed")


async def test_what_is_refused_at_once_is_an_error_with_a_status(slow: Slow):
    async with await slow.client() as client:
        answer = await client.post("/v1/submit", json=program(wait=[{"variable": "nothing"}]))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_object")


async def test_who_leaves_meanwhile_changes_nothing(slow: Slow):
    async with await slow.client() as client:
        async with client.stream("POST", "/v1/submit", json=program()) as answer:
            assert await anext(answer.aiter_lines()) == ": ping"
        slow.may_come.set()
        again = await client.post("/v1/submit", json=program())
        assert "event: value" in again.text
        assert (await client.get("/v1/sessions/s/variables/tale")).json()["value"] == "a tale"


CHAT = {"model": ABSENT, "messages": [{"role": "user", "content": "tell"}], "stream": True}


async def test_openai_s_clients_hear_of_it_in_streams(slow: Slow):
    async with await slow.client() as client:
        async with client.stream("POST", "/v1/chat/completions", json=CHAT) as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == ": ping"
            slow.may_come.set()
            chunks = [json.loads(line[6:]) for line in [line async for line in lines] if line.startswith("data: {")]
        assert "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks) == "a tale"
        refused = await client.post("/v1/chat/completions", json=CHAT | {"temperature": 3})
        assert refused.status_code == 400


@pytest.mark.parametrize("stream", [False, True])
async def test_one_that_leaves_meanwhile_does_not_stop_the_fetching(slow: Slow, stream: bool):
    async with await slow.client() as client:
        if stream:
            async with client.stream("POST", "/v1/chat/completions", json=CHAT) as answer:
                assert await anext(answer.aiter_lines()) == ": ping"
        else:
            short = httpx.Timeout(10, read=0.1)
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/v1/chat/completions", json=CHAT | {"stream": False}, timeout=short)
        slow.may_come.set()
        answer = await client.post("/v1/chat/completions", json=CHAT | {"stream": False})
        assert answer.json()["choices"][0]["message"]["content"] == "a tale"
        assert slow.fetched == [ABSENT]
