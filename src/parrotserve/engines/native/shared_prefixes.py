"""Pages that a sequence need not compute itself: those in the cache, and those that a more important one computes."""

from collections.abc import Iterable, Sequence
from itertools import takewhile

from parrotserve.engines.native.cache import PageCache
from parrotserve.engines.native.sequence import SequenceState


class SharedPrefixes:
    """The prefixes that the sequences of one step share with each other, and with those of earlier steps."""

    def __init__(self, cache: PageCache, *, on: bool) -> None:
        """`on`: whether the cache shares prefixes, so that waiting for another sequence's prefill pays."""
        self._cache = cache
        self._on = on
        self._page_tokens = cache.page_tokens
        self._claimed: set[int] = set()
        """Keys of the pages that planned sequences compute, in this step or later ones."""
        self._sequences: Sequence[SequenceState] = ()
        self._ends: set[int] = set()
        """`end_key`s of sequences that run ahead: of those planned so far and, once `_looked_up`, of those whose known
        tokens are all computed."""
        self._looked_up = False

    def begin(self, sequences: Sequence[SequenceState]) -> None:
        """Begins an empty step for these sequences."""
        self._claimed.clear()
        self._ends.clear()
        self._looked_up = False
        self._sequences = sequences

    def claim(self, state: SequenceState) -> None:
        """Notes that the sequence is in the step: it computes its known tokens, in this step or later ones."""
        if not self._on:
            return
        pages = range(state.computed // self._page_tokens, len(state.known) // self._page_tokens)
        self._claimed.update(state.page_key(index, self._page_tokens) for index in pages)
        if state.runs_ahead:
            self._ends.add(state.end_key(self._page_tokens))

    def match(self, state: SequenceState) -> None:
        """Takes the sequence's next pages from the cache, as far as it has them, including a page that the sequence has
        begun to compute."""
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
        """Whether a more important sequence computes this one's next page, in this step or a later one. Then waiting
        for it pays, as the page will be shared."""
        index = state.computed // self._page_tokens
        if (index + 1) * self._page_tokens > state.matchable or not self._claimed:
            return False
        return state.page_key(index, self._page_tokens) in self._claimed

    def waits_for_any(self, state: SequenceState) -> bool:
        """As `waits`, for a sequence without pages: whether any page of its known tokens is being computed.

        It would first have to take the pages before that one. They are in the cache, as the sequence that computes the
        page holds them, so they need not be looked up: for many sequences that wait for one long prompt, looking them
        up would be most of the work of planning.
        """
        pages = state.matchable // self._page_tokens
        if not self._claimed or not pages:
            return False
        return not self._claimed.isdisjoint(state.keys(self._page_tokens)[:pages])

    def spare(self, sequences: Iterable[SequenceState]) -> None:
        """Marks the cached pages of these sequences as just used, so that they are evicted last. The sequences come
        most important first, and are marked in the opposite order.

        Common beginnings are looked up once: for many sequences that wait for one long prompt, that is nearly all.
        """
        resident: dict[int, int] = {}
        """Cached pages of more important sequences, by key."""
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
        """The most tokens, in full pages, that a sequence has in common with any of the others."""
        return max((self._common(state, other) for other in others), default=0) if self._on else 0

    def _common(self, one: SequenceState, other: SequenceState) -> int:
        indexes = range(min(one.matchable, other.matchable) // self._page_tokens)
        same = (one.page_key(index, self._page_tokens) == other.page_key(index, self._page_tokens) for index in indexes)
        return sum(takewhile(bool, same)) * self._page_tokens

    def left_to_others(self, state: SequenceState) -> int:
        """Number of tokens at the end of the known ones that are left to another sequence for now.

        They do not fill a page, so they cannot be shared yet; both sequences run ahead and know the same tokens. If
        both continue with the same content, one of them fills the page and the other shares it; else each computes its
        own.
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
