"""Whether something on the network answers, said within seconds."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TypeVar

import httpx

T = TypeVar("T")

PATIENCE = 3.0
"""Seconds to wait for an answer."""


def answers(url: str) -> str | None:
    """None if a GET of it, or of where it leads, succeeds, else why not."""
    try:
        answer = ask(url, follow=True)
    except ConnectionError as error:
        return str(error)
    return None if answer.is_success else f"it answered {answer.status_code}"


def ask(url: str, *, headers: Mapping[str, str] | None = None, follow: bool = False) -> httpx.Response:
    """The head of the answer to a GET. Takes `PATIENCE` seconds at most, whatever names resolve to. Raises
    `ConnectionError`, which says why there is none."""

    def get() -> httpx.Response:
        with (
            httpx.Client(timeout=PATIENCE, follow_redirects=follow) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            return answer

    try:
        return patiently(get)
    except Exception as error:  # told to whoever waits, like every other reason
        raise ConnectionError(str(error) or type(error).__name__) from error


def patiently(find: Callable[[], T]) -> T:
    """What it returns or raises within `PATIENCE` seconds. Raises `TimeoutError` after them."""
    outcome: Future[T] = Future()

    def settle() -> None:
        try:
            outcome.set_result(find())
        except Exception as error:
            outcome.set_exception(error)

    # Looking up a name cannot be interrupted; a thread that outlives its use is left behind.
    threading.Thread(target=settle, daemon=True).start()
    try:
        return outcome.result(PATIENCE)
    except TimeoutError as error:
        if outcome.done():
            raise
        raise TimeoutError(f"no answer within {PATIENCE:g} seconds") from error
