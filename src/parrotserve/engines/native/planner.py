"""Plans the next step: which sequences run, how many tokens of each, and where their KV goes.

This is continuous batching with chunked prefill: a step takes decode rows and parts of prompts, up to a budget of
tokens (`prefill_chunk`) and a number of sequences (`max_running`).

**Order.** Sequences that can finish come before those that read ahead; then objective, precedence (ADR 013) and arrival
decide. Task groups and throughput work that are owed their minimum share come first of all (`minimum_share`).

**Pages.** A sequence may take pages from sequences that rank below it. These compute them again later, unless the cache
still has them (`page_tables`). So the first sequence always makes progress, and a cache with room for one sequence
finishes all of them.

**Time** (ADR 009). While latency-sensitive sequences decode, a step may last as long as their TPOT bound. Their rows
are reserved; other rows and prompts fill the remaining time. Beyond that:

- A latency-sensitive prompt is read whole, however long the step becomes, if the sequences that decode under the bound
  are of its own tenant, nobody streams them, and they are later work or have longer to go than the prompt takes. Read
  in parts, the prompt would take as long, and each would wait for the other (`Urgent.wait_for`).
- A sequence that arrives during a step waits for its end. So while latency-sensitive sequences come and go, prompts of
  throughput work are read in steps that are only as long as is efficient (`_background_tokens`).
- While earlier work decodes, prompts of later work are read in parts that make its steps only a little longer. So the
  first of two jobs ends long before the second, instead of both at the end (`_beside_earlier_work`).
- If more latency-sensitive sequences decode than is efficient, the longest leave the step to the shorter ones
  (`shortest_first`).

**Drafts.** Decoding sequences get the drafts that `speculation` finds worth trying, as far as there are free pages.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from parrotserve.criteria import Objective
from parrotserve.engines.native.cache import PageCache
from parrotserve.engines.native.minimum_share import MinimumShare, MinimumShares
from parrotserve.engines.native.pace import Pace
from parrotserve.engines.native.page_tables import PageTables
from parrotserve.engines.native.plan import Planned, Step, Urgent, fitting_in
from parrotserve.engines.native.sequence import SequenceState
from parrotserve.engines.native.shared_prefixes import SharedPrefixes
from parrotserve.engines.native.shortest_first import held_back
from parrotserve.engines.native.speculation import Drafts, Speculation
from parrotserve.engines.native.timing import StepShape

_REST_PART = 4
"""A step may exceed the prefill chunk by one part in four if that finishes a prompt: a step of its own for the rest
would read all weights for a few rows."""

_READ_BY = 16
"""Tokens. A step that does not finish a prompt reads a multiple of this, or of a page if that is less; and at least so
many, however little room or time there is."""

_RECENT_SECONDS = 3.0
"""Seconds after the last latency-sensitive decode step for which more of them are expected. Short steps cost other work
a twentieth of its time and save arriving sequences a tenth of a second, which does not pay if they are rare."""


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
        """`prefill_chunk`: tokens in a step. `max_running`: sequences in a step. `share`: whether the cache shares
        prefixes, so that waiting for another's prefill pays. Without `pace`, steps may take as long as they like.
        `minimum`: what throughput work and task groups get at least, a tenth each by default. `speculate`: whether
        sequences get drafts."""
        self._cache = cache
        self._pace = pace or Pace(adapt=False)
        self._minimum = minimum or MinimumShares()
        self._read_by = min(cache.page_tokens, _READ_BY)
        self._prefill_chunk = prefill_chunk
        self._max_running = max_running
        self._prefixes = SharedPrefixes(cache, on=share)
        self._tables = PageTables(cache, self._prefixes)
        self._speculation = Speculation(self._pace, on=speculate)
        self._last: list[Planned] = []
        self._settled = False
        """Whether the last plan holds all that can run, each with one token to decode, and nothing has changed."""

    def plan(self, sequences: Iterable[SequenceState], now: float = 0.0) -> list[Planned]:
        """Plan the next step, at the time `now` in seconds. Empty if nothing can run until a command changes something.

        Most steps only decode the sequences of the step before; their plan is the last one, one token further.
        """
        if self._settled and self._tables.extend(self._last):
            return self._with_drafts(self._last, self._speculation.drafts([planned.state for planned in self._last]))
        step = self._begin(sequences, now)
        runnable = [state for state in step.ranked if state.runnable]
        self._hold_back(step, runnable)
        self._limit_time(step, [state for state in runnable[: self._max_running] if state not in step.held_back])
        places = self._max_running
        for state in runnable:
            if not places:
                break
            if state in step.held_back:
                step.promised += 1 + self._tables.missing(state)
            elif not state.dormant and (count := self._count(state, step)):  # dormant: its KV was just reclaimed
                self._note(state, count, step)
            if not state.dormant:  # a sequence with nothing to do after all leaves its place to the next
                places -= 1
        self._last = step.planned
        all_run = len(self._last) == len(runnable)
        self._settled = all_run and not step.short_of_time and all(map(_only_decodes, self._last))
        return self._with_drafts(step.planned, step.drafts)

    def learn(self, step: StepShape, *, decoded: Counter[Objective], seconds: float, now: float) -> None:
        """Learn that a step of this shape ended at `now` after `seconds`; `decoded` counts the sequences that decoded
        in it, by objective."""
        self._minimum.note(now, decoded, seconds=seconds)
        self._pace.learn(step, seconds)
        if 0 < decoded[Objective.LATENCY] < decoded.total() and seconds > self._pace.bound:
            self.unsettle()

    def unsettle(self) -> None:
        """Note that something has changed that may affect the next plan."""
        self._settled = False

    def rewind(self, state: SequenceState, position: int) -> None:
        """Forget what was computed of a sequence from `position` on; see `PageTables.rewind`."""
        self.unsettle()
        self._tables.rewind(state, position)

    def _begin(self, sequences: Iterable[SequenceState], now: float) -> Step:
        """Begin an empty step. Work that is owed its minimum share ranks before everything else."""
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
        return Step(now, self._pace.model.rates(), ranked, owed, waiting_prompts=prompts)

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
        """Choose up to `rows` of `others` that come first in this step for their minimum share, like those in
        `besides`.

        A sequence without pages is chosen only if there are free ones. Otherwise it would take pages from sequences
        that somebody waits for, which would take them back a few tokens later, and both would be computed again and
        again. It may do so only if work of its kind has had nothing for long (`starves`). Until then, later sequences
        that need fewer pages go in its place, but not for ever (`keep_out`).
        """
        idle = (state.pages for state in ranked if not state.can_finish)
        room = self._cache.available() + len(self._cache.only_in(idle)) - sum(map(self._tables.missing, besides))
        starves = share.starves(now)
        owed: list[SequenceState] = []
        keeps_out = False
        for state in others:
            missing = self._tables.missing(state)
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
        """Leave the step to sequences that end soon. The first sequence always continues, and all do if pages are few,
        since the shortest ones may not be those that get pages."""
        if self._pace.knows and len(runnable) <= self._cache.available():
            step.held_back = held_back(runnable[: self._max_running], step.rates) - set(runnable[:1])
            for state in step.held_back:
                state.held_steps += 1

    def _limit_time(self, step: Step, candidates: Sequence[SequenceState]) -> None:
        """Reserve the time that latency-sensitive decoding will take, and note what is left for all others."""
        decoding = [state for state in candidates if state.decodes]
        urgent = [state for state in decoding if state.urgent]
        step.prefill_left = max(self._prefill_chunk - len(decoding), self._read_by)
        step.background_tokens = self._background_tokens(step)
        step.drafts = self._speculation.drafts(candidates)
        if urgent:
            rows = [1 + len(step.drafts.get(state, ())) for state in urgent]
            attended = sum(len(state.known) * count for state, count in zip(urgent, rows, strict=True))
            reserved = StepShape(decode_rows=sum(rows), attended=attended)
            step.seconds_left = self._pace.left(reserved)
            if not (step.waiting_prompts or step.owed) and self._pace.is_to_try(len(urgent)):
                step.seconds_left, step.drafts = 0.0, {}
            step.urgent = Urgent.of(urgent, self._pace.model.seconds(reserved))

    def _background_tokens(self, step: Step) -> int:
        """Prompt tokens of throughput work that the step may read. If a latency-sensitive sequence may arrive
        meanwhile, which would wait for the step's end, only as many as are needed for an efficient step."""
        if not step.waiting_prompts and not self._minimum.has_latency(step.now, within=_RECENT_SECONDS):
            return step.prefill_left
        whole = step.rates.prefilling(step.prefill_left, 0)
        return max(fitting_in(self._pace.efficient_prefill, step.prefill_left, cost=whole), self._read_by)

    def _with_drafts(self, plan: list[Planned], drafts: Drafts) -> list[Planned]:
        """The plan with these drafts added, as far as there are pages for them."""
        if not drafts:
            return plan
        return [
            replace(planned, draft=self._tables.fit_draft(planned.state, drafts[planned.state]))
            if planned.decodes and planned.state in drafts
            else planned
            for planned in plan
        ]

    def _count(self, state: SequenceState, step: Step) -> int:
        """Number of tokens of this sequence that the step runs, for which it has secured pages."""
        joins = not state.pages
        if joins and (step.full or self._prefixes.waits_for_any(state)):
            return 0
        self._prefixes.match(state)
        waits = self._prefixes.waits(state)
        if joins and step.planned and not waits and not self._tables.fits(state, step):
            step.full = waits = True
        count = 0 if waits else self._tables.secure(state, self._wanted(state, step), step)
        if joins and not count and not state.dormant:
            self._tables.rewind(state, 0)  # drop what the cache had: it may be gone by the time there is room
        else:
            state.count_cached()
        return count

    def _note(self, state: SequenceState, count: int, step: Step) -> None:
        step.add(state, count)
        step.promised += 1 + self._tables.missing(state)
        self._prefixes.claim(state)

    def _wanted(self, state: SequenceState, step: Step) -> int:
        """Number of tokens that the sequence would run, within the remaining budget and time, if it gets pages.

        A part of a prompt that the budget cuts ends at a multiple of `_READ_BY`; one that time cuts may end anywhere.
        """
        remaining = len(state.known) - state.computed - self._prefixes.left_to_others(state)
        if remaining == 0:
            state.dormant = True
            return 0
        if remaining == 1:
            return self._in_time(state, 1, step)
        budget, chunk = step.prefill_left, self._prefill_chunk
        if state in step.owed:
            budget = chunk = self._owed_budget(state, step)
        elif step.tokens_left(state.objective) < budget:
            budget = chunk = step.tokens_left(state.objective)
        ends = budget > 0 and remaining <= budget + chunk // _REST_PART
        count = remaining if ends else min(remaining, budget)
        fitting = self._beside_earlier_work(state, self._in_time(state, count, step), step)
        count = min(count, budget)
        if fitting == remaining or fitting < count:
            return fitting
        return max(0, count - (state.computed + count) % self._read_by)

    def _owed_budget(self, state: SequenceState, step: Step) -> int:
        """Prefill tokens for a sequence that comes first for its minimum share. It is owed decode tokens, so its prompt
        gets what latency-sensitive prompts leave, but at least its share and the prefix that it has in common with one
        of them."""
        left = step.prefill_left - sum(len(prompt.known) - prompt.computed for prompt in step.waiting_prompts)
        common = self._prefixes.common(state, step.waiting_prompts) - state.computed
        least = max(common, self._minimum.part_of(step.prefill_left), self._read_by)
        return min(step.prefill_left, max(min(left, step.tokens_left(state.objective)), least))

    def _in_time(self, state: SequenceState, count: int, step: Step) -> int:
        """How many of `count` tokens fit into the time under the bound. The first sequence of a step, sequences that
        are owed it and the first latency-sensitive prompt progress in any case, by a token or by a few tokens of a
        prompt."""
        unbound = state.urgent or step.reads_whole(state)
        fitting = count if unbound else fitting_in(step.seconds_left, count, cost=step.cost(state, count))
        if fitting == count:
            return count
        step.short_of_time = True
        first_prompt = state.objective is Objective.LATENCY and not step.prefilled
        if step.planned and not first_prompt and state not in step.owed:
            return fitting
        return min(count, max(fitting, self._read_by - state.computed % self._read_by))

    def _beside_earlier_work(self, state: SequenceState, count: int, step: Step) -> int:
        """How many of a prompt's next `count` tokens fit beside the decoding of earlier work."""
        if count == 0 or step.first_decoding in (None, state.work):
            return count
        if step.later_prompt_seconds is None:
            step.later_prompt_seconds = self._pace.room(step.decode_seconds)
        return fitting_in(step.later_prompt_seconds, count, cost=step.cost(state, count))


def _only_decodes(planned: Planned) -> bool:
    return planned.decodes and planned.state.output is not None
