"""Variables as they get their values."""

import asyncio

import pytest
from fake_service import FakeService

import Parrot as P
from parrotserve.errors import DeclarationError, EngineFailed, GetTimeout


@P.SemanticFunction
def Write(task: str):
    """{{input:task}}: {{output:text}}"""


@P.SemanticFunction
def Slow(task: str):
    """{{input:task}}: {{output:slow}}"""


def test_what_is_there_comes_first(service: FakeService):
    service.held.add("Slow")
    slow, quick = Slow("x"), Write("x")
    settled = P.as_completed(slow, [quick], perf="throughput")
    assert next(settled) is quick
    service.release("Slow")
    assert [each.get() for each in settled] == ["<slow>"]
    assert service.waits == [["slow", "text"]]
    assert service.submits[0].wait[0].criteria is P.THROUGHPUT


def test_what_failed_comes_too_and_raises_where_it_is_got(service: FakeService):
    service.script["Slow"] = EngineFailed("It died.")
    settled = list(P.as_completed(Write("x"), Slow("x")))
    assert len(settled) == 2
    (failed,) = (each for each in settled if each.failed)
    with pytest.raises(EngineFailed):
        failed.get()


def test_what_is_late_is_named_and_goes_on(service: FakeService):
    service.held.add("Slow")
    slow, quick = Slow("x"), Write("x")
    quick.get()
    settled = P.as_completed(slow, quick, timeout=0.01)
    assert next(settled) is quick
    with pytest.raises(GetTimeout, match="slow PRODUCING"):
        next(settled)
    service.release("Slow")
    assert slow.get() == "<slow>"


def test_mistakes_are_told_at_the_call(service: FakeService):
    with pytest.raises(TypeError, match=r"as_completed\(\) takes semantic variables .*, not int"):
        P.as_completed(3)  # pyright: ignore[reportArgumentType]
    for wrong in ({"perf": "fast"}, {"timeout": "1"}):
        with pytest.raises(DeclarationError):
            P.as_completed(Write("x"), **wrong)  # pyright: ignore[reportArgumentType]
    assert list(P.as_completed()) == []


async def test_asyncio_has_its_own(service: FakeService):
    assert sorted([await each for each in asyncio.as_completed([Write("x"), Slow("y")])]) == ["<slow>", "<text>"]
