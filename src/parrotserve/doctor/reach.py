"""Whether something on the network answers, said within seconds."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TypeVar

import httpx

T = TypeVar("T")

PATIENCE = 3.0
"""Seconds to wait for an answer."""


class Unanswered(Exception):
    """Why there was no answer."""


def answers(url: str) -> str | None:
    """None if a GET of it, or of where it leads, succeeds, else why not."""
    try:
        answer = ask(url, follow=True)
    except Unanswered as error:
        return str(error)
    return None if answer.is_success else f"it answered {answer.status_code}"


def ask(url: str, *, headers: Mapping[str, str] | None = None, follow: bool = False) -> httpx.Response:
    """The head of the answer to a GET. Takes `PATIENCE` seconds at most, whatever names resolve to. Raises
    `Unanswered`."""

    def get() -> httpx.Response:
        with (
            httpx.Client(timeout=PATIENCE, follow_redirects=follow) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            return answer

    try:
        return patiently(get)
    except Unanswered:
        raise
    except Exception as error:  # told to whoever waits, like every other reason
        raise Unanswered(str(error) or type(error).__name__) from error


def patiently(find: Callable[[], T]) -> T:
    """What it returns or raises within `PATIENCE` seconds. Raises `Unanswered` after them."""
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
        raise Unanswered(f"no answer within {PATIENCE:g} seconds") from error
