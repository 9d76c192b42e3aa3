"""Waiting for what nobody has set: more often than not, somebody forgot to."""

import asyncio
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_service import FakeService
from fake_time import FakeTime

import Parrot as P
from parrotserve.errors import GetTimeout
from parrotserve.sdk import waiting


@P.SemanticFunction
def Translate(language: str):
    """{{input:language}}: {{output:text}}"""


@pytest.fixture
def language() -> P.SemanticVariable:
    return P.SemanticVariable(name="language")


@pytest.fixture
def heard(language: P.SemanticVariable, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """The warnings, each with its file. Whoever hears one sets the variable."""
    told: list[tuple[str, str]] = []

    def show(message: Warning | str, category: type[Warning], filename: str, *_: Any) -> None:
        told.append((str(message), filename))
        threading.Thread(target=language.set, args=("French",)).start()

    monkeypatch.setattr(waiting, "UNSET_SECONDS", 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", show)
        yield told


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """Time that stands still, for waits that must not be told of later."""
    clock = FakeTime()
    monkeypatch.setattr(waiting, "_timer", clock)
    return clock


WAITS: dict[str, Callable[[P.SemanticVariable], Any]] = {
    "get": lambda variable: variable.get(),
    "aget": lambda variable: asyncio.run(awaited(variable)),
    "stream": lambda variable: "".join(variable.stream()),
    "astream": lambda variable: asyncio.run(streamed(variable)),
    "gather": lambda variable: P.gather(variable)[0],
    "agather": lambda variable: asyncio.run(gathered(variable)),
}


async def awaited(variable: P.SemanticVariable) -> str:
    return await variable


async def streamed(variable: P.SemanticVariable) -> str:
    return "".join([piece async for piece in variable.astream()])


async def gathered(variable: P.SemanticVariable) -> str:
    return (await P.agather(variable))[0]


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_a_long_wait_for_what_nobody_has_set_is_told_at_the_users_line(
    wait: Callable[[P.SemanticVariable], Any], service: FakeService, language: P.SemanticVariable, heard
):
    assert wait(Translate(Translate(language))) == "<text>"
    ((message, file),) = heard
    assert "text PRODUCING> is still not ready after" in message
    assert "It waits for 'language', which no call produces: call set() on it." in message
    assert file == __file__


def test_so_is_one_for_the_variable_itself(language: P.SemanticVariable, heard):
    assert language.get() == "French"
    assert "language EMPTY> is still not ready after 0 seconds. No call produces it" in heard[0][0]


def test_nothing_is_told_of_waits_for_what_is_being_produced(service: FakeService, language, heard, clock: FakeTime):
    service.held.add("Translate")
    text = Translate(language)
    language.set("German")
    with pytest.raises(GetTimeout):
        text.get(timeout=0.01)
    assert clock.timers == []


async def test_nothing_is_told_of_waits_that_have_ended(language: P.SemanticVariable, heard, clock: FakeTime):
    with pytest.raises(GetTimeout):
        language.get(timeout=0)
    with pytest.raises(GetTimeout):
        P.gather(language, timeout=0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(language.astream()), 0.01)
    assert len(clock.timers) == 3
    clock.advance(60)
    assert heard == []


def test_nothing_is_told_where_it_was_set_meanwhile(service: FakeService, language, heard, clock: FakeTime):
    service.held.add("Translate")
    text = Translate(language)
    waiter = threading.Thread(target=text.get)
    waiter.start()
    service.until(lambda: bool(clock.timers and service.submits))
    language.set("German")
    clock.advance(60)
    assert heard == []
    service.release("Translate")
    waiter.join()
