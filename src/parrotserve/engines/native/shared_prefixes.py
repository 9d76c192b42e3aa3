"""What a sequence need not compute itself: pages that the cache has, and those that a more important one computes."""

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

    def begin(self) -> None:
        """A step with nothing in it yet."""
        self._claimed.clear()

    def claim(self, state: SequenceState) -> None:
        """A sequence has its place in the step: it computes what it knows."""
        if self._on:
            pages = range(state.computed // self._page_tokens, len(state.known) // self._page_tokens)
            self._claimed.update(state.page_key(index, self._page_tokens) for index in pages)

    def match(self, state: SequenceState) -> None:
        """Takes over the pages that the cache has of what comes next."""
        aligned = state.computed == len(state.pages) * self._page_tokens
        if not aligned or state.matchable - state.computed < self._page_tokens:
            return
        found = self._cache.acquire(state.salt, state.known[: state.matchable], held=state.pages)
        if not found:
            return
        state.pages += found
        state.moves += 1
        state.computed = len(state.pages) * self._page_tokens
        if state.computed > state.seen_through:
            state.cached_tokens += state.computed - state.seen_through
            state.seen_through = state.computed

    def waits(self, state: SequenceState) -> bool:
        """Whether a more important sequence computes the same page in this step or a later one: then it is shared."""
        index, inside = divmod(state.computed, self._page_tokens)
        if inside or (index + 1) * self._page_tokens > state.matchable or not self._claimed:
            return False
        return state.page_key(index, self._page_tokens) in self._claimed
