"""Whether something on the network answers, said within seconds."""

import threading

import httpx

PATIENCE = 3.0
"""Seconds to wait for an answer."""


def answers(url: str) -> str | None:
    """None if a GET of it succeeds, else why not. Takes `PATIENCE` seconds at most, whatever names resolve to."""
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            outcome.append(_ask(url))
        except Exception as error:  # told to whoever waits, like every other reason
            outcome.append(str(error) or type(error).__name__)

    # Looking up a name cannot be interrupted; a thread that outlives its use is left behind.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return outcome[0] if outcome else f"no answer within {PATIENCE:g} seconds"


def _ask(url: str) -> str | None:
    with httpx.Client(timeout=PATIENCE, follow_redirects=True) as client, client.stream("GET", url) as answer:
        return None if answer.is_success else f"it answered {answer.status_code}"
