"""A thousand sequences, half of them dropped in the middle, leave nothing behind."""

import asyncio
from pathlib import Path

import psutil
import pytest
from engine_driver import Driver, generate
from engines_here import StartNative

from parrotserve.engines.fake_tokenizer import FakeTokenizer
from parrotserve.engines.native.settings import BackendName


async def some_sequences(driver: Driver, count: int, first: int) -> None:
    for start in range(first, first + count, 50):
        opened = [
            await driver.open(driver.fill(f"prompt {n} " * 8), generate(30, ignore_eos=True, stream=True))
            for n in range(start, start + 50)
        ]
        for sequence in opened[::2]:
            await driver.told(sequence, 3)
            await driver.cancel(sequence)
        for sequence in opened:
            await driver.ended(sequence)
        driver.events.clear()


@pytest.mark.long
async def test_a_thousand_sequences_leave_nothing_behind(start_native: StartNative, backend: BackendName):
    driver = Driver(await start_native(backend=backend), FakeTokenizer())
    process = psutil.Process(driver.engine.pid)  # type: ignore[attr-defined]
    await some_sequences(driver, 300, 0)  # until then the allocator's pools and the engine's buffers still grow
    before = process.memory_info().rss
    handles, tasks = process.num_fds() + len(list(Path("/proc/self/fd").iterdir())), len(asyncio.all_tasks())
    await some_sequences(driver, 1000, 300)
    heartbeat = await driver.next_heartbeat()
    assert (heartbeat.running, heartbeat.waiting, heartbeat.used_pages) == (0, 0, 0)
    assert process.memory_info().rss <= before * 1.05
    assert process.num_fds() + len(list(Path("/proc/self/fd").iterdir())) == handles
    assert len(asyncio.all_tasks()) == tasks
    await driver.close()
