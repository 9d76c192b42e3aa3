"""A service that is started again before it has all models of its sessions: what is known can be had at once, and only
what is to run waits for its model."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from restart_programs import SCRIPT, STORY, A, B, Begin, S, declared, value_of
from runtime_programs import SOON, Staged, answer, batch, made, request, taken, text, wait

from parrotserve.config import ServiceConfig
from parrotserve.engines.fake import FakeEngine
from parrotserve.errors import EngineFailed, MalformedModel, ParrotError
from parrotserve.ids import EngineId, SessionId, VariableId
from parrotserve.models.pull import Progress
from parrotserve.runtime.catalog import ServedModel, fake_model
from parrotserve.runtime.keeper import KeeperPolicy, KeeperState
from parrotserve.runtime.service import Service
from parrotserve.store.journal import Journal

LATE = "late"
TELL = request("r", text("tell"), made("a"), model=LATE)
SING = request("r2", text("then sing "), taken("a"), made("b"), model=LATE)
GIVES_UP_AT_ONCE = KeeperPolicy(first_backoff=0.001, longest_backoff=0.001, first_retry=0.001, longest_retry=0.001)


class Restarted:
    """A service on the test's journal that has `fake`, and other models on demand: `late` when it may come."""

    def __init__(self, path: Path) -> None:
        self.may_come = threading.Event()
        self.fault: ParrotError | None = None
        self._journal = Journal(path)

    async def start(self, policy: KeeperPolicy = SOON, **config: Any) -> Staged:
        settings = ServiceConfig(**{"models": ("fake",), "on_demand": True, **config})
        self.service = await Service.start(
            settings, load=self._load, policy=policy, journal=self._journal, by_path=True
        )
        await self.service.wait_started()
        return Staged(self.service)

    def _load(self, name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
        def make(engine: EngineId) -> FakeEngine:
            return FakeEngine(engine, script=SCRIPT)

        if name == LATE:
            self.may_come.wait(30)
            if self.fault is not None:
                raise self.fault
        return fake_model(make, name=name)

    async def close(self) -> None:
        self.may_come.set()
        await self.service.close()
        await self._journal.close()


@pytest.fixture
async def restarted(tmp_path: Path) -> AsyncIterator[Callable[[], Restarted]]:
    begun: list[Restarted] = []

    def make() -> Restarted:
        begun.append(Restarted(tmp_path / "journal.db"))
        return begun[-1]

    yield make
    for one in begun:
        await one.close()


async def before(begin: Begin) -> None:
    """A service that has all models, and ends when `a` is known and `b` is not, in this session and two others."""
    first = await begin(config={"models": ("fake", LATE, "quick")}, ticking=True)
    body = batch(TELL, wait("a"))
    told = asyncio.ensure_future(answer(first.service.submit(body)))
    while not told.done():
        for engine in first.engines:
            await engine.tick()
        await asyncio.sleep(0)
    await declared(first, batch(SING))
    for model in ("fake", "quick"):
        one = request(f"r-{model}", text("two"), made(f"x-{model}"), model=model)
        await declared(first, batch(one, session=model))
    await first.close()


async def test_only_what_is_to_run_waits_for_its_model(begin: Begin, restarted: Callable[[], Restarted]):
    await before(begin)
    second = restarted()
    staged = await second.start()
    assert staged.service.recovered == 3
    assert await value_of(staged, A) == STORY
    for model in ("fake", "quick"):
        assert (await staged.service.wait(SessionId(model), VariableId(f"x-{model}"))).value == "one"
    assert [model.name for model in staged.service.models()] == ["fake", "quick"]
    assert {one.model: one.state for one in staged.service.engines()}[LATE] == KeeperState.STARTING
    assert staged.ready

    rest = asyncio.ensure_future(value_of(staged, B))
    more = request("r3", text("two"), made("c"), model=LATE)
    added = asyncio.ensure_future(answer(staged.service.submit(batch(more, wait("c")))))
    done, _ = await asyncio.wait({rest, added}, timeout=0.05)
    assert not done
    second.may_come.set()
    assert await rest == "la la la"
    assert (await added).values == {"c": "one"}


async def test_requests_fail_if_their_model_cannot_be_had_and_may_be_retried(
    begin: Begin, restarted: Callable[[], Restarted]
):
    await before(begin)
    second = restarted()
    second.fault = MalformedModel("The file is damaged.")
    second.may_come.set()
    staged = await second.start(GIVES_UP_AT_ONCE)
    with pytest.raises(EngineFailed, match="No engine for the model could be started: The file is damaged"):
        await value_of(staged, B)
    assert await value_of(staged, A) == STORY
    assert (await staged.service.wait(SessionId("fake"), VariableId("x-fake"))).value == "one"

    second.fault = None
    while any(engine.state != KeeperState.UP for engine in staged.service.engines()):
        await asyncio.sleep(0.001)
    staged.service.retry(S, B)
    assert await value_of(staged, B) == "la la la"


async def test_it_can_be_closed_while_a_model_is_fetched(begin: Begin, restarted: Callable[[], Restarted]):
    await before(begin)
    second = restarted()
    staged = await second.start()
    waiting = asyncio.ensure_future(value_of(staged, B))
    await asyncio.sleep(0)
    await staged.service.close()
    with pytest.raises(ParrotError):
        await waiting
    second.may_come.set()
    await second.close()

    third = restarted()
    third.may_come.set()
    assert await value_of(await third.start(), B) == "la la la"
