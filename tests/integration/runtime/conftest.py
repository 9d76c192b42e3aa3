"""Services whose engines are fake: they recite scripts, and fail when told to."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from restart_programs import SCRIPT, Begin
from runtime_programs import HEARTBEAT, SOON, Stage, Staged

from parrotserve.config import ServiceConfig
from parrotserve.engines.fake import FakeEngine
from parrotserve.ids import EngineId
from parrotserve.models.pull import Progress
from parrotserve.runtime.catalog import ServedModel, fake_model
from parrotserve.runtime.keeper import KeeperPolicy
from parrotserve.runtime.service import Service
from parrotserve.store.journal import Journal


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """Starts a service; keywords of `FakeEngine` are for its engines, `config` for the service's settings."""
    begun: list[Staged] = []

    async def begin(
        *,
        config: dict[str, Any] | None = None,
        started: bool = True,
        faults: Any = (),
        policy: KeeperPolicy = SOON,
        by_path: bool = False,
        journal: Path | None = None,
        **options: Any,
    ) -> Staged:
        engines: list[FakeEngine] = []
        faults_left = list(faults)

        def make(engine: EngineId) -> FakeEngine:
            more = {"faults": faults_left.pop(0)} if faults_left else {}
            made = FakeEngine(engine, heartbeat_seconds=HEARTBEAT / 4, **options, **more)
            engines.append(made)
            return made

        def load(name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
            path = Path(name).resolve() if name.endswith(".gguf") else None
            return replace(fake_model(make, name=name), path=path)

        settings = ServiceConfig(**{"models": ("fake",)} | (config or {}))
        kept = None if journal is None else Journal(journal)
        service = await Service.start(settings, load=load, policy=policy, by_path=by_path, journal=kept)
        staged = Staged(service, engines, kept)
        begun.append(staged)
        if started:
            await service.wait_started()
        return staged

    yield begin
    for staged in begun:
        await staged.close()


@pytest.fixture
def begin(stage: Stage, tmp_path: Path) -> Begin:
    """Starts a service on the test's journal; the one before must have been closed."""

    async def one(**options: Any) -> Staged:
        return await stage(journal=tmp_path / "journal.db", **{"script": SCRIPT} | options)

    return one
