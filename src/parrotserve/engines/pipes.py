"""An engine's process and its three pipes, as an asyncio protocol.

Frames arrive on the process's standard output and wait in a bounded queue; commands are written to its standard input;
its standard error is logged, and the last lines of it are kept to explain a failure.
"""

import asyncio
import contextlib
import logging
from collections import deque
from typing import cast

import msgspec

from parrotserve.engines.base import EngineDescription, Event, Heartbeat
from parrotserve.engines.frames import WARNING, Events, FrameBuffer, Ready, Refused, decode_from_engine
from parrotserve.errors import EngineFailed, ParrotError, from_wire
from parrotserve.ids import EngineId
from parrotserve.processes import signal_name

_MOST_UNREAD = 256
"""Most lists of events that wait for the consumer; beyond that, the process has to wait."""
_BY_FORCE = -9
"""The exit code of a process that was ended by SIGKILL."""
_LAST_WORDS = 20
"""Lines of the process's standard error that are logged after a failure."""
_LONGEST_LINE = 1 << 16
"""Bytes of a line of standard error; longer lines are split."""

_log = logging.getLogger(__name__)


class EnginePipes(asyncio.SubprocessProtocol):
    """One process. Whatever ends it, `connection_lost` is called once, after its last event was read."""

    def __init__(self, engine: EngineId) -> None:
        self.ready: asyncio.Future[EngineDescription] = asyncio.get_running_loop().create_future()
        self.heartbeat = Heartbeat()
        self.frames = 0
        """Number of frames received; it grows as long as the process lives."""
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

    # --- For the engine handle -------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        return self._transport.get_pid()

    def write(self, frame: bytes) -> None:
        stdin = self._transport.get_pipe_transport(0)
        cast(asyncio.WriteTransport, stdin).write(frame)

    async def send(self, frame: bytes) -> None:
        """Writes, and waits while more than a pipe holds is unread. Raises `EngineFailed` if the process is gone."""
        if not self.gone:
            self.write(frame)
            await self._writable.wait()
        if self.gone:
            await self._lost.wait()
            raise self._failed()

    async def next_events(self) -> list[Event] | None:
        """The next list of events; None once closed. Raises `EngineFailed` after the last one."""
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
        """Kills the process; `why` becomes the message of its failure."""
        self._why = self._why or why
        with contextlib.suppress(ProcessLookupError):
            self._transport.kill()

    async def close(self) -> None:
        self._closed = True
        self._transport.close()
        self._news.set()
        await self._lost.wait()

    # --- Called by asyncio -----------------------------------------------------------------------------------

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
        """The process has ended, and everything that it wrote was read."""
        self._give_up_writing()
        if not self.ready.done():
            self.ready.set_exception(self._failed())
            self.ready.exception()  # mark it as retrieved: perhaps nobody waits any more
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
        *lines, rest = (self._stderr + data).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        self._stderr = rest
        for line in lines:
            text = line.decode("utf-8", errors="replace").rstrip()
            self._last_words.append(text)
            level = logging.WARNING if text.startswith(WARNING) else logging.INFO
            _log.log(level, "%s: %s", self._engine, text.removeprefix(WARNING))

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
        if code is None:
            how = "closed its pipe"
        else:
            how = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
            if code == _BY_FORCE:
                how += ", as the system does where memory runs out"
        words = "\n".join([*self._last_words, self._stderr.decode("utf-8", errors="replace")]).strip()
        told = f"The process of engine {self._engine} {how}."
        if not words:
            return told
        # Not shown to those who wait for results: it may quote others' prompts, and reveal this machine's files.
        _log.error("%s Its last words:\n%s", told, words)
        return f"{told} The service's log has its last words."
