"""What a sequence need not compute itself: pages that the cache has, and those that a more important one computes."""

from collections.abc import Iterable, Sequence
from itertools import takewhile

from parrotserve.engines.native.cache import PageCache
from parrotserve.engines.native.sequence import SequenceState


class SharedPrefixes:
    """What the sequences of one step share with each other, and with those of all steps before."""

    def __init__(self, cache: PageCache, *, on: bool) -> None:
        """`on`: whether the cache shares prefixes, so that waiting for another's prefill pays."""
        self._cache = cache
        self._on = on
        self._page_tokens = cache.page_tokens
        self._claimed: set[int] = set()
        """Keys of the pages that planned sequences compute, now or in steps to come."""
        self._sequences: Sequence[SequenceState] = ()
        self._ends: set[int] = set()
        """`end_key`s of sequences that run ahead: of those planned so far and, once `_looked_up`, of those that have
        computed all they know."""
        self._looked_up = False

    def begin(self, sequences: Sequence[SequenceState]) -> None:
        """Begins a step for these sequences, with nothing in it yet."""
        self._claimed.clear()
        self._ends.clear()
        self._looked_up = False
        self._sequences = sequences

    def claim(self, state: SequenceState) -> None:
        """The sequence is in the step: it computes what it knows, now or in steps to come."""
        if not self._on:
            return
        pages = range(state.computed // self._page_tokens, len(state.known) // self._page_tokens)
        self._claimed.update(state.page_key(index, self._page_tokens) for index in pages)
        if state.runs_ahead:
            self._ends.add(state.end_key(self._page_tokens))

    def match(self, state: SequenceState) -> None:
        """Takes over what the cache has of the sequence's next pages, a page that it has begun included."""
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
        """Whether a more important sequence computes this one's next page, in this step or a later one. Waiting for it
        pays, for the page is shared then."""
        index = state.computed // self._page_tokens
        if (index + 1) * self._page_tokens > state.matchable or not self._claimed:
            return False
        return state.page_key(index, self._page_tokens) in self._claimed

    def waits_for_any(self, state: SequenceState) -> bool:
        """`waits`, for a sequence that holds nothing: whether any page of what it knows is being computed.

        It would first have to take over the pages before that one. They are in the cache, since whoever computes the
        page holds them, so nothing need be looked up: for many who wait for one long prompt that would be most of the
        work of planning.
        """
        pages = state.matchable // self._page_tokens
        if not self._claimed or not pages:
            return False
        return not self._claimed.isdisjoint(state.keys(self._page_tokens)[:pages])

    def spare(self, sequences: Iterable[SequenceState]) -> None:
        """Marks what the cache has of these sequences as just used, so that it is evicted last. They come most
        important first, and are marked in the opposite order.

        What several begin with is looked up once: for many who wait for one long prompt, that is nearly all of it.
        """
        resident: dict[int, int] = {}
        """Pages of more important sequences, by their keys."""
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
        """How many tokens, in full pages, a sequence has in common with that of the others with which it has most."""
        return max((self._common(state, other) for other in others), default=0) if self._on else 0

    def _common(self, one: SequenceState, other: SequenceState) -> int:
        indexes = range(min(one.matchable, other.matchable) // self._page_tokens)
        same = (one.page_key(index, self._page_tokens) == other.page_key(index, self._page_tokens) for index in indexes)
        return sum(takewhile(bool, same)) * self._page_tokens

    def left_to_others(self, state: SequenceState) -> int:
        """How many tokens at the end of what is known are left to another sequence for now.

        They fill no page, so they cannot be shared yet; both sequences run ahead and know the same. If both go on with
        the same content, one of them fills the page and the other shares it; else each computes its own.
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
