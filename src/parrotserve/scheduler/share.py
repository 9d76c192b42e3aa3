"""The minimum share of throughput work: what it got of the tokens decoded lately, and whether that is too little."""

from collections import deque

from parrotserve.bounds import THROUGHPUT_SHARE

_WINDOW = 5.0
"""Seconds looked back. Half of those in which the share is to hold, so that there is time to make up for it."""
_BUCKET = 0.5
_TARGET = 1.5 * THROUGHPUT_SHARE


class Share:
    """Decoded tokens of the last seconds, in buckets."""

    def __init__(self) -> None:
        self._buckets: deque[tuple[float, float, float]] = deque()
        """(when it began, tokens of throughput work, all tokens)"""
        self._bulk = 0.0
        self._all = 0.0

    def note(self, now: float, *, bulk: float, total: float) -> None:
        """So many tokens were decoded just now, `bulk` of them for throughput work."""
        self._forget(now)
        if self._buckets and now - self._buckets[-1][0] < _BUCKET:
            began, some, more = self._buckets.pop()
            self._buckets.append((began, some + bulk, more + total))
        else:
            self._buckets.append((now, bulk, total))
        self._bulk += bulk
        self._all += total

    def is_low(self, now: float) -> bool:
        """Whether throughput work, where there is any, is due before all else."""
        self._forget(now)
        return self._all > 0 and self._bulk < _TARGET * self._all

    def _forget(self, now: float) -> None:
        while self._buckets and self._buckets[0][0] <= now - _WINDOW:
            _, bulk, total = self._buckets.popleft()
            self._bulk -= bulk
            self._all -= total
        if not self._buckets:
            self._bulk = self._all = 0.0
