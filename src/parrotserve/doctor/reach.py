"""Checks within a few seconds whether something on the network answers."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TypeVar

import httpx

T = TypeVar("T")

PATIENCE = 3.0
"""Seconds to wait for an answer."""


def answers(url: str) -> str | None:
    """None if a GET of the URL succeeds, redirects followed; else why not."""
    try:
        answer = ask(url, follow=True)
    except ConnectionError as error:
        return str(error)
    return None if answer.is_success else f"it answered {answer.status_code}"


def ask(url: str, *, headers: Mapping[str, str] | None = None, follow: bool = False) -> httpx.Response:
    """The answer to a GET, without its body. Takes `PATIENCE` seconds at most, even if name resolution hangs. Raises
    `ConnectionError`, which says why there is no answer."""

    def get() -> httpx.Response:
        with (
            httpx.Client(timeout=PATIENCE, follow_redirects=follow) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            return answer

    try:
        return patiently(get)
    except Exception as error:  # whatever the cause, it is why there is no answer
        raise ConnectionError(str(error) or type(error).__name__) from error


def patiently(find: Callable[[], T]) -> T:
    """Call `find` in a thread: returns or raises what it does. Raises `TimeoutError` after `PATIENCE` seconds."""
    outcome: Future[T] = Future()

    def settle() -> None:
        try:
            outcome.set_result(find())
        except Exception as error:
            outcome.set_exception(error)

    # A name lookup cannot be interrupted, so a thread that takes too long is abandoned.
    threading.Thread(target=settle, daemon=True).start()
    try:
        return outcome.result(PATIENCE)
    except TimeoutError as error:
        if outcome.done():
            raise
        raise TimeoutError(f"no answer within {PATIENCE:g} seconds") from error
