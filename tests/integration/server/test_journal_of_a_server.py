"""`parrot serve` with its journal: what it keeps of which requests, and what it says where it cannot."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from parrotserve.config import ServiceConfig
from parrotserve.engines.fake import FakeEngine
from parrotserve.errors import ServiceUnavailable
from parrotserve.ids import EngineId, SessionId
from parrotserve.models.pull import Progress
from parrotserve.runtime.catalog import ServedModel, fake_model
from parrotserve.server.run import serve_until_stopped
from parrotserve.store.journal import Journal

Serving = Callable[..., AbstractAsyncContextManager[tuple[str, httpx.AsyncClient]]]

PROGRAM: dict[str, Any] = {
    "session": "s1",
    "variables": [{"id": "tale"}],
    "requests": [
        {"id": "r1", "segments": [{"kind": "text", "text": "tell"}, {"kind": "output", "variable": "tale"}]},
    ],
}
TALE = "/v1/sessions/s1/variables/tale"
CHAT = {"model": "fake", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 8}


LATE = "smollm2-135m"
may_come = threading.Event()
"""Set when the model on demand may be loaded."""


@pytest.fixture(autouse=True)
def it_may_come() -> Iterator[None]:
    may_come.set()
    yield
    may_come.set()


def load(name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
    if name == LATE:
        may_come.wait(30)

    def make(engine: EngineId) -> FakeEngine:
        return FakeEngine(engine, script={"tell": "a tale"})

    return fake_model(make, name=name)


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture
def serving(tmp_path: Path, port: int) -> Serving:
    """Serves on the test's port and folder; gives the line that says so, and a client."""

    @asynccontextmanager
    async def serve(**settings: Any) -> AsyncIterator[tuple[str, httpx.AsyncClient]]:
        lines: asyncio.Queue[str] = asyncio.Queue()
        config = ServiceConfig(models=("fake",), port=port, data=tmp_path, **settings)
        task = asyncio.create_task(serve_until_stopped(config, announce=lines.put_nowait, load=load))
        try:
            line = await lines.get()
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                yield line, client
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return serve


async def test_a_session_goes_on_in_the_next_service_which_says_so(serving: Serving):
    async with serving() as (line, client):
        assert "from before" not in line
        await client.post("/v1/submit", json=PROGRAM)
        assert (await client.get(TALE)).json()["value"] == "a tale"
    async with serving() as (line, client):
        assert "1 session goes on from before" in line
        assert (await client.get(TALE)).json()["value"] == "a tale"
        await client.delete("/v1/sessions/s1")
    async with serving() as (line, client):
        assert "from before" not in line
        assert (await client.get(TALE)).status_code == 404


async def test_it_answers_while_a_model_of_its_sessions_is_still_fetched(serving: Serving):
    late = {**PROGRAM["requests"][0], "model": LATE}
    async with serving(on_demand=True) as (_, client):
        await client.post("/v1/submit", json={**PROGRAM, "requests": [late]})
        assert (await client.get(TALE)).json()["value"] == "a tale"
    may_come.clear()
    async with serving(on_demand=True) as (line, client):
        assert "1 session goes on from before" in line
        for path in ("/healthz", "/readyz", "/v1/models", "/v1/engines", "/v1/sessions/s1"):
            assert (await client.get(path)).status_code == 200, path
        assert (await client.get(TALE)).json()["value"] == "a tale"


async def test_without_a_journal_it_keeps_nothing(serving: Serving, tmp_path: Path):
    async with serving(journal=False) as (_, client):
        await client.post("/v1/submit", json=PROGRAM)
    assert not list(tmp_path.glob("journal*"))
    async with serving(journal=False) as (_, client):
        assert (await client.get(TALE)).status_code == 404


async def kept(tmp_path: Path, port: int) -> list[SessionId]:
    journal = Journal(tmp_path / f"journal-{port}.db")
    sessions = [session for session, _ in journal.sessions()]
    await journal.close()
    return sessions


@pytest.mark.parametrize(
    ("headers", "body", "lasts"),
    [
        ({}, {}, 0),
        ({}, {"stream": True}, 0),
        ({"Idempotency-Key": "k-1"}, {}, 1),
        ({}, {"parrot": {"session": "mine", "output": "reply"}}, 1),
    ],
)
async def test_of_openais_api_it_keeps_what_can_be_asked_for_again(
    serving: Serving, headers: dict[str, str], body: dict[str, Any], lasts: int, tmp_path: Path, port: int
):
    async with serving() as (_, client):
        answer = await client.post("/v1/chat/completions", json={**CHAT, **body}, headers=headers)
        assert answer.status_code == 200, answer.text
    assert len(await kept(tmp_path, port)) == lasts


async def test_a_repeated_idempotent_request_gets_the_same_answer_from_the_next_service(serving: Serving):
    answers: list[str] = []
    for _ in range(2):
        async with serving() as (_, client):
            headers = {"Idempotency-Key": "k-1"}
            answer = await client.post("/v1/chat/completions", json={**CHAT, "temperature": 1}, headers=headers)
            answers.append(answer.json()["choices"][0]["message"]["content"])
    assert answers[0] == answers[1]


