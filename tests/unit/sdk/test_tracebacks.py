"""Tracebacks lead through the user's code, and little of Parrot's: no more than says which wait it was."""

import asyncio
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_service import FakeService
from fake_time import FakeTime
from scripted_wire import URL, Wired

import Parrot as P
import parrotserve
from parrotserve.errors import EngineFailed, GetTimeout, NativeCallFailed, ServiceUnavailable
from parrotserve.sdk.connection import use
from parrotserve.sdk.http import HttpTransport

OURS = str(Path(parrotserve.__file__).parent)


@P.SemanticFunction
def Write(task: str):
    """{{input:task}}: {{output:text}}"""


def behind(error: BaseException) -> list[str]:
    """The functions that an error left, without those of this file and of the event loop that it runs on."""
    frames = traceback.extract_tb(error.__traceback__)
    return [each.name for each in frames if each.filename.startswith(OURS) or "concurrent" in each.filename]


def is_first(error: BaseException) -> bool:
    """Whether no other error is shown before it."""
    return error.__cause__ is None and (error.__context__ is None or error.__suppress_context__)


def a_wait(variable: Any, **options: Any) -> list[Callable[[], Any]]:
    return [
        lambda: variable.get(**options),
        lambda: asyncio.run(variable.aget(**options)),
        lambda: list(variable.stream(**options)),
        lambda: P.gather(variable, **options),
        lambda: asyncio.run(P.agather(variable, **options)),
        lambda: list(P.as_completed(variable, **options)),
    ]


def test_a_wait_that_took_too_long(service: FakeService):
    service.held.add("Write")
    for wait in a_wait(Write("x"), timeout=0):
        with pytest.raises(GetTimeout) as failed:
            wait()
        assert is_first(failed.value)
        assert len(behind(failed.value)) <= 2


def test_what_failed(service: FakeService):
    service.script["Write"] = EngineFailed("It died.")
    for wait in a_wait(Write("x"))[:-1]:
        with pytest.raises(EngineFailed) as failed:
            wait()
        assert len(behind(failed.value)) <= 2


def test_arguments_that_do_not_fit():
    with pytest.raises(TypeError, match="missing a required argument") as failed:
        Write()
    assert is_first(failed.value)


def test_a_native_function_is_shown_from_its_first_line(service: FakeService):
    @P.NativeFunction
    async def divide(x: str):
        await asyncio.sleep(0)
        return 1 // int(x)

    with pytest.raises(NativeCallFailed) as failed:
        divide("0").get()
    cause = failed.value.__cause__
    assert isinstance(cause, ZeroDivisionError)
    assert [each.name for each in traceback.extract_tb(cause.__traceback__)] == ["divide"]


def test_a_service_that_is_not_there_is_told_without_the_insides_of_its_client():
    wire = httpx.MockTransport(Wired(httpx.ConnectError("refused")))
    with use(HttpTransport(URL, wire=wire), timer=FakeTime()):
        with pytest.raises(ServiceUnavailable, match="No service can be reached") as failed:
            Write("x").get()
        cause = failed.value.__cause__
        assert isinstance(cause, httpx.ConnectError)
        assert cause.__traceback__ is None
