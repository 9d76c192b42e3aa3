"""A real server on a real socket, with fake engines behind it: in a thread, or in a process that can be killed."""

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from parrotserve.config import ServiceConfig
from parrotserve.engines.fake import FakeEngine
from parrotserve.ids import EngineId
from parrotserve.models.pull import Progress
from parrotserve.runtime.catalog import ServedModel, fake_model
from parrotserve.server.run import serve_until_stopped


class Served:
    """`parrot serve` with fake engines, in a thread with an event loop of its own.

    `config` is for the service's settings, other keywords are for its engines.
    """

    def __init__(self, *, config: Mapping[str, Any] | None = None, **options: Any) -> None:
        self._options = options
        self._up: Future[str] = Future()
        self._config = ServiceConfig(models=("fake",), port=0, **(config or {}))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="served")
        self._thread.start()
        self.url = self._up.result(30).split()[4]

    def stop(self) -> None:
        """As Ctrl-C does."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(30)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        serving = serve_until_stopped(self._config, announce=self._up.set_result, load=self._load)
        self._task = asyncio.create_task(serving)
        await asyncio.gather(self._task, return_exceptions=True)

    def _load(self, name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
        return fake_model(self._make, name=name)

    def _make(self, engine: EngineId) -> FakeEngine:
        return FakeEngine(engine, **self._options)


class ServedApart:
    """The same in a process of its own, whose engine echoes slowly: a text takes it seconds.

    `begin`: what its texts begin with.
    """

    def __init__(self, port: int = 0, *, step_seconds: float = 0.002, begin: str = "[") -> None:
        command = [sys.executable, __file__, str(port), str(step_seconds), begin]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        match = re.search(r"(http://\S+?):(\d+)", self.process.stdout.readline())
        assert match
        self.url, self.port = match[0], int(match[2])

    def stop(self) -> None:
        """As an operator does who lets nothing end first."""
        self.process.terminate()
        self._wait()

    def kill(self) -> None:
        """As the kernel does."""
        self.process.kill()
        self._wait()

    def _wait(self) -> None:
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


def recite(prompt: str) -> str:
    """What stands after the prompt's last `Echo: `, in brackets."""
    return f"[{prompt.rpartition('Echo: ')[2]}]"


def _main(port: int, step_seconds: float, begin: str) -> None:
    def script(prompt: str) -> str:
        return recite(prompt).replace("[", begin)

    def load(name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
        return fake_model(lambda engine: FakeEngine(engine, script=script, step_seconds=step_seconds), name=name)

    def announce(line: str) -> None:
        print(line, flush=True)

    config = ServiceConfig(models=("fake",), port=port, drain_seconds=0)
    asyncio.run(serve_until_stopped(config, announce=announce, load=load))


if __name__ == "__main__":
    _main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
