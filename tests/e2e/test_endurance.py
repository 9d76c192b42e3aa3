"""Many sessions, half of them dropped in mid-decode: what they took is given back."""

import asyncio
import gc
from contextlib import aclosing

import psutil
import pytest
from real_service import RealService, program, real_service

from parrotserve.ids import SessionId
from parrotserve.protocol import Delta, Failure

pytestmark = [pytest.mark.model, pytest.mark.long, pytest.mark.timeout(1800)]

SESSIONS = 1000
WARM = 100
AT_ONCE = 8


async def run_session(real: RealService, number: int) -> None:
    session = f"s{number}"
    dropped = number % 2 == 1
    body = program(session, f"Number {number}: say something.", max_tokens=16, ignore_eos=True)
    async with aclosing(real.service.submit(body)) as answer:
        async for event in answer:
            if dropped and isinstance(event, Delta):
                break
            assert not isinstance(event, Failure)
    real.service.end_session(SessionId(session))


class Footprint:
    """What the service and its engine hold."""

    def __init__(self, real: RealService) -> None:
        gc.collect()
        engine = psutil.Process(real.engines[-1].pid)
        self.tasks = len(asyncio.all_tasks())
        self.handles = psutil.Process().num_fds()
        self.bytes = psutil.Process().memory_info().rss
        self.engine_bytes = engine.memory_info().rss


async def test_a_thousand_sessions_leave_nothing_behind():
    async with real_service(kv_memory=64 << 20) as real:
        started = Footprint(real)
        for first in range(0, SESSIONS, AT_ONCE):
            await asyncio.gather(*(run_session(real, number) for number in range(first, first + AT_ONCE)))
            if first <= WARM < first + AT_ONCE:
                warm = Footprint(real)
        # Cancels are on their way; two heartbeats later the engine has told what it holds.
        await asyncio.sleep(3)
        (engine,) = real.service.engines()
        ended = Footprint(real)
        assert (engine.running, engine.waiting) == (0, 0)
        description = real.engines[-1].describe()
        assert engine.free_tokens + engine.cached_tokens == description.cache_tokens
        assert ended.tasks == started.tasks
        assert ended.handles == started.handles
        print(
            f"service {warm.bytes:,} -> {ended.bytes:,} bytes, engine {warm.engine_bytes:,} -> {ended.engine_bytes:,}"
        )
        assert ended.bytes <= 1.05 * warm.bytes
        assert ended.engine_bytes <= 1.05 * warm.engine_bytes
