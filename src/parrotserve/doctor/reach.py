"""Whether something on the network answers, said within seconds."""

import threading
from collections.abc import Mapping

import httpx

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
    outcome: list[httpx.Response | Exception] = []

    def get() -> None:
        try:
            with (
                httpx.Client(timeout=PATIENCE, follow_redirects=follow) as client,
                client.stream("GET", url, headers=headers) as answer,
            ):
                outcome.append(answer)
        except Exception as error:  # told to whoever waits, like every other reason
            outcome.append(error)

    # Looking up a name cannot be interrupted; a thread that outlives its use is left behind.
    asking = threading.Thread(target=get, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    if not outcome:
        raise Unanswered(f"no answer within {PATIENCE:g} seconds")
    if isinstance(outcome[0], Exception):
        raise Unanswered(str(outcome[0]) or type(outcome[0]).__name__)
    return outcome[0]
