"""A real server on a real socket, with fake engines behind it, away from the front end's own event loop."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any

from parrotserve.config import ServiceConfig
from parrotserve.engines.fake import FakeEngine
from parrotserve.ids import EngineId
from parrotserve.models.pull import Progress
from parrotserve.runtime.catalog import ServedModel, fake_model
from parrotserve.server.run import serve_until_stopped


class Served:
    """`parrot serve` with fake engines, in a thread and an event loop of its own, as another process would be."""

    def __init__(self, port: int = 0, **options: Any) -> None:
        self.engines: list[FakeEngine] = []
        self._options = options
        self._up: Future[str] = Future()
        self._config = ServiceConfig(models=("fake",), port=port)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="served")
        self._thread.start()
        self.url = self._up.result(30).split()[4]
        self.port = int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        """As Ctrl-C does."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(30)

    def call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Do something on the server's loop."""
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def tick(self, steps: int) -> None:
        """So many steps of every engine."""
        for engine in self.engines:
            await engine.tick(steps)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        serving = serve_until_stopped(self._config, announce=self._up.set_result, load=self._load)
        self._task = asyncio.create_task(serving)
        await asyncio.gather(self._task, return_exceptions=True)

    def _load(self, name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
        return fake_model(self._make, name=name)

    def _make(self, engine: EngineId) -> FakeEngine:
        self.engines.append(FakeEngine(engine, **self._options))
        return self.engines[-1]
