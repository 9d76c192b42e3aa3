"""An engine without a model, for tests and demonstrations: it recites scripts, and fails when told to.

It is a fake: no language model is behind it. Everything else follows the contract, by the code that also advances the
native engine's sequences: late segments, several outputs, delivered tokens, stop strings, streams, pauses, epochs.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from parrotserve.engines.base import (
    HEARTBEAT_SECONDS,
    MISSED_HEARTBEATS,
    Capability,
    Command,
    Engine,
    EngineDescription,
    Event,
    Heartbeat,
    StepsTimed,
)
from parrotserve.engines.fake_core import FakeCore
from parrotserve.engines.fake_tokenizer import FakeTokenizer
from parrotserve.engines.native.settings import CoreSettings
from parrotserve.errors import EngineFailed, ParrotError
from parrotserve.ids import EngineId

Script = Mapping[str, str] | Callable[[str], str]
"""Maps the text before an output to the output. In a mapping, the longest key that occurs in the text decides."""

_WORDS = ("amber", "basil", "cedar", "ember", "grove", "kayak", "lemon", "maple", "pearl", "river", "stone", "tulip")
_DEFAULT_ID = EngineId("fake")
_MOST_UNREAD = 256
"""Unread lists of events at which the engine waits for its consumer."""


def some_words(prompt: str) -> str:
    """The output of a `FakeEngine` without a script: a few words that depend on the prompt alone."""
    digest = hashlib.blake2b(prompt.encode("utf-8", errors="replace"), digest_size=16).digest()
    return " ".join(_WORDS[byte % len(_WORDS)] for byte in digest[: 4 + digest[0] % 9]) + "."


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Faults to inject; by default none."""

    start_seconds: float = 0.0
    """Seconds that `start` takes."""
    refuse_start: ParrotError | None = None
    """Error that `start` raises."""
    die_after_events: int | None = None
    """The engine dies once it has reported this many events, not counting heartbeats and measured times."""
    hang_after_events: int | None = None
    """Likewise, but it falls silent, and is found hung after three missed heartbeats."""
    fail_prompts: tuple[str, ...] = ()
    """A sequence fails at an output whose prompt contains one of these."""


class FakeEngine(Engine):
    """Recites a script: one token, which is a byte, per step for each sequence.

    It runs freely, or with `ticking` only when the test calls `tick`. Its own clock advances by `step_seconds` a step;
    when running freely it also waits that long.
    """

    def __init__(
        self,
        id: EngineId = _DEFAULT_ID,  # noqa: A002 - the contract's name
        *,
        model: str = "fake",
        script: Script = some_words,
        capabilities: frozenset[Capability] = frozenset(Capability),
        context_length: int = 8192,
        credits: int = 256,  # noqa: A002 - the contract's name
        max_running: int = 64,
        ticking: bool = False,
        step_seconds: float = 0.0,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        faults: Faults = Faults(),
        tokenizer: FakeTokenizer | None = None,
    ) -> None:
        self.id = id
        self.tokenizer = tokenizer or FakeTokenizer()
        self._description = EngineDescription(
            model=model,
            context_length=context_length,
            cache_tokens=context_length * max_running,
            page_tokens=1,
            credits=credits,
            batch=max_running,
            capabilities=capabilities,
        )
        self._core = FakeCore(
            _as_function(script),
            self.tokenizer,
            CoreSettings(context_length=context_length, max_running=max_running, credits=credits),
            takes_text=Capability.TOKENS not in capabilities,
            step_seconds=step_seconds,
            fail_prompts=faults.fail_prompts,
        )
        self._ticking = ticking
        self._step_seconds = step_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._faults = faults
        self._unread: deque[list[Event]] = deque()
        self._told = 0
        self._changed = asyncio.Condition()
        self._failure: EngineFailed | None = None
        self._hanging = False
        self._closed = False
        self._tasks: list[asyncio.Task[None]] = []

    # --- The contract ---------------------------------------------------------------------------------------

    async def start(self) -> EngineDescription:
        """Starts, unless its faults make it refuse."""
        await asyncio.sleep(self._faults.start_seconds)
        if self._faults.refuse_start is not None:
            raise self._faults.refuse_start
        self._tasks.append(asyncio.create_task(self._beat(), name=f"heartbeat {self.id}"))
        if not self._ticking:
            self._tasks.append(asyncio.create_task(self._run(), name=f"run {self.id}"))
        return self._description

    def describe(self) -> EngineDescription:
        """What `start` returned."""
        return self._description

    async def send(self, commands: Sequence[Command]) -> None:
        """Handles commands at once. Raises `EngineFailed` if it has died or was closed."""
        if self._failure is not None or self._closed:
            raise self._failure or EngineFailed(f"Engine {self.id} was closed.", engine=self.id)
        async with self._changed:
            if not self._hanging:
                for command in commands:
                    self._core.handle(command)
            self._changed.notify_all()

    async def events(self) -> AsyncIterator[list[Event]]:
        """Yields all events until `close`. Raises `EngineFailed` if it has died or hung, after the last event."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._unread or self._failure or self._closed)
                if self._closed:
                    return
                if not self._unread:
                    assert self._failure is not None
                    raise self._failure
                events = self._unread.popleft()
                self._changed.notify_all()
            yield events

    async def close(self) -> None:
        """Stops the engine."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        async with self._changed:
            self._changed.notify_all()

    # --- What a test may do ---------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Its own clock: seconds of all steps so far."""
        return self._core.now

    @property
    def heartbeat(self) -> Heartbeat:
        """Its present heartbeat."""
        return self._core.heartbeat()

    async def tick(self, steps: int = 1) -> None:
        """Runs steps of a `ticking` engine."""
        for _ in range(steps):
            if not self._hanging and self._failure is None:
                await self._step()

    async def die(self, why: str = "It was told to.") -> None:
        """Dies now."""
        async with self._changed:
            self._failure = self._failure or EngineFailed(f"Engine {self.id} died: {why}", engine=self.id)
            self._changed.notify_all()

    def hang(self) -> None:
        """Falls silent now."""
        self._hanging = True

    # --- Inside ---------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while self._failure is None:
            async with self._changed:
                await self._changed.wait_for(lambda: not self._core.idle and len(self._unread) < _MOST_UNREAD)
            if self._hanging:
                return
            await asyncio.sleep(self._step_seconds)
            await self._step()

    async def _step(self) -> None:
        events = self._core.step()
        if events:
            await self._tell(events)
            self._told += sum(not isinstance(event, StepsTimed) for event in events)
        if _reached(self._told, self._faults.hang_after_events):
            self.hang()
        if _reached(self._told, self._faults.die_after_events):
            await self.die(f"it has told {self._told} events.")

    async def _tell(self, events: list[Event]) -> None:
        async with self._changed:
            self._unread.append(events)
            self._changed.notify_all()

    async def _beat(self) -> None:
        while not self._hanging:
            await self._tell([self._core.heartbeat()])
            await asyncio.sleep(self._heartbeat_seconds)
        await asyncio.sleep(self._heartbeat_seconds * (MISSED_HEARTBEATS - 1))
        await self.die(f"it hung: {MISSED_HEARTBEATS} heartbeats in a row did not come.")


def _as_function(script: Script) -> Callable[[str], str]:
    if not isinstance(script, Mapping):
        return script

    def look_up(prompt: str) -> str:
        matches = [key for key in script if key in prompt]
        return script[max(matches, key=len)] if matches else some_words(prompt)

    return look_up


def _reached(count: int, limit: int | None) -> bool:
    return limit is not None and count >= limit
