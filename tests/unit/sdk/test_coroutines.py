"""What acts on variables and sessions has a form for coroutines, which does not stop the loop that they run on."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fake_service import FakeService
from fake_time import FakeTime

import Parrot as P
from parrotserve.errors import AlreadyProduced, Cancelled, DeclarationError, EngineFailed, ServiceUnavailable
from parrotserve.ids import SessionId, VariableId
from parrotserve.sdk.connection import use


@P.SemanticFunction
def Write(task: str):
    """{{input:task}}: {{output:text}}"""


class Slow(FakeService):
    """Does nothing that it is asked before it is `let`."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()

    async def _turn(self) -> None:
        assert await asyncio.to_thread(self.let.wait, 30)

    async def set_value(self, session: SessionId, variable: VariableId, value: str) -> None:
        await self._turn()
        await super().set_value(session, variable, value)

    async def retry(self, session: SessionId, variable: VariableId) -> None:
        await self._turn()
        await super().retry(session, variable)

    async def cancel(self, session: SessionId, variable: VariableId) -> None:
        await self._turn()
        await super().cancel(session, variable)

    async def end_session(self, session: SessionId) -> None:
        await self._turn()
        await super().end_session(session)


@pytest.fixture
def slow() -> Iterator[Slow]:
    service = Slow()
    with use(service, timer=FakeTime()):
        yield service
        service.let.set()


async def beside(slow: Slow, act: Any) -> None:
    """Await it; only what still runs on this loop meanwhile lets the service go on."""
    acting = asyncio.ensure_future(act)
    await asyncio.sleep(0)
    assert not acting.done()
    slow.let.set()
    await acting


async def test_a_variable_is_set(slow: Slow):
    task = P.SemanticVariable(name="task")
    waiting = asyncio.create_task(Write(task).aget())
    await asyncio.to_thread(slow.until, lambda: bool(slow.submits))
    await beside(slow, task.aset("late"))
    assert await waiting == "<text>"
    assert slow.log == ["open", "set late"]


async def test_what_cannot_be_set_is_refused(service: FakeService):
    task = P.SemanticVariable()
    with pytest.raises(TypeError, match="None is not a text"):
        await task.aset(None)
    with pytest.raises(AlreadyProduced, match="is produced by a call"):
        await Write("x").aset("y")
    await task.aset("once")
    with pytest.raises(AlreadyProduced, match="has a value"):
        await task.aset("twice")


async def test_what_the_service_could_not_be_told_is_set_again(service: FakeService):
    task = P.SemanticVariable()
    waiting = asyncio.create_task(Write(task).aget())
    await asyncio.to_thread(service.until, lambda: bool(service.submits))
    service.down = ServiceUnavailable("Gone for a moment.")
    with pytest.raises(ServiceUnavailable):
        await task.aset("late")
    service.down = None
    await task.aset("late")
    assert await waiting == "<text>"


async def test_a_failed_variable_is_retried(slow: Slow):
    slow.script["Write"] = EngineFailed("It died.")
    text, other = Write("x"), Write("y")
    await P.agather(text, other, return_exceptions=True)
    slow.script["Write"] = "well"
    await beside(slow, text.aretry())
    assert await text == "well"
    assert not other.failed  # whether it still holds is asked anew


async def test_a_producer_is_cancelled(slow: Slow):
    slow.held.add("Write")
    text = Write("x")
    await beside(slow, text.acancel())
    with pytest.raises(Cancelled, match="Somebody"):
        await text


async def test_only_produced_variables_have_a_producer():
    for act in (P.SemanticVariable.aretry, P.SemanticVariable.acancel):
        with pytest.raises(DeclarationError, match="has no producer"):
            await act(P.SemanticVariable("x"))


async def test_a_session_is_ended(slow: Slow):
    session = P.Session()
    async with session:
        text = Write("x")
        assert await text == "<text>"
        await beside(slow, session.aend())
        assert slow.log == ["open", "end"]
        with pytest.raises(Cancelled, match="has ended"):
            await text.aretry()
