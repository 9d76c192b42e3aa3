"""The minimum share of a kind of work: its part of the tokens decoded lately, and whether that is too small."""

from collections import deque

from parrotserve.bounds import THROUGHPUT_SHARE

SHARE_SECONDS = 5.0
"""Length of the window in seconds. The share has to hold over twice as long, which leaves time to make up for it."""
_BUCKET = 0.5
_TARGET = 1.5 * THROUGHPUT_SHARE


class Share:
    """Decoded tokens of the last seconds, in buckets."""

    def __init__(self) -> None:
        self._buckets: deque[tuple[float, float, float]] = deque()
        """(start time, tokens of this kind, all tokens)"""
        self._got = 0.0
        self._all = 0.0

    def note(self, now: float, *, got: float, total: float) -> None:
        """Note that `total` tokens were decoded just now, `got` of them for this kind of work."""
        self._forget(now)
        if self._buckets and now - self._buckets[-1][0] < _BUCKET:
            began, some, more = self._buckets.pop()
            self._buckets.append((began, some + got, more + total))
        else:
            self._buckets.append((now, got, total))
        self._got += got
        self._all += total

    def is_low(self, now: float) -> bool:
        """Whether this kind of work, if there is any, is due before others."""
        self._forget(now)
        return self._all > 0 and self._got < _TARGET * self._all

    def _forget(self, now: float) -> None:
        while self._buckets and self._buckets[0][0] <= now - SHARE_SECONDS:
            _, got, total = self._buckets.popleft()
            self._got -= got
            self._all -= total
        if not self._buckets:
            self._got = self._all = 0.0
