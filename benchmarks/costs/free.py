"""Engines that cost nothing, and requests for them."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from parrotserve.config import ServiceConfig
from parrotserve.engines.base import (
    Capability,
    Command,
    EndStatus,
    Engine,
    EngineDescription,
    Event,
    Generate,
    Heartbeat,
    Open,
    SegmentFinished,
    SequenceEnded,
)
from parrotserve.ids import EngineId
from parrotserve.runtime.catalog import ServedModel, fake_model
from parrotserve.sampling import FinishReason, Sampling

PROMPT = "Say this in other words: a parrot repeats what it hears. " * 8
GREEDY = Sampling(max_tokens=1, seed=1)


class FreeEngine(Engine):
    """Answers every sequence at once with a constant, in the service's own process."""

    def __init__(self, id: EngineId) -> None:  # noqa: A002 - the contract's name
        self.id = id
        self._lists: asyncio.Queue[list[Event] | None] = asyncio.Queue()
        self._beating: asyncio.Task[None] | None = None

    async def start(self) -> EngineDescription:
        self._beating = asyncio.create_task(self._beat())
        return self.describe()

    def describe(self) -> EngineDescription:
        return EngineDescription(
            model="fake",
            context_length=8192,
            cache_tokens=1 << 30,
            page_tokens=1,
            credits=1024,
            capabilities=frozenset(Capability),
        )

    async def send(self, commands: Sequence[Command]) -> None:
        events: list[Event] = []
        for command in commands:
            if isinstance(command, Open):
                sequence, epoch = command.sequence, command.epoch
                events += [
                    SegmentFinished(
                        sequence=sequence,
                        epoch=epoch,
                        segment=index,
                        tokens=(65,),
                        text="A",
                        reason=FinishReason.LENGTH,
                    )
                    for index, segment in enumerate(command.segments)
                    if isinstance(segment, Generate)
                ]
                events.append(SequenceEnded(sequence=sequence, epoch=epoch, status=EndStatus.DONE))
        if events:
            self._lists.put_nowait(events)

    async def events(self) -> AsyncIterator[list[Event]]:
        while (events := await self._lists.get()) is not None:
            yield events

    async def close(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        self._lists.put_nowait(None)

    async def _beat(self) -> None:
        while True:
            self._lists.put_nowait([Heartbeat()])
            await asyncio.sleep(1.0)


def load_free(name: str, config: ServiceConfig, progress: object) -> ServedModel:
    """The model that engines without cost serve."""
    return fake_model(FreeEngine, name=name)
