"""An engine in a process of its own, seen from the service: started, watched, fed, and ended.

The process is found dead when its pipes close, and hung when its heartbeats stay away or its steps stop; a hung one
is killed. Both directions are bounded: `send` waits while the process does not read, and the process waits, in its
write, while nobody takes its events.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import cast

import msgspec

from parrotserve.engines.base import (
    HEARTBEAT_SECONDS,
    MISSED_HEARTBEATS,
    Command,
    Engine,
    EngineDescription,
    Event,
    Heartbeat,
)
from parrotserve.engines.frames import Events, FrameBuffer, Ready, Refused, decode_from_engine, encode
from parrotserve.errors import EngineFailed, ParrotError, from_wire
from parrotserve.ids import EngineId

_START_SECONDS = 300.0
_STUCK_SECONDS = 300.0
_MOST_UNREAD = 256
"""Lists of events that wait for the consumer before the process has to."""
_LAST_WORDS = 20
"""Lines of its standard error that a failure quotes."""

_log = logging.getLogger(__name__)


class ProcessEngine(Engine):
    """A handle on one engine process. `settings` is the first frame it gets, whatever its kind understands."""

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
        """`env` is added to this process's environment. `stuck_seconds`: how long one step may take at most."""
        self.id = id
        self._command = tuple(command)
        self._settings = settings
        self._env = dict(env or {})
        self._heartbeat_seconds = heartbeat_seconds
        self._start_seconds = start_seconds
        self._stuck_seconds = stuck_seconds
        self._pipes: _Pipes | None = None
        self._description: EngineDescription | None = None
        self._watch: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._pipes.pid if self._pipes is not None else None

    @property
    def held_back(self) -> bool:
        """Whether the process may have to wait for the consumer of its events."""
        return self._pipes is not None and self._pipes.held_back

    async def start(self) -> EngineDescription:
        """Bring it up and say what it is. Raises `ModelError` or `EngineFailed`; then nothing is left running."""
        if self._pipes is not None:
            raise EngineFailed(f"Engine {self.id} was started already; make a new one instead.")
        loop = asyncio.get_running_loop()
        try:
            _, self._pipes = await loop.subprocess_exec(
                lambda: _Pipes(self.id),
                *self._command,
                env={**os.environ, **self._env},
                start_new_session=True,  # a Ctrl-C at the terminal is for the service, which then ends its engines
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
        """What `start` returned."""
        if self._description is None:
            raise EngineFailed(f"Engine {self.id} has not been started.")
        return self._description

    async def send(self, commands: Sequence[Command]) -> None:
        """Hand over commands, in order; waits while the process does not read. Raises `EngineFailed`."""
        pipes = self._running()
        async with self._sending:
            await pipes.send(encode(list(commands)))

    async def events(self) -> AsyncIterator[list[Event]]:
        """All events, one list a step, until `close`. Raises `EngineFailed` when the process dies or hangs."""
        pipes = self._running()
        while (events := await pipes.next_events()) is not None:
            yield events

    async def close(self) -> None:
        """Kills the process; safe to call twice."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._pipes is not None:
            await self._pipes.close()

    def _running(self) -> "_Pipes":
        if self._pipes is None or self._description is None:
            raise EngineFailed(f"Engine {self.id} has not been started.")
        return self._pipes

    async def _watch_heartbeats(self, pipes: "_Pipes") -> None:
        """Counts its own ticks, not time: a service that was itself held up does not blame its engines."""
        missed, seen = 0, pipes.frames
        steps, still_for = -1, 0.0
        while not pipes.gone:
            await asyncio.sleep(self._heartbeat_seconds)
            heartbeat = pipes.heartbeat
            if pipes.held_back:
                missed, still_for = 0, 0.0
                continue
            missed = missed + 1 if pipes.frames == seen else 0
            seen = pipes.frames
            still_for = still_for + self._heartbeat_seconds if heartbeat.running and heartbeat.steps == steps else 0.0
            steps = heartbeat.steps
            if missed >= MISSED_HEARTBEATS:
                pipes.kill(f"Engine {self.id} hung: {missed} heartbeats in a row did not come. It was killed.")
            elif still_for >= self._stuck_seconds:
                pipes.kill(f"Engine {self.id} hung: a step took more than {self._stuck_seconds:g} s. It was killed.")


class _Pipes(asyncio.SubprocessProtocol):
    """The process and its three pipes. Whatever ends it, `_end` runs once, after the last event was read."""

    def __init__(self, engine: EngineId) -> None:
        self.ready: asyncio.Future[EngineDescription] = asyncio.get_running_loop().create_future()
        self.heartbeat = Heartbeat()
        self.frames = 0
        """How many frames have come: grows while the process lives."""
        self.held_back = False
        """Whether reading has stopped until the consumer takes events."""
        self.gone = False
        self._engine = engine
        self._why: str | None = None
        self._failure: EngineFailed | None = None
        self._closed = False
        self._frames_in = FrameBuffer()
        self._unread: deque[list[Event]] = deque()
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = asyncio.Event()
        self._stderr = b""
        self._last_words: deque[str] = deque(maxlen=_LAST_WORDS)

    # --- What the engine handle asks -------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        return self._transport.get_pid()

    def write(self, frame: bytes) -> None:
        stdin = self._transport.get_pipe_transport(0)
        cast(asyncio.WriteTransport, stdin).write(frame)

    async def send(self, frame: bytes) -> None:
        """Writes, and waits while more than a pipe's worth is unread. Raises `EngineFailed` if nobody will read it."""
        if not self.gone:
            self.write(frame)
            await self._writable.wait()
        if self.gone:
            await self._lost.wait()
            raise self._failed()

    async def next_events(self) -> list[Event] | None:
        """The next list; None once closed. Raises `EngineFailed` after the last one."""
        while not self._unread and not self._lost.is_set():
            self._news.clear()
            await self._news.wait()
        if self._closed:
            return None
        if not self._unread:
            raise self._failed()
        events = self._unread.popleft()
        if self.held_back and len(self._unread) <= _MOST_UNREAD // 2:
            self.held_back = False
            self._stdout().resume_reading()
        return events

    def kill(self, why: str) -> None:
        """Ends it by force; `why` is what its failure says."""
        self._why = self._why or why
        with contextlib.suppress(ProcessLookupError):
            self._transport.kill()

    async def close(self) -> None:
        self._closed = True
        self._transport.close()
        self._news.set()
        await self._lost.wait()

    # --- What asyncio tells ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self._hear(data)
            return
        try:
            for body in self._frames_in.feed(data):
                self._take(decode_from_engine(body))
        except (ValueError, msgspec.MsgspecError) as error:
            self.kill(f"Engine {self._engine} does not speak the engines' protocol: {error}. It was killed.")

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 0:
            self._give_up_writing()

    def process_exited(self) -> None:
        self._give_up_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has ended and everything it wrote was read."""
        self._give_up_writing()
        if not self.ready.done():
            self.ready.set_exception(self._failed())
            self.ready.exception()  # it may be that nobody waits any more
        self._lost.set()
        self._news.set()

    # --- Inside ----------------------------------------------------------------------------------------------

    def _stdout(self) -> asyncio.ReadTransport:
        return cast(asyncio.ReadTransport, self._transport.get_pipe_transport(1))

    def _take(self, message: Ready | Refused | Events) -> None:
        self.frames += 1
        match message:
            case Ready():
                if not self.ready.done():
                    self.ready.set_result(message.description)
            case Refused():
                if not self.ready.done():
                    self.ready.set_exception(from_wire(message.code, message.message))
            case Events():
                self._note_heartbeat(message.events)
                if self.ready.done():
                    self._unread.append(message.events)
                    self._news.set()
        if len(self._unread) >= _MOST_UNREAD and not self.held_back:
            self.held_back = True
            self._stdout().pause_reading()

    def _note_heartbeat(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Heartbeat):
                self.heartbeat = event

    def _hear(self, data: bytes) -> None:
        *lines, self._stderr = (self._stderr + data).split(b"\n")
        for line in lines:
            text = line.decode("utf-8", errors="replace").rstrip()
            self._last_words.append(text)
            _log.info("%s: %s", self._engine, text)

    def _give_up_writing(self) -> None:
        self.gone = True
        self._writable.set()

    def _failed(self) -> ParrotError:
        if self._failure is None:
            self._failure = EngineFailed(self._why or self._epitaph(), engine=self._engine)
        return self._failure

    def _epitaph(self) -> str:
        if self._closed:
            return f"Engine {self._engine} was closed."
        code = self._transport.get_returncode()
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code}"
        words = "\n".join([*self._last_words, self._stderr.decode("utf-8", errors="replace")]).strip()
        return f"The process of engine {self._engine} {how}." + (f" Its last words:\n{words}" if words else "")
