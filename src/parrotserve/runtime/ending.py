"""How a service ends: first it takes in nothing more, then it ends who still waits."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from copy import copy

from parrotserve.errors import ServiceUnavailable
from parrotserve.protocol import Submit

_LOOK_SECONDS = 0.05
"""How often it is looked whether anybody still waits."""


class Ending:
    """Whether a service is about to end, or has ended its exchanges, and how many of them are open.

    `awaited` tells of others that wait. Owned by one event loop.
    """

    def __init__(self, awaited: Callable[[], bool]) -> None:
        self._awaited = awaited
        self._watching = 0
        self.draining = False
        """It takes in nothing more."""
        self.ended = False
        """Its exchanges were ended."""
        self.error = ServiceUnavailable("The service is shutting down; try again when it is back.")

    @property
    def waited_for(self) -> bool:
        """Whether anybody waits for what runs."""
        return self._watching > 0 or self._awaited()

    async def drained(self) -> None:
        """Until nobody waits for anything."""
        while True:  # at first too: what was just taken in is about to be waited for
            await asyncio.sleep(_LOOK_SECONDS)
            if not self.waited_for:
                return

    @contextmanager
    def watching(self) -> Generator[None]:
        """While this is open, somebody waits."""
        self._watching += 1
        try:
            yield
        finally:
            self._watching -= 1

    def check_takes(self, body: Submit) -> None:
        """Raises `ServiceUnavailable` for new work; what only asks for something declared before is none."""
        if body.requests or body.calls or body.variables:
            self.check_open()
        self.check_there()

    def check_open(self) -> None:
        """Raises `ServiceUnavailable` where nothing more is taken in."""
        if self.draining:
            raise copy(self.error)

    def check_there(self) -> None:
        """Raises `ServiceUnavailable` where exchanges were ended."""
        if self.ended:
            raise copy(self.error)
