"""Waits of threads that nothing interrupts, as on Windows: made of short ones, between which Ctrl-C is heard."""

import concurrent.futures
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

import pytest

from parrotserve.sdk import loop
from parrotserve.sdk.loop import each_when_done, wait_for


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """How long each wait was to be."""
    waits: list[float | None] = []
    plain = concurrent.futures.wait

    def wait(futures: Iterable[Future[Any]], timeout: float | None = None, *rest: Any) -> Any:
        waits.append(timeout)
        return plain(futures, timeout, *rest)

    monkeypatch.setattr(loop, "_SLICE", 0.001)
    monkeypatch.setattr(concurrent.futures, "wait", wait)
    return waits


@pytest.fixture
def done() -> Future[str]:
    future: Future[str] = Future()
    future.set_result("x")
    return future


def test_with_a_timeout_too(longest: list[float | None], done: Future[str]):
    assert wait_for(done, 5) == wait_for(done) == "x"
    with pytest.raises(TimeoutError):
        wait_for(Future[str](), 0.005)
    assert longest
    assert all(each is not None and each <= 0.001 for each in longest)


def test_a_failure_is_raised(longest: list[float | None]):
    future: Future[str] = Future()
    future.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        wait_for(future, 5)


def test_several(longest: list[float | None], done: Future[str]):
    never: Future[str] = Future()
    ripe = each_when_done([never, done], 0.005)
    assert next(ripe) is done
    with pytest.raises(TimeoutError):
        next(ripe)
    assert list(each_when_done([done])) == [done]
    assert all(each is not None and each <= 0.001 for each in longest)
