"""Minimum shares: task groups and throughput work go on, slowly, however much comes before them."""

import math
from collections import Counter, deque

from parrotserve.bounds import THROUGHPUT_SHARE
from parrotserve.criteria import Objective


class MinimumShare:
    """The share of one kind of work: counts its decode tokens and all others' over a sliding window, and says when it
    is owed some.

    While steps decode nothing the window stands still: else what is owed would be forgotten while a long prompt is read
    for it.
    """

    def __init__(self, share: float = THROUGHPUT_SHARE, *, window: float = 10.0) -> None:
        """`share` of the decode tokens over `window` seconds."""
        self._share = share
        self._window = window
        self._steps: deque[tuple[float, int, int]] = deque()
        """When each step ended, and how many tokens this kind and all others got in it."""
        self._got = self._others = 0
        self._nothing_since = math.inf
        """Since when only others have decoded, with no rest as long as the window."""
        self._still = 0.0
        """How long the window has stood still: times here are seconds of `now` less these."""
        self._kept_out = -1
        self._kept_out_since = math.inf
        """Arrival number of the first of this kind for which there was no room, and since when that is so."""

    def note(self, now: float, *, got: int, others: int, seconds: float = 0.0) -> None:
        """A step that ended `now` and took so many `seconds` decoded tokens of this kind (`got`) and of all
        `others`."""
        if not got and not others:
            self._still += seconds
        self._forget(now)  # here, too: nobody asks while all work is of one kind
        if got or others:
            time = now - self._still
            self._steps.append((time, got, others))
            self._got += got
            self._others += others
            self._nothing_since = math.inf if got else min(self._nothing_since, time)

    def owed(self, now: float, rows: int) -> int:
        """How many of the next step's `rows` are this kind's before anybody else's."""
        self._forget(now)
        behind = self._got < self._share * (self._got + self._others)
        return self.part_of(rows) if behind else 0

    def part_of(self, count: int) -> int:
        """This kind's share of `count`, rounded up."""
        return math.ceil(self._share * count)

    def starves(self, now: float) -> bool:
        """Whether this kind has decoded nothing for all of a window but its share of it (nine of ten seconds)."""
        self._forget(now)
        return self._is_long_ago(self._nothing_since, now)

    def keep_out(self, arrival: int, now: float) -> bool:
        """There is no room for the sequence with this arrival number, the first of this kind for which there is none.
        True once that has been so for all of a window but its share: then later ones, which need less, are not to go in
        its stead any more."""
        if arrival != self._kept_out:
            self._kept_out, self._kept_out_since = arrival, now - self._still
        return self._is_long_ago(self._kept_out_since, now)

    def let_in(self, arrival: int) -> None:
        """The sequence with this arrival number has its turn."""
        if arrival == self._kept_out:
            self._kept_out = -1

    def _is_long_ago(self, time: float, now: float) -> bool:
        """Whether of a window that began then only the share is left."""
        return now - self._still - time >= (1 - self._share) * self._window

    def _forget(self, now: float) -> None:
        """What is older than the window."""
        while self._steps and self._steps[0][0] <= now - self._still - self._window:
            _, got, others = self._steps.popleft()
            self._got -= got
            self._others -= others
        if not self._steps:
            self._nothing_since = math.inf


class MinimumShares:
    """The share of task groups and that of throughput work. Each is of all tokens, for with one share for both the task
    groups, which come first, would take it."""

    def __init__(self, share: float = THROUGHPUT_SHARE) -> None:
        """`share` of the decode tokens, for each of the two."""
        self.kinds = {objective: MinimumShare(share) for objective in (Objective.GROUP, Objective.THROUGHPUT)}
        self._share = share
        self._latency_at = -math.inf
        """When latency-sensitive sequences last decoded."""

    def note(self, now: float, decoded: Counter[Objective], *, seconds: float = 0.0) -> None:
        """A step that ended `now` and took so many `seconds` decoded so many tokens of each objective."""
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
