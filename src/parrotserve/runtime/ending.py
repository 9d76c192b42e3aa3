"""How a service ends: first it accepts no new work, then it ends the exchanges that still wait."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from copy import copy

from parrotserve.errors import ServiceUnavailable
from parrotserve.protocol import Submit

_LOOK_SECONDS = 0.05
"""Interval, in seconds, between checks whether anybody still waits."""


class Ending:
    """Whether a service is draining, or has ended its exchanges, and how many exchanges are open.

    `awaited` says whether anybody waits other than by an exchange. Owned by one event loop.
    """

    def __init__(self, awaited: Callable[[], bool]) -> None:
        self._awaited = awaited
        self._watching = 0
        self.draining = False
        """Whether no new work is accepted."""
        self.ended = False
        """Whether the exchanges were ended."""
        self.error = ServiceUnavailable("The service is shutting down; try again when it is back.")

    @property
    def waited_for(self) -> bool:
        """Whether anybody waits for a result."""
        return self._watching > 0 or self._awaited()

    async def drained(self) -> None:
        """Wait until nobody waits for a result."""
        while True:  # sleep first, too: work that was just accepted is about to be waited for
            await asyncio.sleep(_LOOK_SECONDS)
            if not self.waited_for:
                return

    @contextmanager
    def watching(self) -> Generator[None]:
        """Count one more exchange that waits, while this is open."""
        self._watching += 1
        try:
            yield
        finally:
            self._watching -= 1

    def check_takes(self, body: Submit) -> None:
        """Raises `ServiceUnavailable` if this cannot be accepted. Batches that only wait for declared variables are no
        new work."""
        if body.requests or body.calls or body.variables:
            self.check_open()
        self.check_there()

    def check_open(self) -> None:
        """Raises `ServiceUnavailable` if no new work is accepted."""
        if self.draining:
            raise copy(self.error)

    def check_there(self) -> None:
        """Raises `ServiceUnavailable` if exchanges were ended."""
        if self.ended:
            raise copy(self.error)
