"""Debouncing: acts once, a moment after the last of a burst of calls."""

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """The passing of time, as far as acting later needs it."""

    def now(self) -> float:
        """Seconds since some moment; on any thread."""
        ...

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Run a function after so many seconds, on the thread that acts; called on any thread."""
        ...


class Debounce:
    """Runs `act` once, `seconds` after the last of several `poke`s. Pokes may come from any thread.

    The timer is used once a burst, and not once a poke, because it wakes the thread that acts.
    """

    def __init__(self, *, seconds: float, act: Callable[[], None], timer: Timer) -> None:
        self._seconds = seconds
        self._act = act
        self._timer = timer
        self._last = 0.0
        self._armed = False

    def poke(self) -> None:
        """Note that something happened. Its effects must be in place already, because `act` may run at once."""
        self._last = self._timer.now()
        if not self._armed:
            self._armed = True
            self._timer.later(self._seconds, self._ring)

    def _ring(self) -> None:
        left = self._last + self._seconds - self._timer.now()
        if left > 0:
            self._timer.later(left, self._ring)
        else:
            # Before acting: a later poke finds it unarmed and arms it, and this `act` covers all earlier ones.
            self._armed = False
            self._act()
