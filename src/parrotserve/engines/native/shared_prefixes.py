"""What a sequence need not compute itself: pages that the cache has, and those that a more important one computes."""

from collections.abc import Iterable, Sequence
from itertools import takewhile

from parrotserve.engines.native.cache import PageCache
from parrotserve.engines.native.sequence import SequenceState


class SharedPrefixes:
    """Between the sequences of one step, and with those of all steps before."""

    def __init__(self, cache: PageCache, *, on: bool) -> None:
        """`on`: whether the cache shares prefixes, so that waiting for another's prefill pays."""
        self._cache = cache
        self._on = on
        self._page_tokens = cache.page_tokens
        self._claimed: set[int] = set()
        """Keys of the pages that planned sequences compute, now or in steps to come."""
        self._sequences: Sequence[SequenceState] = ()
        self._ends: set[int] = set()
        """Keys of all that sequences that run ahead know and compute: now, in steps to come and, once that has been
        looked up, before."""
        self._looked_up = False

    def begin(self, sequences: Sequence[SequenceState]) -> None:
        """A step for these, with nothing in it yet."""
        self._claimed.clear()
        self._ends.clear()
        self._looked_up = False
        self._sequences = sequences

    def claim(self, state: SequenceState) -> None:
        """A sequence has its place in the step: it computes what it knows."""
        if not self._on:
            return
        pages = range(state.computed // self._page_tokens, len(state.known) // self._page_tokens)
        self._claimed.update(state.page_key(index, self._page_tokens) for index in pages)
        if state.runs_ahead:
            self._ends.add(state.end_key(self._page_tokens))

    def match(self, state: SequenceState) -> None:
        """Takes over the pages that the cache has of what comes next, and of the page that is under way."""
        full, inside = divmod(state.computed, self._page_tokens)
        if len(state.pages) != full + bool(inside) or state.matchable < (full + 1) * self._page_tokens:
            return
        found = self._cache.acquire(state.salt, state.known[: state.matchable], held=state.pages[:full])
        if not found:
            return
        self._cache.free(state.pages[full:])
        state.pages[full:] = found
        state.table_version += 1
        state.computed = len(state.pages) * self._page_tokens

    def waits(self, state: SequenceState) -> bool:
        """Whether a more important sequence computes the same page in this step or a later one: then it is shared."""
        index = state.computed // self._page_tokens
        if (index + 1) * self._page_tokens > state.matchable or not self._claimed:
            return False
        return state.page_key(index, self._page_tokens) in self._claimed

    def waits_for_any(self, state: SequenceState) -> bool:
        """The same of one that holds nothing, and would first have to take over the pages before that one.

        Whoever computes it holds those, so they need not be looked up: for many who wait for a long prompt, that is
        most of the work of planning.
        """
        pages = state.matchable // self._page_tokens
        if not self._claimed or not pages:
            return False
        return not self._claimed.isdisjoint(state.keys(self._page_tokens)[:pages])

    def spare(self, sequences: Iterable[SequenceState]) -> None:
        """What the cache has of these sequences, the most important first, counts as used just now, theirs last.

        What several begin with is looked up once: for many who wait for one long prompt, that is nearly all there is.
        """
        resident: dict[int, int] = {}
        """Pages by their keys, those of more important sequences."""
        found: list[list[int]] = []
        for state in sequences:
            keys = state.keys(self._page_tokens)
            common = sum(1 for _ in takewhile(resident.__contains__, keys))
            held = [resident[key] for key in keys[:common]]
            pages = self._cache.acquire(state.salt, state.known, held=held)
            resident.update(zip(keys[common:], pages, strict=False))
            found.append(pages)
        for pages in reversed(found):
            self._cache.free(pages)

    def common(self, state: SequenceState, others: Sequence[SequenceState]) -> int:
        """How many tokens, in full pages, a sequence may share with one of these at most."""
        return max((self._common(state, other) for other in others), default=0) if self._on else 0

    def _common(self, one: SequenceState, other: SequenceState) -> int:
        indexes = range(min(one.matchable, other.matchable) // self._page_tokens)
        same = (one.page_key(index, self._page_tokens) == other.page_key(index, self._page_tokens) for index in indexes)
        return sum(takewhile(bool, same)) * self._page_tokens

    def left_to_others(self, state: SequenceState) -> int:
        """How many tokens at the end of what is known need not be computed yet, for another sequence has: they fill no
        page, and both run ahead.

        Once they do, with what comes then, the page is shared; where the two go on differently, each computes its own.
        """
        tokens = len(state.known) % self._page_tokens
        if not (self._on and state.runs_ahead and tokens) or len(state.known) - state.computed < tokens:
            return 0
        if not self._looked_up:
            self._ends.update(other.end_key(self._page_tokens) for other in self._sequences if _waits_for_more(other))
            self._looked_up = True
        return tokens if state.end_key(self._page_tokens) in self._ends else 0


def _waits_for_more(state: SequenceState) -> bool:
    return state.runs_ahead and state.computed == len(state.known)
