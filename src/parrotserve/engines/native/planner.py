"""What the next step holds: which sequences run, how many tokens of each, and where their KV goes.

The order is that of importance: sequences that can finish before those that run ahead, then by objective, precedence
and arrival. Whoever comes first takes pages from whoever comes later, so the first one always makes progress, and a
cache with room for one sequence finishes all of them. What is taken is recomputed later, from the cache where it still
is.

While latency-sensitive sequences decode, a step is as long as their TPOT bound lets it be: they come first, and other
rows and prompts fill what is left of the time. A latency-sensitive prompt is not read in small parts for work of its
tenant that nobody reads along, if that is later or takes longer yet: in parts, both would wait for both. Throughput
work that is owed a minimum share comes before everybody.
Whoever comes while a step runs waits for its end. So where some come who are waited for, prompts of others are read in
steps that are just long enough to pay.
While earlier work decodes, later work's prompts are read in parts that make its steps not much longer: of two jobs, the
first ends long before the second, and not both when all is done.
Where more of those that are waited for decode than pays, some leave the step to shorter ones (`width`).
Sequences that decode get the drafts that `speculation` finds worth it, as far as there are free pages.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from parrotserve.criteria import Objective
from parrotserve.engines.native.cache import PageCache
from parrotserve.engines.native.pace import Pace
from parrotserve.engines.native.plan import Planned, Step, Urgent, fitting_in
from parrotserve.engines.native.sequence import SequenceState
from parrotserve.engines.native.share import MinimumShare, MinimumShares
from parrotserve.engines.native.shared_prefixes import SharedPrefixes
from parrotserve.engines.native.speculation import Drafts, Speculation
from parrotserve.engines.native.timing import StepHeld
from parrotserve.engines.native.width import held_back

_SPARE_SECONDS = 1.0
"""How often the cache is reminded of what waits: too few pages are evicted meanwhile to reach those."""

_MOST_SPARED = 64
"""Of how many waiting sequences: the first ones; looking at more would take longer than a step."""

_REST_PART = 4
"""By one part in so many of the prefill chunk a step may be longer where a prompt ends with it: a step for the rest
alone would read all weights for a few rows."""


class Planner:
    """Decides, step by step, within a budget of prefill tokens, a pace and the pages of one cache."""

    def __init__(
        self,
        cache: PageCache,
        *,
        prefill_chunk: int,
        max_running: int,
        share: bool = True,
        pace: Pace | None = None,
        minimum: MinimumShares | None = None,
        speculate: bool = True,
    ) -> None:
        """`share`: whether the cache shares prefixes, so that waiting for another's prefill pays. Without `pace`
        steps may take as long as they like; `minimum` is what throughput work gets at least, by default a tenth.
        `speculate`: whether sequences get drafts."""
        self._cache = cache
        self._pace = pace or Pace(adapt=False)
        self._minimum = minimum or MinimumShares()
        self.page_tokens = cache.page_tokens
        self._prefill_chunk = prefill_chunk
        self._max_running = max_running
        self._prefixes = SharedPrefixes(cache, on=share)
        self._speculation = Speculation(self._pace, on=speculate)
        self._rates = self._pace.model.rates()
        self._spared = -math.inf
        self._last: list[Planned] = []
        self._settled = False
        """Whether the last plan holds all that can run, each with one token to decode, and nothing has changed."""

    def plan(self, sequences: Iterable[SequenceState], now: float = 0.0) -> list[Planned]:
        """The next step, at the time `now` in seconds. Empty: nothing can run until a command changes something."""
        if self._settled and self._go_on():
            return self._with_drafts(self._last, self._speculation.drafts([planned.state for planned in self._last]))
        step = self._begin(sequences, now)
        runnable = [state for state in step.ranked if state.runnable]
        self._hold_back(step, runnable)
        self._limit_time(step, [state for state in runnable[: self._max_running] if state not in step.held])
        places = self._max_running
        for state in runnable:
            if not places:
                break
            if state in step.held:
                step.promised += 1 + self._missing(state)
            elif count := 0 if state.dormant else self._count(state, step):  # in this very step its KV may be reclaimed
                self._note(state, count, step)
            places -= not state.dormant  # who has nothing to do after all leaves its place to the next
        self._last = step.planned
        self._settled = not step.hurried and len(self._last) == len(runnable) and all(map(_only_decodes, self._last))
        return self._with_drafts(step.planned, step.drafts)

    def _begin(self, sequences: Iterable[SequenceState], now: float) -> Step:
        """An empty step. Work that is owed its minimum share ranks before everything else."""
        ranked = sorted(sequences, key=lambda state: state.rank)
        can_finish = [state for state in ranked if state.can_finish]
        others = [state for state in can_finish if state.objective is not Objective.LATENCY]
        owed: list[SequenceState] = []
        if 0 < len(others) < len(can_finish):
            for objective, share in self._minimum.kinds.items():
                kind = [state for state in others if state.objective is objective]
                if kind and (rows := share.owed(now, min(len(can_finish), self._max_running))):
                    owed += self._owed(kind, rows, ranked, share, now, besides=owed)
            ranked = owed + [state for state in ranked if state not in owed]
        self._prefixes.begin(ranked)
        prompts = [state for state in can_finish if state.objective is Objective.LATENCY and not state.decodes]
        return Step(now, ranked, owed, prompts=prompts)

    def _owed(
        self,
        others: Sequence[SequenceState],
        rows: int,
        ranked: Sequence[SequenceState],
        share: MinimumShare,
        now: float,
        *,
        besides: Sequence[SequenceState],
    ) -> list[SequenceState]:
        """The first of `others`, at most so many, that go before everybody for their minimum share, as do those
        `besides` them.

        Who holds nothing does so where there is room. It would take pages from who is waited for, who takes them back
        a few tokens later: both would be computed again and again. So that is for when its kind has long had nothing.
        Later ones that need less go in its stead, but not for ever.
        """
        idle = (state.pages for state in ranked if not state.can_finish)
        room = self._cache.available() + len(self._cache.only_in(idle)) - sum(map(self._missing, besides))
        starves = share.starves(now)
        owed: list[SequenceState] = []
        keeps_out = False
        for state in others:
            missing = self._missing(state)
            if state.pages or missing <= room or starves:
                owed.append(state)
                room -= missing
                share.let_in(state.arrival)
            elif not keeps_out:
                keeps_out = True
                if share.keep_out(state.arrival, now):
                    break
            if len(owed) == rows:
                break
        return owed

    def _hold_back(self, step: Step, runnable: Sequence[SequenceState]) -> None:
        """Leaves the step to those that end soon. The first one always goes on, and all do where pages are few: the
        shortest ones may not be those that get some."""
        if self._pace.knows and len(runnable) <= self._cache.available():
            step.held = held_back(runnable[: self._max_running], self._pace.model.rates()) - set(runnable[:1])
            for state in step.held:
                state.held_steps += 1

    def _limit_time(self, step: Step, candidates: Sequence[SequenceState]) -> None:
        """Reserves the time that latency-sensitive decoding is going to take; what is left is for all others."""
        decoding = [state for state in candidates if state.decodes]
        urgent = [state for state in decoding if state.urgent]
        step.budget = max(self._prefill_chunk - len(decoding), self.page_tokens)
        self._rates = self._pace.model.rates()
        step.patient = self._patient(step)
        step.drafts = self._speculation.drafts(candidates)
        if urgent:
            rows = [1 + len(step.drafts.get(state, ())) for state in urgent]
            attended = sum(len(state.known) * count for state, count in zip(urgent, rows, strict=True))
            reserved = StepHeld(decode_rows=sum(rows), attended=attended)
            step.seconds = self._pace.left(reserved)
            if not (step.prompts or step.owed) and self._pace.is_to_try(len(urgent)):
                step.seconds, step.drafts = 0.0, {}
            step.urgent = Urgent.of(urgent, self._pace.model.seconds(reserved))

    def _patient(self, step: Step) -> int:
        """How many tokens of prompts that nobody waits for the step may read: as many as pay, where somebody may come
        meanwhile who is waited for, and would wait for its end."""
        if not step.prompts and not self._minimum.is_mixed(step.now):
            return step.budget
        pays = fitting_in(self._pace.least_prompt, step.budget, cost=self._rates.prefilling(step.budget, 0))
        return max(pays, self.page_tokens)

    def learn(self, step: StepHeld, *, decoded: Counter[Objective], seconds: float, now: float) -> None:
        """A step that held this, in which so many sequences of each objective decoded, took so long."""
        self._minimum.note(now, decoded, seconds=seconds)
        self._pace.learn(step, seconds)
        if 0 < decoded[Objective.LATENCY] < decoded.total() and seconds > self._pace.bound:
            self.unsettle()

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

    def _with_drafts(self, plan: list[Planned], drafts: Drafts) -> list[Planned]:
        """The plan with these drafts, as far as there are pages for them."""
        if not drafts:
            return plan
        return [
            replace(planned, draft=self._fitting(planned.state, drafts[planned.state]))
            if planned.decodes and planned.state in drafts
            else planned
            for planned in plan
        ]

    def _fitting(self, state: SequenceState, draft: tuple[int, ...]) -> tuple[int, ...]:
        """What there is room for of a draft, without evicting anything."""
        room = len(state.pages) * self.page_tokens - state.computed - 1
        if len(draft) > room and self._cache.stats().free:
            state.pages += self._cache.allocate(1) or []
            room += self.page_tokens
        return draft[:room]

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

    def _count(self, state: SequenceState, step: Step) -> int:
        """How many tokens of this sequence the step runs, with pages for them."""
        joins = not state.pages
        if joins and (step.full or self._prefixes.waits_for_any(state)):
            return 0
        self._prefixes.match(state)
        waits = self._prefixes.waits(state)
        if joins and step.planned and not waits and not self._fits(state, step):
            step.full = waits = True
        count = 0 if waits else self._secure(state, self._wanted(state, step), step)
        if joins and not count and not state.dormant:
            self.rewind(state, 0)  # what the cache had does not count: it may be gone when there is room
        else:
            state.count_cached()
        return count

    def _note(self, state: SequenceState, count: int, step: Step) -> None:
        decodes = len(state.known) - state.computed == 1
        step.planned.append(Planned(state, count, decodes))
        cost = self._cost(state, count)
        if not state.urgent:
            step.seconds -= cost
        if not decodes:
            step.reads = True
            step.budget = max(0, step.budget - count)
            step.patient = max(0, step.patient - count)
            step.room = step.room - cost if step.room is not None else None
        elif not state.urgent and step.first_decodes is None:
            step.first_decodes = state.work
        step.decoding += cost * decodes
        step.promised += 1 + self._missing(state)
        self._prefixes.claim(state)

    def _fits(self, state: SequenceState, step: Step) -> bool:
        """Whether one more sequence has room for its prompt beside what the others are still going to need."""
        lacks = self._missing(state) + step.promised - self._cache.available()
        victims = _victims(state, step.ranked)
        return lacks <= 0 or lacks <= len(self._cache.only_in(victim.pages for victim in victims))

    def _missing(self, state: SequenceState) -> int:
        """Pages that the sequence lacks for what it knows and one token more."""
        return max(0, -(-(len(state.known) + 1) // self.page_tokens) - len(state.pages))

    def _wanted(self, state: SequenceState, step: Step) -> int:
        """How many tokens its sequence would run, for the budget and the time that are left."""
        remaining = len(state.known) - state.computed - self._prefixes.left_to_others(state)
        if remaining == 0:
            state.dormant = True
            return 0
        if remaining == 1:
            return self._in_time(state, 1, step)
        owed = state in step.owed
        budget, chunk = step.budget, self._prefill_chunk
        if owed:
            budget = chunk = self._owed_budget(state, step)
        elif state.objective is not Objective.LATENCY and step.patient < budget:
            budget = chunk = step.patient
        ends = budget > 0 and remaining <= budget + chunk // _REST_PART
        count = remaining if ends else min(remaining, budget)
        fitting = self._in_room(state, self._in_time(state, count, step), step)
        count = min(count, budget)
        if fitting == remaining or fitting < count:
            return fitting
        return max(0, count - (state.computed + count) % self.page_tokens)

    def _owed_budget(self, state: SequenceState, step: Step) -> int:
        """What it is owed is tokens, for which its prompt does not go before those that are waited for, but for what
        it has in common with one of them."""
        left = step.budget - sum(len(prompt.known) - prompt.computed for prompt in step.prompts)
        common = self._prefixes.common(state, step.prompts) - state.computed
        least = max(common, self._minimum.of(step.budget), self.page_tokens)
        return min(step.budget, max(min(left, step.patient), least))

    def _in_time(self, state: SequenceState, count: int, step: Step) -> int:
        """How many of `count` tokens there is time for; a page of a prompt at least, or a token, for whoever comes
        first or is owed it, and for the first latency-sensitive prompt."""
        takes_its_time = state.urgent or self._is_waited_for(state, step)
        fitting = count if takes_its_time else fitting_in(step.seconds, count, cost=self._cost(state, count))
        if fitting == count:
            return count
        step.hurried = True
        least = self.page_tokens - state.computed % self.page_tokens
        waited_for = state.objective is Objective.LATENCY and not step.reads
        goes_on = not step.planned or waited_for or state in step.owed
        return min(count, max(fitting, least)) if goes_on else fitting

    def _is_waited_for(self, state: SequenceState, step: Step) -> bool:
        """Whether those that decode let its prompt be read whole."""
        if step.urgent is None:
            return False
        return step.urgent.wait_for(state, self._cost(state, len(state.known) - state.computed))

    def _in_room(self, state: SequenceState, count: int, step: Step) -> int:
        """How many of a prompt's next `count` tokens there is room for beside the decoding of earlier work."""
        if count == 0 or step.first_decodes in (None, state.work):
            return count
        if step.room is None:
            step.room = self._pace.room(step.decoding)
        return fitting_in(step.room, count, cost=self._cost(state, count))

    def _cost(self, state: SequenceState, count: int) -> float:
        """Seconds of computing that the next `count` tokens of a sequence are going to add to the step."""
        rates = self._rates
        if count == len(state.known) - state.computed == 1:
            return rates.row(len(state.known))
        return rates.prefilling(count, state.computed)

    def _secure(self, state: SequenceState, count: int, step: Step) -> int:
        """Gets pages for the next `count` tokens, from others if need be; for fewer, if there are not as many."""
        if count == 0:
            return 0
        held = len(state.pages)
        needed = -(-(state.computed + count) // self.page_tokens) - held
        if needed > self._cache.stats().free:
            self._spare(step)
        if needed > self._cache.available():
            self._make_room(needed, list(_victims(state, step.ranked)))
        needed = min(needed, self._cache.available())
        state.pages += self._cache.allocate(max(needed, 0)) or []
        return min(count, len(state.pages) * self.page_tokens - state.computed)

    def _make_room(self, needed: int, victims: Sequence[SequenceState]) -> None:
        """Takes the pages of as many of `victims` as it takes, but of none who has only what stays in use anyway."""
        gained = self._cache.only_in(victim.pages for victim in victims)
        for victim in victims:
            if needed <= self._cache.available():
                return
            if not gained.isdisjoint(victim.pages):
                self.reclaim(victim)

    def _spare(self, step: Step) -> None:
        """Pages are about to be evicted: those that waiting sequences begin with are to go last."""
        if step.now < self._spared + _SPARE_SECONDS:
            return
        self._spared = step.now
        waiting = (state for state in step.ranked if not state.pages and not state.paused)
        self._prefixes.spare(islice(waiting, _MOST_SPARED))

    def reclaim(self, victim: SequenceState) -> None:
        """Takes all pages of a sequence. One that runs ahead is not computed again before there is more to do."""
        self.rewind(victim, 0)
        victim.dormant = victim.runs_ahead


def _only_decodes(planned: Planned) -> bool:
    return planned.decodes and planned.state.output is not None


def _victims(state: SequenceState, ranked: Sequence[SequenceState]) -> Iterator[SequenceState]:
    """From whom `state` may take pages: first who cannot go on anyhow, then who is less important, least first."""
    if state.runs_ahead:
        return
    behind = ranked[ranked.index(state) + 1 :]
    yield from (other for other in reversed(ranked) if other.pages and not other.runnable and other is not state)
    yield from (other for other in reversed(behind) if other.pages and other.runnable)
