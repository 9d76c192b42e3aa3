"""Minimum shares: task groups and throughput work make slow progress, however much work ranks above them."""

import math
from collections import Counter, deque

from parrotserve.bounds import THROUGHPUT_SHARE
from parrotserve.criteria import Objective


class MinimumShare:
    """The share of one kind of work: counts its decode tokens and all others' over a sliding window, and says when it
    is owed some.

    The window stands still during steps that decode nothing: otherwise, what is owed would be forgotten while a long
    prompt is prefilled for it.
    """

    def __init__(self, share: float = THROUGHPUT_SHARE, *, window: float = 10.0) -> None:
        """`share` of the decode tokens over `window` seconds."""
        self._share = share
        self._window = window
        self._steps: deque[tuple[float, int, int]] = deque()
        """For each step: the time at which it ended, and the decode tokens of this kind and of all others in it."""
        self._got = self._others = 0
        self._nothing_since = math.inf
        """Time since which only others have decoded, without a pause as long as the window; infinite if none."""
        self._still = 0.0
        """Total seconds for which the window stood still; times in this object are `now` minus this."""
        self._kept_out = -1
        self._kept_out_since = math.inf
        """Arrival number (`_kept_out`) of the first of this kind for which there was no room, and since when."""

    def note(self, now: float, *, got: int, others: int, seconds: float = 0.0) -> None:
        """Notes a step that ended `now`, took `seconds`, and decoded `got` tokens of this kind and `others` of all
        others."""
        if not got and not others:
            self._still += seconds
        self._forget(now)  # here, too, since `owed` is not called while all work is of one kind
        if got or others:
            time = now - self._still
            self._steps.append((time, got, others))
            self._got += got
            self._others += others
            self._nothing_since = math.inf if got else min(self._nothing_since, time)

    def owed(self, now: float, rows: int) -> int:
        """Number of the next step's `rows` that go to this kind before all others."""
        self._forget(now)
        behind = self._got < self._share * (self._got + self._others)
        return self.part_of(rows) if behind else 0

    def part_of(self, count: int) -> int:
        """This kind's share of `count`, rounded up."""
        return math.ceil(self._share * count)

    def starves(self, now: float) -> bool:
        """Whether this kind has decoded nothing for a window less its share of it (9 of 10 s by default)."""
        self._forget(now)
        return self._is_long_ago(self._nothing_since, now)

    def keep_out(self, arrival: int, now: float) -> bool:
        """Notes that there is no room for the sequence with this arrival number, the first of this kind without room.
        Returns True once that has been so for a window less its share: then later ones, which need less room, may no
        longer go in its stead."""
        if arrival != self._kept_out:
            self._kept_out, self._kept_out_since = arrival, now - self._still
        return self._is_long_ago(self._kept_out_since, now)

    def let_in(self, arrival: int) -> None:
        """Notes that the sequence with this arrival number has its turn."""
        if arrival == self._kept_out:
            self._kept_out = -1

    def _is_long_ago(self, time: float, now: float) -> bool:
        """Whether only the share is left of a window that began at `time`."""
        return now - self._still - time >= (1 - self._share) * self._window

    def _forget(self, now: float) -> None:
        """Drops steps that are older than the window."""
        while self._steps and self._steps[0][0] <= now - self._still - self._window:
            _, got, others = self._steps.popleft()
            self._got -= got
            self._others -= others
        if not self._steps:
            self._nothing_since = math.inf


class MinimumShares:
    """The shares of task groups and of throughput work. Each has its own share of all tokens: task groups, which rank
    higher, would use up a common one."""

    def __init__(self, share: float = THROUGHPUT_SHARE) -> None:
        """`share` of all decode tokens, for each of the two."""
        self.kinds = {objective: MinimumShare(share) for objective in (Objective.GROUP, Objective.THROUGHPUT)}
        self._share = share
        self._latency_at = -math.inf
        """Time at which latency-sensitive sequences last decoded."""

    def note(self, now: float, decoded: Counter[Objective], *, seconds: float = 0.0) -> None:
        """Notes a step that ended `now`, took `seconds`, and decoded this many tokens of each objective."""
        total = decoded.total()
        for objective, share in self.kinds.items():
            share.note(now, got=decoded[objective], others=total - decoded[objective], seconds=seconds)
        if decoded[Objective.LATENCY]:
            self._latency_at = now

    def part_of(self, count: int) -> int:
        """The share of `count`, rounded up."""
        return math.ceil(self._share * count)

    def has_latency(self, now: float, *, within: float) -> bool:
        """Whether latency-sensitive sequences have decoded in the last `within` seconds."""
        return now - self._latency_at <= within
