"""Parrot's own engine, through its public interface: sequences opened on an engine process, and their events."""

import asyncio
import time
from collections.abc import Sequence

from contenders.base import SUFFIX, Contender, draw
from parrotserve.engines.base import (
    Cancel,
    Event,
    Fill,
    Generate,
    Heartbeat,
    Open,
    Pause,
    Resume,
    SequenceEnded,
    TokensGenerated,
)
from parrotserve.engines.native.engine import NativeEngine
from parrotserve.engines.native.settings import NativeSettings
from parrotserve.ids import EngineId, RequestId, new_id
from parrotserve.models.config import load_config
from parrotserve.models.files import ModelFiles
from parrotserve.sampling import Sampling

OWN_OUTPUTS = 900
"""Tokens that a sequence of `PrivateNative` generates at most, over all rounds."""


class Native(Contender):
    """One engine. Sequences over one prefix share its KV, where the settings let them."""

    family = "parrot"

    def __init__(self, name: str, files: ModelFiles, settings: NativeSettings) -> None:
        self.name = name
        self._vocabulary = load_config(files).vocabulary
        self._engine = NativeEngine(EngineId(name.replace(" ", "-")), files.name, files, settings)
        self._lists: asyncio.Queue[tuple[float, list[Event]]] = asyncio.Queue()
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Bring it up."""
        await self._engine.start()
        self._reading = asyncio.create_task(self._read())

    async def close(self) -> None:
        """End it."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await self._engine.close()

    async def prefill(self, tokens: int, seed: int) -> float:
        """Seconds from `Open` to the first token's event."""
        opening = _open(self._draw(f"prefill {seed}", tokens), outputs=1, salt=new_id("salt"))
        began = time.perf_counter()
        await self._engine.send([opening])
        seen = await self._until_ended(1)
        return next(moment for moment, events in seen if _tokens(events)) - began

    async def decode(self, batch: int, prefix: int, steps: int, seed: int) -> list[float]:
        """Time between the events of steps in which every sequence got a token."""
        shared = self._draw(f"prefix {prefix}", prefix)
        # The sequences join in several steps; the more there are, the longer it takes until all of them run.
        outputs = steps + 8 + batch * SUFFIX // 128
        await self._engine.send(
            [
                _open(shared + self._draw(f"suffix {seed} {index}", SUFFIX), outputs=outputs, salt="shared")
                for index in range(batch)
            ]
        )
        return full_steps(await self._until_ended(batch), batch, steps)

    def _draw(self, seed: str, count: int) -> tuple[int, ...]:
        return draw(seed, count, self._vocabulary)

    async def _read(self) -> None:
        async for events in self._engine.events():
            self._lists.put_nowait((time.perf_counter(), events))

    async def _next(self) -> tuple[float, list[Event]]:
        async with asyncio.timeout(600):
            assert self._reading is not None
            if self._reading.done():
                self._reading.result()
            return await self._lists.get()

    async def _until_ended(self, sequences: int) -> list[tuple[float, list[Event]]]:
        seen: list[tuple[float, list[Event]]] = []
        while sequences:
            seen.append(await self._next())
            sequences -= sum(isinstance(event, SequenceEnded) for event in seen[-1][1])
        return seen


class PrivateNative(Native):
    """Nothing is shared: each sequence has KV of its own for the prefix too, and reads its own.

    They are prefilled once for each prefix, which takes long, and paused between measurements; so their outputs are
    some tokens longer. Measured only where that counts: the largest batch, over prefixes of `least` tokens and more.
    """

    def __init__(self, name: str, files: ModelFiles, settings: NativeSettings, *, batch: int, least: int) -> None:
        super().__init__(name, files, settings)
        self._batch, self._least = batch, least
        self._prefix = 0
        self._sequences: list[RequestId] = []

    def takes(self, batch: int, tokens: int) -> bool:
        """See `Contender.takes`."""
        return batch == self._batch and tokens >= self._least

    async def decode(self, batch: int, prefix: int, steps: int, seed: int) -> list[float]:
        """Resume as many as asked for, and pause them afterwards."""
        if prefix != self._prefix:
            await self._set_up(prefix)
        chosen = self._sequences[:batch]
        await self._engine.send([Resume(each, 1) for each in chosen])
        seen: list[tuple[float, list[Event]]] = []
        while sum(_tokens(events) == batch for _, events in seen) < steps + 2:
            seen.append(await self._next())
        await self._pause(chosen)
        return full_steps(seen, batch, steps)

    async def _set_up(self, prefix: int) -> None:
        await self._engine.send([Cancel(each, 1) for each in self._sequences])
        await self._until_ended(len(self._sequences))
        shared = self._draw(f"prefix {prefix}", prefix)
        openings = [
            _open(shared + self._draw(f"own {each}", SUFFIX), outputs=OWN_OUTPUTS, salt="")
            for each in range(self._batch)
        ]
        self._prefix, self._sequences = prefix, [opening.sequence for opening in openings]
        for opening in openings:  # one after the other, so that those that wait generate nothing
            await self._engine.send([opening])
            while not _tokens((await self._next())[1], opening.sequence):
                pass
            await self._engine.send([Pause(opening.sequence, 1)])
        await self._pause(self._sequences)

    async def _pause(self, sequences: Sequence[RequestId]) -> None:
        """Returns when none of them makes progress: two heartbeats at the same step."""
        await self._engine.send([Pause(each, 1) for each in sequences])
        steps = -1
        while True:
            for event in (await self._next())[1]:
                if isinstance(event, Heartbeat):
                    if event.steps == steps:
                        return
                    steps = event.steps


def full_steps(seen: Sequence[tuple[float, list[Event]]], batch: int, steps: int) -> list[float]:
    """Seconds between consecutive lists with a token of every sequence; the last `steps` of them."""
    times: list[float] = []
    previous: float | None = None
    for moment, events in seen:
        count = _tokens(events)
        if count == batch:
            if previous is not None:
                times.append(moment - previous)
            previous = moment
        elif count or any(isinstance(event, SequenceEnded) for event in events):
            previous = None
    if len(times) < steps:
        raise RuntimeError(f"Only {len(times)} steps had all {batch} sequences; {steps} were asked for.")
    return times[:steps]


def _tokens(events: Sequence[Event], sequence: RequestId | None = None) -> int:
    """How many sequences got a token; or whether this one did."""
    return sum(isinstance(event, TokensGenerated) and sequence in (None, event.sequence) for event in events)


def _open(tokens: tuple[int, ...], *, outputs: int, salt: str) -> Open:
    sampling = Sampling(max_tokens=outputs, ignore_eos=True, seed=1)
    segments = (Fill(tokens=tokens), Generate(sampling=sampling, stream=True))
    return Open(sequence=RequestId(new_id("q")), epoch=1, segments=segments, salt=salt)
