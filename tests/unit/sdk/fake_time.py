"""A timer that stands still until told."""

from collections.abc import Callable


class FakeTime:
    """A `Timer` that tests wind on."""

    def __init__(self) -> None:
        self._now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> float:
        return self._now

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        self.timers.append((self._now + seconds, act))

    def advance(self, seconds: float) -> None:
        end = self._now + seconds
        while due := [timer for timer in self.timers if timer[0] <= end]:
            timer = min(due, key=lambda each: each[0])
            self.timers.remove(timer)
            self._now = timer[0]
            timer[1]()
        self._now = end
