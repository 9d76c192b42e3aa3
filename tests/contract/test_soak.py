"""Sixty-four sequences at once for a long time, in a cache too small for them: flat memory, and no page is lost.

SOAK_SECONDS says how long; `make test-long` takes a minute.
"""

import os
import random
import time
from collections.abc import Iterator

import psutil
import pytest

from parrotserve.criteria import Objective
from parrotserve.engines.base import (
    Cancel,
    Command,
    EndStatus,
    Event,
    Extend,
    Fill,
    Generate,
    Heartbeat,
    Open,
    Pause,
    Resume,
    SequenceEnded,
    TokensGenerated,
    Update,
)
from parrotserve.engines.native.engine import NativeEngine
from parrotserve.engines.native.settings import NativeSettings
from parrotserve.ids import EngineId, RequestId
from parrotserve.models.registry import resolve
from parrotserve.sampling import Sampling

SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))
AT_ONCE = 64
_MIB = 1 << 20

pytestmark = [pytest.mark.model, pytest.mark.long, pytest.mark.timeout(int(SECONDS) + 900)]


class Crowd:
    """Sequences of every kind, and what is done to them; whoever ends is followed by another."""

    def __init__(self, seed: int) -> None:
        self.open: set[RequestId] = set()
        self.ended = dict.fromkeys(EndStatus, 0)
        self._random = random.Random(seed)
        self._prefixes = [self._tokens(400) for _ in range(4)]
        self._count = 0

    def fill_up(self) -> Iterator[Command]:
        """Until there are enough."""
        while len(self.open) < AT_ONCE:
            yield from self._new()

    def hear(self, events: list[Event]) -> Iterator[Command]:
        """What becomes of the sequences, and what is done about it."""
        for event in events:
            if isinstance(event, SequenceEnded):
                self.open.remove(event.sequence)
                self.ended[event.status] += 1
            elif isinstance(event, TokensGenerated) and self._random.random() < 0.01:
                yield from self._disturb(event.sequence)

    def _new(self) -> Iterator[Command]:
        self._count += 1
        name, choose = RequestId(f"sequence {self._count}"), self._random
        self.open.add(name)
        sampling = Sampling(
            max_tokens=choose.randint(1, 120),
            ignore_eos=True,
            temperature=choose.choice([0.0, 0.8]),
            seed=self._count,
            stop=choose.choice([(), ("\n\n",)]),
        )
        late = choose.random() < 0.2
        output = Generate(sampling=sampling, stream=choose.random() < 0.7)
        question = self._tokens(choose.randint(1, 60))
        segments = (Fill(tokens=choose.choice(self._prefixes)), Fill(tokens=None if late else question), output, output)
        objective = choose.choice(list(Objective))
        yield Open(sequence=name, epoch=1, segments=segments, salt="", objective=objective)
        if late:
            yield Extend(sequence=name, epoch=1, segment=1, tokens=question[:1], last=False)
            yield Extend(sequence=name, epoch=1, segment=1, tokens=question)

    def _disturb(self, name: RequestId) -> Iterator[Command]:
        kind = self._random.randrange(3)
        if kind == 0:
            yield Cancel(name, 1)
        elif kind == 1:
            yield Update(sequence=name, epoch=1, objective=self._random.choice(list(Objective)))
        else:
            yield Pause(name, 1)
            yield Resume(name, 1)

    def _tokens(self, count: int) -> tuple[int, ...]:
        return tuple(self._random.choices(range(100, 40_000), k=count))


async def test_many_sequences_for_a_long_time_lose_no_page_and_leak_no_memory():
    settings = NativeSettings(kv_bytes=192 * _MIB, check=True)
    engine = NativeEngine(EngineId("soak"), "default", resolve("default"), settings)
    description = await engine.start()
    assert engine.pid is not None
    process, crowd = psutil.Process(engine.pid), Crowd(seed=1)
    await engine.send(list(crowd.fill_up()))
    began, heartbeat, memory = time.monotonic(), Heartbeat(), list[int]()
    async for events in engine.events():
        elapsed = time.monotonic() - began
        for event in events:
            heartbeat = event if isinstance(event, Heartbeat) else heartbeat
        commands = list(crowd.hear([event for event in events if not isinstance(event, Heartbeat)]))
        if elapsed < SECONDS:
            commands += crowd.fill_up()
        if commands:
            await engine.send(commands)
        if len(memory) <= 10 * elapsed / SECONDS < 11:
            memory.append(process.memory_info().rss)
        if not crowd.open and heartbeat.used_pages == 0 == heartbeat.running + heartbeat.waiting:
            break
    await engine.close()
    print(f"{crowd.ended} in {SECONDS:g} s; memory in MiB: {[each // _MIB for each in memory]}")
    assert crowd.ended[EndStatus.FAILED] == 0
    assert crowd.ended[EndStatus.DONE] > SECONDS / 2
    assert crowd.ended[EndStatus.CANCELLED] > 0
    assert (heartbeat.free_pages + heartbeat.cached_pages) * description.page_tokens == description.cache_tokens
    assert memory[-1] <= memory[len(memory) // 2] + 16 * _MIB  # by the middle all pages have been used once
