"""The page tables of sequences: which sequence gets pages for its next tokens, and from which ones they are taken.

Pages come from the free ones, then from cached prefixes that nobody holds, then from sequences that rank lower. Such a
victim loses all its pages. When its turn comes it recomputes its tokens, except those whose KV is still in the cache:
preemption by recomputation, as vLLM calls it (Kwon et al., "Efficient Memory Management for Large Language Model
Serving with PagedAttention", 2023).
"""

import math
from collections.abc import Iterator, Sequence
from itertools import islice

from parrotserve.engines.native.cache import PageCache
from parrotserve.engines.native.plan import Planned, Step
from parrotserve.engines.native.sequence import SequenceState
from parrotserve.engines.native.shared_prefixes import SharedPrefixes

_SPARE_SECONDS = 1.0
"""The prefixes of waiting sequences are marked as just used at most once in this many seconds. In that time too few
pages are evicted to reach them."""

_MOST_SPARED = 64
"""Most waiting sequences whose prefixes are marked, the first ones. Looking at more would take longer than a step."""


class PageTables:
    """Extends and cuts the page tables of sequences over one cache."""

    def __init__(self, cache: PageCache, prefixes: SharedPrefixes) -> None:
        self._cache = cache
        self._prefixes = prefixes
        self._page_tokens = cache.page_tokens
        self._spared = -math.inf
        """When the prefixes of waiting sequences were last marked, in seconds of `now`."""

    def missing(self, state: SequenceState) -> int:
        """Number of pages that the sequence lacks for its known tokens and one token more."""
        return max(0, -(-(len(state.known) + 1) // self._page_tokens) - len(state.pages))

    def fits(self, state: SequenceState, step: Step) -> bool:
        """Whether there is room for one more sequence's prompt beside what planned sequences will still need."""
        lacks = self.missing(state) + step.promised - self._cache.available()
        victims = _victims(state, step.ranked)
        return lacks <= 0 or lacks <= len(self._cache.only_in(victim.pages for victim in victims))

    def secure(self, state: SequenceState, count: int, step: Step) -> int:
        """Gets pages for the next `count` tokens, from other sequences if need be. Returns how many of these tokens
        have pages then."""
        if count == 0:
            return 0
        held = len(state.pages)
        needed = -(-(state.computed + count) // self._page_tokens) - held
        if needed > self._cache.stats().free:
            self._spare(step)
        if needed > self._cache.available():
            self._make_room(needed, list(_victims(state, step.ranked)))
        needed = min(needed, self._cache.available())
        state.pages += self._cache.allocate(max(needed, 0)) or []
        return min(count, len(state.pages) * self._page_tokens - state.computed)

    def extend(self, plan: Sequence[Planned]) -> bool:
        """Gets a page for each planned sequence that needs one for one token more, but takes none from other sequences.
        False if there are not enough."""
        for planned in plan:
            state = planned.state
            if state.computed == len(state.pages) * self._page_tokens:
                pages = self._cache.allocate(1)
                if pages is None:
                    return False
                state.pages += pages
        return True

    def fit_draft(self, state: SequenceState, draft: tuple[int, ...]) -> tuple[int, ...]:
        """The part of a draft for which there is room without evicting anything."""
        room = len(state.pages) * self._page_tokens - state.computed - 1
        if len(draft) > room and self._cache.stats().free:
            state.pages += self._cache.allocate(1) or []
            room += self._page_tokens
        return draft[:room]

    def rewind(self, state: SequenceState, position: int) -> None:
        """Forgets the KV from `position` on, and all of the page that it lies in if others may share that."""
        state.table_version += 1
        full, inside = divmod(position, self._page_tokens)
        if inside and full < state.computed // self._page_tokens:
            position, inside = position - inside, 0
        keep = full + bool(inside)
        self._cache.free(state.pages[keep:])
        del state.pages[keep:]
        state.computed = min(state.computed, position)

    def _make_room(self, needed: int, victims: Sequence[SequenceState]) -> None:
        """Takes all pages of one victim after the other until `needed` pages are available, skipping victims whose
        pages would all stay in use by others."""
        gained = self._cache.only_in(victim.pages for victim in victims)
        for victim in victims:
            if needed <= self._cache.available():
                return
            if not gained.isdisjoint(victim.pages):
                self._reclaim(victim)

    def _spare(self, step: Step) -> None:
        """Before pages are evicted: marks the cached prefixes of waiting sequences, so that they are evicted last."""
        if step.now < self._spared + _SPARE_SECONDS:
            return
        self._spared = step.now
        waiting = (state for state in step.ranked if not state.pages and not state.paused)
        self._prefixes.spare(islice(waiting, _MOST_SPARED))

    def _reclaim(self, victim: SequenceState) -> None:
        """Takes all pages of a sequence, which will recompute them. A sequence that runs ahead does so only once it has
        more to do."""
        self.rewind(victim, 0)
        victim.dormant = victim.runs_ahead


def _victims(state: SequenceState, ranked: Sequence[SequenceState]) -> Iterator[SequenceState]:
    """The sequences from which `state` may take pages: first those that cannot run anyway, then those that rank below
    it; the lowest rank first."""
    if state.runs_ahead:
        return
    behind = ranked[ranked.index(state) + 1 :]
    yield from (other for other in reversed(ranked) if other.pages and not other.runnable and other is not state)
    yield from (other for other in reversed(behind) if other.pages and other.runnable)
