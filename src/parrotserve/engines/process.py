"""An engine in a process of its own, seen from the service: starts, watches, feeds and ends it.

The process counts as dead when its pipes close, and as hung when its heartbeats or its steps stop; a hung process is
killed. Both directions are bounded: `send` waits while the process does not read, and the process blocks in its write
while nobody takes its events.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence

from parrotserve.engines.base import HEARTBEAT_SECONDS, Command, Engine, EngineDescription, Event
from parrotserve.engines.frames import encode
from parrotserve.engines.pipes import EnginePipes
from parrotserve.engines.pulse import Pulse
from parrotserve.errors import EngineFailed
from parrotserve.ids import EngineId

_START_SECONDS = 300.0
_STUCK_SECONDS = 300.0


class ProcessEngine(Engine):
    """A handle on one engine process. `settings` is sent as its first frame; its form depends on the kind of engine."""

    def __init__(
        self,
        id: EngineId,  # noqa: A002 - the contract's name
        command: Sequence[str],
        settings: object,
        *,
        env: Mapping[str, str] | None = None,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        start_seconds: float = _START_SECONDS,
        stuck_seconds: float = _STUCK_SECONDS,
    ) -> None:
        """`env` is added to this process's environment. `stuck_seconds`: the longest that one step may take."""
        self.id = id
        self._command = tuple(command)
        self._settings = settings
        self._env = dict(env or {})
        self._heartbeat_seconds = heartbeat_seconds
        self._start_seconds = start_seconds
        self._stuck_seconds = stuck_seconds
        self._pipes: EnginePipes | None = None
        self._description: EngineDescription | None = None
        self._watch: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Id of the process, while there is one."""
        return self._pipes.pid if self._pipes is not None else None

    @property
    def held_back(self) -> bool:
        """Whether the process may have to wait for the consumer of its events."""
        return self._pipes is not None and self._pipes.held_back

    async def start(self) -> EngineDescription:
        """Start the process, and return the engine's description. Raises `ModelError`, `EngineFailed` or
        `EngineRefused`; then nothing is left running."""
        if self._pipes is not None:
            raise EngineFailed(f"Engine {self.id} was started already; make a new one instead.")
        loop = asyncio.get_running_loop()
        try:
            _, self._pipes = await loop.subprocess_exec(
                lambda: EnginePipes(self.id),
                *self._command,
                env={**os.environ, **self._env},
                start_new_session=True,  # Ctrl-C at the terminal goes to the service only, which ends its engines
            )
        except OSError as error:
            raise EngineFailed(f"Engine {self.id} could not be started: {error}.") from error
        try:
            self._pipes.write(encode(self._settings))
            async with asyncio.timeout(self._start_seconds):
                description = self._description = await self._pipes.ready
        except TimeoutError as error:
            raise EngineFailed(f"Engine {self.id} was not ready within {self._start_seconds:g} s.") from error
        finally:
            if self._description is None:
                await self._pipes.close()
        self._watch = asyncio.create_task(self._watch_heartbeats(self._pipes), name=f"watch {self.id}")
        return description

    def describe(self) -> EngineDescription:
        """The description that `start` returned."""
        if self._description is None:
            raise EngineFailed(f"Engine {self.id} has not been started.")
        return self._description

    async def send(self, commands: Sequence[Command]) -> None:
        """Hand over commands, in order; waits while the process does not read. Raises `EngineFailed`."""
        pipes = self._running()
        async with self._sending:
            await pipes.send(encode(list(commands)))

    async def events(self) -> AsyncIterator[list[Event]]:
        """All events, one list per step, until `close`. Raises `EngineFailed` when the process dies or hangs."""
        pipes = self._running()
        while (events := await pipes.next_events()) is not None:
            yield events

    async def close(self) -> None:
        """Kill the process. Safe to call twice."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._pipes is not None:
            await self._pipes.close()

    def _running(self) -> EnginePipes:
        if self._pipes is None or self._description is None:
            raise EngineFailed(f"Engine {self.id} has not been started.")
        return self._pipes

    async def _watch_heartbeats(self, pipes: EnginePipes) -> None:
        pulse, seen = Pulse(heartbeat=self._heartbeat_seconds, stuck_after=self._stuck_seconds), pipes.frames
        while not pipes.gone:
            await asyncio.sleep(self._heartbeat_seconds)
            if pipes.held_back:
                pulse.excuse()
                continue
            complaint = pulse.look(pipes.heartbeat, alive=pipes.frames != seen)
            seen = pipes.frames
            if complaint:
                pipes.kill(f"Engine {self.id} hung: {complaint}. It was killed.")
