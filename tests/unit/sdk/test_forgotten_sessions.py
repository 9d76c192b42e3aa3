"""Sessions that the program has forgotten are ended, whatever became of their native calls."""

import contextlib
import contextvars
import gc
from collections.abc import Callable

import pytest
from fake_service import FakeService

import Parrot as P
from parrotserve.errors import InvalidGraph, NativeCallFailed
from parrotserve.sdk.session import current_session


@P.SemanticFunction
def Write(task: str):
    """{{input:task}}: {{output:text}}"""


@P.NativeFunction
def Upper(text: str) -> str:
    return text.upper()


@P.NativeFunction
def Break(text: str) -> str:
    raise ValueError(text)


@P.NativeFunction
def BreakWithin(text: str) -> str:
    return Break(text).get()


def read_twice(text: P.SemanticVariable) -> None:
    """To retry what failed is no reason to keep it for ever either."""
    with contextlib.suppress(NativeCallFailed):
        text.get()
    text.retry()
    text.get()


@pytest.mark.parametrize(
    "program",
    [
        lambda: Upper(Write("x")).get(),
        lambda: Break("x").get(),
        lambda: BreakWithin("x").get(),
        lambda: Write(Break("x")).get(),
        lambda: read_twice(Break("x")),
        lambda: (Upper(P.SemanticVariable(name="unset")), current_session().sync()),
    ],
    ids=["done", "failed", "failed within", "failed upstream", "retried", "never offered"],
)
def test_a_session_with_native_calls_is_ended_when_the_program_forgets_it(
    service: FakeService, program: Callable[[], object]
):
    def run() -> None:
        with contextlib.suppress(NativeCallFailed):
            program()

    contextvars.Context().run(run)

    def ended() -> bool:
        gc.collect()  # again, as the thread that ran a function may not have left it yet
        return "end" in service.log

    service.until(ended)


def test_a_native_call_that_was_refused_is_not_waited_for(service: FakeService):
    service.refused["Upper"] = InvalidGraph("Not that.")
    with pytest.raises(InvalidGraph):
        Upper("x").get()
    assert Write("y").get() == "<text>"
    assert "calls" not in service.log
