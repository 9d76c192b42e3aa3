"""Engines of the real model that die or hang in the middle of a request: what a client reads shows none of it."""

import asyncio
import os
import signal

import pytest
from real_service import RealService, program, real_service

from parrotserve.protocol import Delta, Value

pytestmark = [pytest.mark.model, pytest.mark.long, pytest.mark.timeout(600)]

PROMPTS = ("Tell a short story about a cat 🐈.", "Now the same in German.")
SAMPLING = {"temperature": 0.8, "seed": 5, "max_tokens": 40, "ignore_eos": True}


async def read(real: RealService, session: str, *, harm_after: int | None = None, harm: int = signal.SIGKILL):
    """All that a client streams, by variable; after so many characters the engine is sent the signal."""
    streamed: dict[str, str] = {}
    values: dict[str, str] = {}
    harmed = harm_after is None
    async for event in real.service.submit(program(session, *PROMPTS, **SAMPLING)):
        if isinstance(event, Delta):
            name = event.variable.removeprefix(session)
            assert event.offset == len(streamed.get(name, ""))
            streamed[name] = streamed.get(name, "") + event.text
            # Not counted in deltas: a busy machine puts several tokens into one.
            if not harmed and sum(map(len, streamed.values())) >= (harm_after or 0):
                harmed = True
                os.kill(real.engines[-1].pid, harm)
        elif isinstance(event, Value):
            values[event.variable.removeprefix(session)] = event.value
    assert streamed == values
    return values


async def replaced(real: RealService, engines: int) -> None:
    """Wait for the engine that takes a dead one's place: a busy machine may be done before it notices the death."""
    async with asyncio.timeout(60):
        while len(real.engines) < engines:
            await asyncio.sleep(0.01)
    assert len(real.engines) == engines


async def test_a_stream_goes_on_across_killed_and_stopped_engines():
    async with real_service() as real:
        uninterrupted = await read(real, "whole")
        assert set(uninterrupted) == {".0", ".1"}
        characters = sum(map(len, uninterrupted.values()))
        for started, percent in enumerate((0, 10, 35, 60, 80), start=2):
            found = await read(real, f"killed-{percent}", harm_after=characters * percent // 100)
            assert found == uninterrupted
            await replaced(real, started)
        assert await read(real, "stopped", harm_after=characters // 6, harm=signal.SIGSTOP) == uninterrupted
        await replaced(real, 7)
