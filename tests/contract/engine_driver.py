"""Short words for what contract tests do with an engine of any kind."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from parrotserve.criteria import Objective
from parrotserve.engines.base import (
    Cancel,
    Command,
    EndStatus,
    Engine,
    EngineDescription,
    Event,
    Extend,
    Fill,
    Generate,
    Heartbeat,
    Open,
    Pause,
    Resume,
    SegmentFinished,
    SequenceEnded,
    StepsTimed,
    TokensGenerated,
    Update,
)
from parrotserve.ids import RequestId
from parrotserve.sampling import Sampling, Usage

_serial = itertools.count()


def _of(event: Event) -> tuple[RequestId, int] | None:
    return None if isinstance(event, Heartbeat | StepsTimed) else (event.sequence, event.epoch)


class Tokenizer(Protocol):
    eos: frozenset[int]

    def encode(self, text: str, /) -> list[int]: ...
    def decode(self, ids: Sequence[int], /) -> str: ...


@dataclass
class Result:
    """What came of one (sequence, epoch)."""

    events: list[Event]

    @property
    def end(self) -> SequenceEnded:
        (end,) = [event for event in self.events if isinstance(event, SequenceEnded)]
        return end

    @property
    def status(self) -> EndStatus:
        return self.end.status

    @property
    def usage(self) -> Usage:
        return self.end.usage

    @property
    def error_code(self) -> str:
        return self.end.error[0] if self.end.error else ""

    @property
    def outputs(self) -> list[SegmentFinished]:
        return [event for event in self.events if isinstance(event, SegmentFinished)]

    @property
    def text(self) -> str:
        return self.outputs[0].text

    @property
    def tokens(self) -> tuple[int, ...]:
        return self.outputs[0].tokens

    @property
    def told(self) -> list[TokensGenerated]:
        return [event for event in self.events if isinstance(event, TokensGenerated)]

    @property
    def told_text(self) -> str:
        return "".join(event.text for event in self.told)

    @property
    def told_tokens(self) -> tuple[int, ...]:
        return tuple(token for event in self.told for token in event.tokens)


class Driver:
    """Sends commands to a started engine, and gathers all its events in the background."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.description: EngineDescription = engine.describe()
        self.events: list[Event] = []
        self.heartbeat = Heartbeat()
        self._news = asyncio.Condition()
        self._gathering = asyncio.create_task(self._gather())

    async def _gather(self) -> None:
        try:
            async for events in self.engine.events():
                async with self._news:
                    self.events += events
                    for event in events:
                        self.heartbeat = event if isinstance(event, Heartbeat) else self.heartbeat
                    self._news.notify_all()
        finally:
            async with self._news:
                self._news.notify_all()

    async def close(self) -> None:
        await self.engine.close()
        await asyncio.gather(self._gathering, return_exceptions=True)

    async def until(self, happened: Callable[[], object]) -> None:
        """Waits for it. Raises what the engine's events raise."""
        async with self._news:
            await self._news.wait_for(lambda: happened() or self._gathering.done())
        if not happened():
            await self._gathering
            raise AssertionError("the engine was closed before that happened")

    @property
    def times(self) -> list[StepsTimed]:
        return [event for event in self.events if isinstance(event, StepsTimed)]

    # --- Commands -------------------------------------------------------------------------------------------

    def fresh(self) -> RequestId:
        """A sequence that has never been."""
        return RequestId(f"sequence-{next(_serial)}")

    def fill(self, text: str) -> Fill:
        return Fill(tokens=tuple(self.tokenizer.encode(text)))

    async def send(self, *commands: Command) -> None:
        await self.engine.send(commands)

    async def open(
        self,
        *segments: Fill | Generate,
        sequence: RequestId | None = None,
        epoch: int = 1,
        salt: str = "",
        public: int = 0,
        objective: Objective = Objective.LATENCY,
    ) -> RequestId:
        sequence = sequence or self.fresh()
        await self.send(
            Open(sequence=sequence, epoch=epoch, segments=segments, salt=salt, public=public, objective=objective)
        )
        return sequence

    async def extend(
        self, sequence: RequestId, segment: int, tokens: Sequence[int], *, offset: int = 0, last: bool = True
    ) -> None:
        await self.send(
            Extend(sequence=sequence, epoch=1, segment=segment, offset=offset, tokens=tuple(tokens), last=last)
        )

    async def pause(self, sequence: RequestId) -> None:
        await self.send(Pause(sequence, 1))

    async def resume(self, sequence: RequestId) -> None:
        await self.send(Resume(sequence, 1))

    async def cancel(self, sequence: RequestId) -> None:
        await self.send(Cancel(sequence, 1))

    async def stream(self, sequence: RequestId, *segments: int) -> None:
        await self.send(Update(sequence=sequence, epoch=1, stream=segments))

    # --- Events ---------------------------------------------------------------------------------------------

    def result(self, sequence: RequestId, epoch: int = 1) -> Result:
        """What has come of it so far."""
        return Result([event for event in self.events if _of(event) == (sequence, epoch)])

    async def ended(self, sequence: RequestId, epoch: int = 1) -> Result:
        def has_ended() -> bool:
            return any(isinstance(event, SequenceEnded) for event in self.result(sequence, epoch).events)

        await self.until(has_ended)
        return self.result(sequence, epoch)

    async def told(self, sequence: RequestId, tokens: int) -> None:
        """Waits until that many tokens of a stream have come."""
        await self.until(lambda: len(self.result(sequence).told_tokens) >= tokens)

    async def run(self, *segments: Fill | Generate, salt: str = "", public: int = 0) -> Result:
        """A whole sequence."""
        return await self.ended(await self.open(*segments, salt=salt, public=public))

    async def settle(self) -> None:
        """Waits until all that was sent before has been taken in and stepped."""
        await self.run(self.fill("settle"), generate(1))

    async def next_heartbeat(self) -> Heartbeat:
        """A heartbeat from after all that was sent before."""
        await self.settle()
        seen = self._heartbeats()
        await self.until(lambda: self._heartbeats() > seen)
        return self.heartbeat

    def _heartbeats(self) -> int:
        return sum(isinstance(event, Heartbeat) for event in self.events)


def generate(
    max_tokens: int = 12, *, stream: bool = False, delivered: Sequence[int] = (), **sampling: object
) -> Generate:
    return Generate(
        sampling=Sampling(max_tokens=max_tokens, **sampling),  # type: ignore[arg-type]
        stream=stream,
        delivered=tuple(delivered),
    )
