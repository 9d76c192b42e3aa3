"""The inside of an engine's process: connects its pipes with a synchronous core that runs step by step.

main thread        commands -> core.handle; core.step -> events
other threads      compile grammars; the main thread is woken when one is ready
reader thread      frames from standard input; when that closes, the process exits, even in the middle of a step
heartbeat thread   sends one every second, whatever the main thread does
"""

import io
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, Protocol

import msgspec

from parrotserve.engines.base import HEARTBEAT_SECONDS, Command, EngineDescription, Event, Heartbeat
from parrotserve.engines.frames import Events, Ready, Refused, decode_commands, encode, read_frame
from parrotserve.errors import EngineRefused, ParrotError
from parrotserve.processes import heed_the_service_alone

_INBOX = 256
"""Most lists of commands that wait for the main thread; beyond that, the service has to wait."""
_COUNT_SECONDS = 0.1
"""Maximum age of a heartbeat's numbers, while steps are short."""
_REST_SECONDS = 1.0
"""Idle time after which `prepare` is called: programs that end soon need no preparation."""
_GRACE_SECONDS = 2.0
"""Time that the current step may still take once the service is gone."""


class Core(Protocol):
    """What the worker runs, such as `parrotserve.engines.native.loop.NativeCore`."""

    @property
    def idle(self) -> bool: ...
    def call_when_ready(self, wake: Callable[[], None], /) -> None: ...
    def handle(self, command: Command) -> None: ...
    def step(self) -> list[Event]: ...
    def heartbeat(self) -> Heartbeat: ...
    def prepare(self) -> None:
        """Makes what will be needed later; called once, while the core is idle."""
        ...


Build = Callable[[bytes], tuple[EngineDescription, Core]]
"""Builds the engine from the service's first frame. Raises `ParrotError`."""


def run_worker(build: Build) -> int:
    """Serves one engine over standard input and output until the service is gone. Returns the process's exit code."""
    heed_the_service_alone()
    stdin, stdout = _take_over_pipes()
    return _Worker(stdin, stdout).run(build)


def _take_over_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Takes the two pipes for the worker alone: libraries then print to standard error, and read empty input."""
    stdin = os.fdopen(os.dup(0), "rb")
    stdout = os.fdopen(os.dup(1), "wb", buffering=0)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # it is used as a log now
    return stdin, stdout


class _Worker:
    def __init__(self, stdin: BinaryIO, stdout: BinaryIO) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._writing = threading.Lock()
        self._inbox: queue.Queue[list[Command]] = queue.Queue(_INBOX)
        self._service_gone = threading.Event()
        self._heartbeat = Heartbeat()
        self._next_count = 0.0
        self._works = False
        self._prepared = False

    def run(self, build: Build) -> int:
        settings = read_frame(self._stdin)
        if settings is None:
            return 0
        self._start_thread(self._beat)
        try:
            description, core = build(settings)
        except ParrotError as error:
            self._write(Refused(error.code, error.message))
            return 1
        except Exception as error:  # an unforeseen error would most likely recur at the next attempt
            traceback.print_exc()
            refusal = EngineRefused(f"The engine cannot be built ({type(error).__name__}: {error}).")
            self._write(Refused(refusal.code, refusal.message))
            return 1
        self._heartbeat = core.heartbeat()
        core.call_when_ready(self._wake)
        self._write(Ready(description))
        self._start_thread(self._read)
        while not self._service_gone.is_set():
            lists = self._new_commands(core)
            self._works = True
            for commands in lists:
                for command in commands:
                    core.handle(command)
            events = core.step()
            self._works = False
            self._note_heartbeat(core)
            if events:
                self._write(Events(events))
        return 0

    def _note_heartbeat(self, core: Core) -> None:
        """Updates the heartbeat's numbers. Not in every step, as counting takes time and heartbeats are rare."""
        now = time.monotonic()
        if now >= self._next_count or core.idle:
            self._heartbeat = core.heartbeat()
            self._next_count = now + _COUNT_SECONDS

    @staticmethod
    def _start_thread(target: Callable[[], None]) -> None:
        threading.Thread(target=target, name=target.__name__, daemon=True).start()

    def _new_commands(self, core: Core) -> list[list[Command]]:
        """All commands that have arrived; waits for some if the core is idle."""
        lists = [self._next_commands(core)] if core.idle else []
        while not self._inbox.empty():
            lists.append(self._inbox.get_nowait())
        return lists

    def _next_commands(self, core: Core) -> list[Command]:
        if not self._prepared:
            with suppress(queue.Empty):
                return self._inbox.get(timeout=_REST_SECONDS)
            self._prepared = True
            core.prepare()
        return self._inbox.get()

    def _wake(self) -> None:
        """Wakes the main thread if it waits for commands; if the inbox is full, it does not wait."""
        with suppress(queue.Full):
            self._inbox.put_nowait([])

    def _read(self) -> None:
        try:
            while (body := read_frame(self._stdin)) is not None:
                self._inbox.put(decode_commands(body))
        except Exception:  # after any error in a frame, the rest of the stream cannot be trusted
            traceback.print_exc()
            os._exit(1)
        self._service_gone.set()
        self._wake()
        time.sleep(_GRACE_SECONDS)
        os._exit(0)

    def _beat(self) -> None:
        while True:
            with self._writing:  # taken first, so that no heartbeat is older than the events sent before it
                self._write_locked(Events([self._current_heartbeat()]))
            time.sleep(HEARTBEAT_SECONDS)

    def _current_heartbeat(self) -> Heartbeat:
        """The numbers counted last. While the main thread works, at least one sequence counts as running: the work may
        never end."""
        heartbeat = self._heartbeat
        return msgspec.structs.replace(heartbeat, running=max(heartbeat.running, int(self._works)))

    def _write(self, message: Ready | Refused | Events) -> None:
        with self._writing:
            self._write_locked(message)

    def _write_locked(self, message: Ready | Refused | Events) -> None:
        """Blocks while the service does not read. Exits the process if the service has closed the pipe."""
        frame = memoryview(encode(message))
        try:
            while frame:
                frame = frame[self._stdout.write(frame) :]
        except OSError:
            os._exit(0)
