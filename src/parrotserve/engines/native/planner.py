"""What the next step holds: which sequences run, how many tokens of each, and where their KV goes.

The order is that of importance: sequences that can finish before those that run ahead, then by objective, then by
arrival. Whoever comes first takes pages from whoever comes later, so the first one always makes progress, and a cache
with room for one sequence finishes all of them. What is taken is recomputed later, from the cache where it still is.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from parrotserve.engines.native.cache import PageCache
from parrotserve.engines.native.sequence import SequenceState


@dataclass(frozen=True, slots=True)
class Planned:
    """The next `count` tokens of a sequence; its pages have room for them."""

    state: SequenceState
    count: int
    decodes: bool
    """Whether this is the one token that it lacks, and not a part of its prompt."""


@dataclass(slots=True)
class _Step:
    """The plan under construction."""

    budget: int
    """Prefill tokens that are left."""
    planned: list[Planned] = field(default_factory=list[Planned])
    claimed: set[int] = field(default_factory=set[int])
    """Keys of the pages that planned sequences compute, now or in steps to come."""
    promised: int = 0
    """Pages that planned sequences are still going to need."""
    full: bool = False
    """No sequence that holds nothing yet may join any more: one before it did not fit."""


class Planner:
    """Decides, step by step, within a budget of prefill tokens and the pages of one cache."""

    def __init__(self, cache: PageCache, *, prefill_chunk: int, max_running: int, share: bool = True) -> None:
        """`share`: whether the cache shares prefixes, so that waiting for another's prefill pays."""
        self._cache = cache
        self.page_tokens = cache.page_tokens
        self._prefill_chunk = prefill_chunk
        self._max_running = max_running
        self._share = share
        self._last: list[Planned] = []
        self._settled = False
        """Whether the last plan holds all that can run, each with one token to decode, and nothing has changed."""

    def plan(self, sequences: Iterable[SequenceState]) -> list[Planned]:
        """The next step. Empty: nothing can run until a command changes something."""
        if self._settled and self._go_on():
            return self._last
        ranked = sorted(sequences, key=lambda state: state.rank)
        runnable = [state for state in ranked if state.runnable]
        candidates = runnable[: self._max_running]
        decoding = sum(len(state.known) - state.computed == 1 for state in candidates)
        step = _Step(budget=max(self._prefill_chunk - decoding, self.page_tokens))
        for state in candidates:
            count = self._count(state, step, ranked)
            if count:
                self._note(state, count, step)
        self._last = step.planned
        self._settled = len(self._last) == len(runnable) and all(
            planned.decodes and planned.state.output is not None for planned in self._last
        )
        return step.planned

    def unsettle(self) -> None:
        """Something has changed that may concern the next plan."""
        self._settled = False

    def _go_on(self) -> bool:
        """Gets the last plan's sequences pages for one token more; False if there are not enough free ones."""
        for planned in self._last:
            state = planned.state
            if state.computed == len(state.pages) * self.page_tokens:
                pages = self._cache.allocate(1)
                if pages is None:
                    return False
                state.pages += pages
        return True

    def rewind(self, state: SequenceState, position: int) -> None:
        """Forgets the KV from `position` on; somewhat more, if that lies in a page that others may share."""
        self.unsettle()
        state.moves += 1
        full, inside = divmod(position, self.page_tokens)
        if inside and full < state.computed // self.page_tokens:
            position, inside = position - inside, 0
        keep = full + bool(inside)
        self._cache.free(state.pages[keep:])
        del state.pages[keep:]
        state.computed = min(state.computed, position)

    def _count(self, state: SequenceState, step: _Step, ranked: Sequence[SequenceState]) -> int:
        """How many tokens of this sequence the step runs, with pages for them."""
        joins = not state.pages
        if joins and step.full:
            return 0
        self._match(state)
        waits = self._next_page_is_claimed(state, step)
        if joins and step.planned and not waits and not self._fits(state, step, ranked):
            step.full = waits = True
        count = 0 if waits else self._secure(state, self._wanted(state, step.budget), ranked)
        if joins and not count:
            self.rewind(state, 0)
        return count

    def _note(self, state: SequenceState, count: int, step: _Step) -> None:
        decodes = len(state.known) - state.computed == 1
        step.planned.append(Planned(state, count, decodes))
        if not decodes:
            step.budget -= count
        step.promised += 1 + self._missing(state)
        if self._share:
            pages = range(state.computed // self.page_tokens, len(state.known) // self.page_tokens)
            step.claimed.update(state.page_key(index, self.page_tokens) for index in pages)

    def _match(self, state: SequenceState) -> None:
        """Takes over the pages that the cache has of what comes next."""
        aligned = state.computed == len(state.pages) * self.page_tokens
        if not aligned or state.matchable - state.computed < self.page_tokens:
            return
        found = self._cache.acquire(state.salt, state.known[: state.matchable], held=state.pages)
        if not found:
            return
        state.pages += found
        state.moves += 1
        state.computed = len(state.pages) * self.page_tokens
        if state.computed > state.seen_through:
            state.cached_tokens += state.computed - state.seen_through
            state.seen_through = state.computed

    def _next_page_is_claimed(self, state: SequenceState, step: _Step) -> bool:
        """Whether a more important sequence computes the same page in this step or a later one: then it is shared."""
        index, inside = divmod(state.computed, self.page_tokens)
        if inside or (index + 1) * self.page_tokens > state.matchable or not step.claimed:
            return False
        return state.page_key(index, self.page_tokens) in step.claimed

    def _fits(self, state: SequenceState, step: _Step, ranked: Sequence[SequenceState]) -> bool:
        """Whether one more sequence has room for its prompt beside what the others are still going to need."""
        reach = self._cache.available() + sum(len(victim.pages) for victim in _victims(state, ranked))
        return self._missing(state) + step.promised <= reach

    def _missing(self, state: SequenceState) -> int:
        """Pages that the sequence lacks for what it knows and one token more."""
        return max(0, -(-(len(state.known) + 1) // self.page_tokens) - len(state.pages))

    def _wanted(self, state: SequenceState, budget: int) -> int:
        remaining = len(state.known) - state.computed
        if remaining == 1:
            return 1
        end = state.computed + min(remaining, budget)
        if end < len(state.known):
            end -= end % self.page_tokens
        return max(0, end - state.computed)

    def _secure(self, state: SequenceState, count: int, ranked: Sequence[SequenceState]) -> int:
        """Gets pages for the next `count` tokens, from others if need be; for fewer, if there are not as many."""
        if count == 0:
            return 0
        held = len(state.pages)
        needed = -(-(state.computed + count) // self.page_tokens) - held
        victims = _victims(state, ranked)
        while needed > self._cache.available():
            victim = next(victims, None)
            if victim is None:
                break
            self.reclaim(victim)
        needed = min(needed, self._cache.available())
        state.pages += self._cache.allocate(max(needed, 0)) or []
        return min(count, len(state.pages) * self.page_tokens - state.computed)

    def reclaim(self, victim: SequenceState) -> None:
        """Takes all pages of a sequence. One that runs ahead is not computed again before there is more to do."""
        self.rewind(victim, 0)
        victim.dormant = victim.runs_ahead


def _victims(state: SequenceState, ranked: Sequence[SequenceState]) -> Iterator[SequenceState]:
    """From whom `state` may take pages: first who cannot go on anyhow, then who is less important, least first."""
    if state.runs_ahead:
        return
    holders = [other for other in reversed(ranked) if other.pages and other is not state]
    yield from (other for other in holders if not other.runnable)
    yield from (other for other in holders if other.runnable and other.rank > state.rank)
