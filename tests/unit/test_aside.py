"""Work done aside: owners take turns, one piece of each at a time."""

import threading
from concurrent.futures import Future, wait
from typing import Any

import pytest

from parrotserve.aside import Aside, Work, at_once

SOON = 30.0


class Held:
    """Work that begins, and ends when it is told to."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.may_end.wait(SOON)
        return "done"


def panicking() -> None:
    raise BaseException("as compiled libraries do")


@pytest.mark.parametrize("do", [at_once, Aside("test").do], ids=["at once", "aside"])
def test_work_gives_its_result_or_its_error(do: Any):
    assert do("a", lambda: 7).result(SOON) == 7
    assert isinstance(do("a", panicking).exception(SOON), BaseException)
    assert do("a", lambda: 8).result(SOON) == 8


def test_work_is_not_done_on_the_thread_that_asks_for_it():
    assert Aside("test").do("a", threading.get_ident).result(SOON) != threading.get_ident()


def test_who_takes_long_keeps_nobody_else_waiting():
    aside, first, second = Aside("test"), Held(), Held()
    held = [aside.do("a", first), aside.do("a", second)]
    assert first.begun.wait(SOON)
    assert aside.do("b", lambda: "b").result(SOON) == "b"
    assert not second.begun.is_set()
    first.may_end.set()
    second.may_end.set()
    assert [future.result(SOON) for future in held] == ["done", "done"]


def test_owners_take_turns():
    aside, first, order = Aside("test", threads=1), Held(), list[str]()

    def note(what: str) -> Work:
        return lambda: order.append(what)

    aside.do("a", first)
    assert first.begun.wait(SOON)
    futures: list[Future[Any]] = [
        aside.do(owner, note(owner + number)) for owner, number in ("a1", "a2", "a3", "b1", "b2", "c1")
    ]
    first.may_end.set()
    wait(futures, SOON)
    assert order == ["b1", "c1", "a1", "b2", "a2", "a3"]


def test_what_is_cancelled_before_its_turn_is_left_out():
    aside, first, second = Aside("test", threads=1), Held(), Held()
    running, waiting = aside.do("a", first), aside.do("a", second)
    assert first.begun.wait(SOON)
    assert waiting.cancel()
    first.may_end.set()
    assert running.result(SOON) == "done"
    assert aside.do("a", lambda: "next").result(SOON) == "next"
    assert not second.begun.is_set()


def test_threads_end_with_the_work():
    name = "aside of a test"
    aside = Aside(name)
    for owner in "abc":
        aside.do(owner, lambda: None).result(SOON)
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(SOON)
    assert name not in [thread.name for thread in threading.enumerate()]
