"""What tests of restarts share: small programs, and looks at a service, a stream and the journal."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from runtime_programs import SESSION, Staged, made, request, taken, text

from parrotserve.ids import SessionId, VariableId
from parrotserve.protocol import Submit
from parrotserve.store.journal import Entry

S = SessionId(SESSION)
A, B = VariableId("a"), VariableId("b")
STORY = "Es war einmal ein Känguru 🦘, das „naïve“ Töne sang. 漢字もあるよ!"
SCRIPT = {"tell": STORY, "then sing": "la la la", "two": "one", "fail": "x"}
TELL = request("r", text("tell"), made("a", seed=7, temperature=0.8))
SING = request("r2", text("then sing "), taken("a"), made("b", seed=7))

Begin = Callable[..., Awaitable[Staged]]
"""Starts a service on the test's journal."""


async def declared(staged: Staged, body: Submit) -> None:
    _, events = await staged.service.declare(body)
    await events.aclose()


async def next_of(staged: Staged, events: AsyncGenerator[Any, None]) -> Any:
    """The next event, while the engine ticks."""
    reading = asyncio.ensure_future(anext(events))
    while not reading.done():
        await staged.engine.tick()
        await asyncio.sleep(0)
    return reading.result()


async def beginning_of(staged: Staged, events: AsyncGenerator[Any, None]) -> str:
    """The first 20 characters of a stream, or more."""
    seen = ""
    async with aclosing(events):
        while len(seen) < 20:
            seen += (await next_of(staged, events)).text
    return seen


async def value_of(staged: Staged, variable: VariableId) -> str:
    return (await staged.service.wait(S, variable)).value


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


def entries_of(staged: Staged) -> list[Entry]:
    assert staged.journal is not None
    return [entry for _, entries in staged.journal.sessions() for entry in entries]


def refuses_to_run(prompt: str) -> str:
    """A script for engines that nothing should be sent to."""
    raise AssertionError(prompt)