async def test_while_the_journal_cannot_be_written_nothing_is_accepted(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
):
    opened = opened_journals(monkeypatch)
    async with serving() as (_, client):
        (journal,) = opened
        assert (await client.get("/readyz")).status_code == 200
        full(journal, 1)
        refused = await client.post("/v1/submit", json=with_text(PROGRAM, "x" * 300_000))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "service_unavailable")
        assert "Make room" in refused.json()["error"]["message"]
        unready = await client.get("/readyz")
        assert (unready.status_code, "Make room" in unready.text) == (503, True)
        full(journal, 1 << 20)
        await until(lambda: _ready(client))
        assert (await client.post("/v1/submit", json=with_text(PROGRAM, "x" * 300_000))).status_code == 200


async def test_a_batch_that_the_disk_had_no_room_for_is_told_of_when_it_is_sent_again(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
):
    opened = opened_journals(monkeypatch)
    program = with_text(PROGRAM, "x" * 300_000) | {"wait": [{"variable": "tale"}]}
    async with serving() as (_, client):
        full(opened[0], 1)
        refused = await client.post("/v1/submit", json=program)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "service_unavailable")
        assert "taken in and runs" in refused.json()["error"]["message"]
        again = await client.post("/v1/submit", json=program)
        assert (again.status_code, "taken in" in again.text) == (503, False)
        for path in ("/v1/sessions", "/v1/sessions/s1", TALE):
            assert (await client.get(path)).status_code == 503
        full(opened[0], 1 << 20)
        await until(lambda: _ready(client))
        answer = await client.post("/v1/submit", json=program)
        assert (answer.status_code, '"value":"a tale"' in answer.text) == (200, True)
        before = (await client.get("/v1/sessions/s1")).json()
        assert [request["state"] for request in before["requests"]] == ["done"]
    async with serving() as (_, client):
        after = (await client.get("/v1/sessions/s1")).json()
        assert (after["usage"], len(after["variables"])) == (before["usage"], 2)


@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/sessions/s1", "/v1/sessions/s1/explain", TALE])
async def test_nothing_is_told_that_is_not_committed(serving: Serving, path: str, monkeypatch: pytest.MonkeyPatch):
    opened = opened_journals(monkeypatch)
    async with serving() as (_, client):
        with opened[0]._using:
            sent = asyncio.create_task(client.post("/v1/submit", json=PROGRAM))
            await asyncio.wait({sent}, timeout=0.2)
            asked = asyncio.create_task(client.get(path))
            await asyncio.wait({sent, asked}, timeout=0.2)
            assert not sent.done()
            assert not asked.done()
        assert (await asked).status_code == 200
        assert (await sent).status_code == 200


def opened_journals(monkeypatch: pytest.MonkeyPatch) -> list[Journal]:
    opened: list[Journal] = []

    def open_one(path: Path) -> Journal:
        opened.append(Journal(path))
        return opened[-1]

    monkeypatch.setattr("parrotserve.server.run.Journal", open_one)
    monkeypatch.setattr("parrotserve.store.journal._RETRY_SECONDS", 0.01)
    return opened


def full(journal: Journal, pages: int) -> None:
    """Let the file have so many pages at most, or as many as it has."""
    journal._db.execute(f"PRAGMA max_page_count = {pages}")


def with_text(program: dict[str, Any], text: str) -> dict[str, Any]:
    return {**program, "variables": [*program["variables"], {"id": "long", "value": text}]}


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    while not await holds():
        await asyncio.sleep(0.01)


async def _ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 200


async def test_a_journal_that_another_service_uses_is_told(tmp_path: Path, port: int):
    journal = Journal(tmp_path / f"journal-{port}.db")
    config = ServiceConfig(models=("fake",), port=port, data=tmp_path)
    with pytest.raises(ServiceUnavailable, match="Another service uses it"):
        await serve_until_stopped(config, announce=print, load=load)
    await journal.close()


async def test_a_response_is_continued_in_the_next_service(serving: Serving):
    async with serving() as (_, client):
        first = (await client.post("/v1/responses", json={"input": "tell"})).json()
        gone = (await client.post("/v1/responses", json={"input": "tell", "store": False})).json()
    async with serving() as (_, client):
        again = (await client.get(f"/v1/responses/{first['id']}")).json()
        assert again | {"created_at": 0} == first | {"created_at": 0}
        assert (await client.get(f"/v1/responses/{gone['id']}")).status_code == 404
        more = {"input": "Hello.", "previous_response_id": first["id"]}
        assert (await client.post("/v1/responses", json=more)).status_code == 200
        items = (await client.get(f"/v1/responses/{first['id']}/input_items")).json()["data"]
        assert [item["content"][0]["text"] for item in items] == ["tell"]
