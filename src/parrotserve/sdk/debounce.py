"""Acts a moment after the last of a burst of calls."""

from collections.abc import Callable

CallLater = Callable[[float, Callable[[], None]], object]


class Debounce:
    """Runs `act` once, `seconds` after the last of several `poke`s. Pokes may come from any thread.

    `call_later` runs a function after some seconds, on the thread that acts; it is used once a burst, and not once
    a poke, because it wakes that thread. Both it and the clock are injected.
    """

    def __init__(
        self, *, seconds: float, act: Callable[[], None], call_later: CallLater, clock: Callable[[], float]
    ) -> None:
        self._seconds = seconds
        self._act = act
        self._call_later = call_later
        self._clock = clock
        self._last = 0.0
        self._armed = False

    def poke(self) -> None:
        """Something happened; what it was must be in place already, for `act` may run at once."""
        self._last = self._clock()
        if not self._armed:
            self._armed = True
            self._call_later(self._seconds, self._ring)

    def _ring(self) -> None:
        left = self._last + self._seconds - self._clock()
        if left > 0:
            self._call_later(left, self._ring)
        else:
            # Before acting: a poke from here on finds it unarmed, or else its matter is acted on right now.
            self._armed = False
            self._act()
