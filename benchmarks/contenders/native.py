"""Parrot's own engine, through its public interface: sequences opened on an engine process, and their events."""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from points import OURS

from contenders.base import Contender, Tokens
from contenders.private_engine import COPYING, KEPT
from parrotserve.engines.base import Cancel, Event, Fill, Generate, Open, SequenceEnded, TokensGenerated
from parrotserve.engines.native.engine import NativeEngine
from parrotserve.engines.native.settings import Launch, NativeSettings
from parrotserve.engines.process import ProcessEngine
from parrotserve.errors import EngineFailed
from parrotserve.ids import EngineId, RequestId, new_id
from parrotserve.models.files import ModelFiles
from parrotserve.sampling import Sampling

MOST_OUTPUTS = 400
"""Tokens that a sequence generates at most: as soon as there are steps enough, it is cancelled."""
SETTLING = 2
"""Steps of the whole batch that are not counted."""


class Native(Contender):
    """One engine. Sequences over one prefix share its KV, where the settings let them."""

    family = OURS

    def __init__(self, name: str, files: ModelFiles, settings: NativeSettings) -> None:
        self.name = name
        self._engine = self._make(files, settings)
        self._lists: asyncio.Queue[tuple[float, list[Event]] | EngineFailed] = asyncio.Queue()
        self._reading: asyncio.Task[None] | None = None

    def _make(self, files: ModelFiles, settings: NativeSettings) -> ProcessEngine:
        return NativeEngine(self._id, files.name, files, settings)

    @property
    def _id(self) -> EngineId:
        return EngineId(self.name.replace(" ", "-"))

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

    async def prefill(self, prompt: Tokens) -> float:
        """Seconds from `Open` to the first token's event."""
        opening = _open(prompt, outputs=1, salt="prefill")
        began = time.perf_counter()
        await self._engine.send([opening])
        return next(moment for moment, events in await self._until_ended(1) if _tokens(events)) - began

    async def decode(self, prefix: Tokens, suffixes: list[Tokens], steps: int) -> list[float]:
        """Time between the events of steps in which every sequence got a token."""
        openings = [_open(prefix + suffix, outputs=MOST_OUTPUTS, salt=COPYING) for suffix in suffixes]
        await self._engine.send(openings)
        taken = await self._full_steps(len(suffixes), SETTLING + steps)
        await self._engine.send([Cancel(opening.sequence, 1) for opening in openings])
        await self._until_ended(len(openings))
        return taken[SETTLING:]

    async def _full_steps(self, batch: int, steps: int) -> list[float]:
        """Seconds between consecutive lists with a token of every sequence."""
        taken: list[float] = []
        previous: float | None = None
        while len(taken) < steps:
            moment, events = await self._next()
            count = _tokens(events)
            if count == batch:
                if previous is not None:
                    taken.append(moment - previous)
                previous = moment
            elif count:
                previous = None
            if any(isinstance(event, SequenceEnded) for event in events):
                raise RuntimeError(f"{self.name}: a sequence ended before {steps} steps had all {batch}.")
        return taken

    async def _read(self) -> None:
        try:
            async for events in self._engine.events():
                self._lists.put_nowait((time.perf_counter(), events))
        except EngineFailed as error:
            self._lists.put_nowait(error)

    async def _next(self) -> tuple[float, list[Event]]:
        async with asyncio.timeout(600):
            found = await self._lists.get()
        if isinstance(found, EngineFailed):
            raise found
        return found

    async def _until_ended(self, sequences: int) -> list[tuple[float, list[Event]]]:
        seen: list[tuple[float, list[Event]]] = []
        while sequences:
            seen.append(await self._next())
            sequences -= sum(isinstance(event, SequenceEnded) for event in seen[-1][1])
        return seen


class PrivateNative(Native):
    """Nothing is shared: each sequence has KV of its own for the prefix too, and reads its own.

    The prefix is prefilled once, and its pages are copied for every sequence (see `private_engine`).
    """

    family = "private"

    def __init__(self, name: str, files: ModelFiles, settings: NativeSettings) -> None:
        super().__init__(name, files, settings)
        self._kept: Tokens = ()

    def _make(self, files: ModelFiles, settings: NativeSettings) -> ProcessEngine:
        program = Path(__file__).with_name("private_engine.py")
        launch = Launch(model=files.name, path=str(files.path.absolute()), format=files.format, settings=settings)
        return ProcessEngine(self._id, [sys.executable, str(program)], launch)

    async def decode(self, prefix: Tokens, suffixes: list[Tokens], steps: int) -> list[float]:
        """See `Contender.decode`."""
        if prefix != self._kept:
            await self._engine.send([_open(prefix, outputs=1, salt=KEPT)])
            await self._until_ended(1)
            self._kept = prefix
        return await super().decode(prefix, suffixes, steps)


def _tokens(events: Sequence[Event]) -> int:
    """How many sequences got a token."""
    return sum(isinstance(event, TokensGenerated) for event in events)


def _open(tokens: Tokens, *, outputs: int, salt: str) -> Open:
    sampling = Sampling(max_tokens=outputs, ignore_eos=True, seed=1)
    segments = (Fill(tokens=tokens), Generate(sampling=sampling, stream=True))
    return Open(sequence=RequestId(new_id("q")), epoch=1, segments=segments, salt=salt)
