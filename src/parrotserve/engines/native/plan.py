"""A step's plan under construction: its contents so far, and the tokens, time and pages that are left."""

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from parrotserve.criteria import Objective
from parrotserve.engines.native.sequence import SequenceState, Turn
from parrotserve.engines.native.speculation import Drafts
from parrotserve.step_cost import Rates

_GROUP_TIMES = 2
"""With prompts of task groups, a step may hold this many times the prompt tokens that it may hold with throughput
work's: somebody waits for the group, too, and small steps cost it time."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The next `count` tokens of a sequence, for which it has pages."""

    state: SequenceState
    count: int
    decodes: bool
    """Whether this is the only token that is not computed yet, rather than a part of a prompt."""
    draft: tuple[int, ...] = ()
    """Tokens that may come after it, computed in the same step; there are pages for them, too."""


@dataclass(frozen=True, slots=True)
class Urgent:
    """The sequences that decode under the TPOT bound in a step, taken together."""

    salts: frozenset[str]
    """The salts of their tenants."""
    first: Turn
    """The earliest turn among them."""
    streamed: bool
    """Whether any of them is streamed."""
    seconds: float
    """Longest time that any of them may still decode."""
    stages: int
    """The fewest stages of work that follow after any of them, up to the result that somebody waits for."""

    @classmethod
    def of(cls, states: Sequence[SequenceState], step_seconds: float) -> "Urgent":
        """Summarises these sequences (at least one), if each of their steps takes `step_seconds`."""
        return cls(
            salts=frozenset(state.salt for state in states),
            first=min(state.turn for state in states),
            streamed=any(state.is_streamed for state in states),
            seconds=step_seconds * max(state.output.left if state.output else 0 for state in states),
            stages=min(state.precedence.stages for state in states),
        )

    def wait_for(self, state: SequenceState, seconds: float) -> bool:
        """Whether this sequence's prompt, which takes `seconds`, may be prefilled whole in their step, however long
        that makes the step.

        It may not if their work came first and all of them may end sooner than the prefill. Otherwise prefilling in
        parts beside them gains nothing: it takes as long, and each delays the other. Nor may it pass earlier work if
        stages follow after it, and no fewer than after them: so that, of two chains, the first ends long before the
        second, rather than both at the very end.
        """
        is_waited_for = state.objective is Objective.LATENCY and not self.streamed
        stages = state.precedence.stages
        passes = seconds <= self.seconds and (stages == 0 or stages < self.stages)
        comes_first = passes or state.turn <= self.first
        return is_waited_for and self.salts == frozenset({state.salt}) and comes_first


@dataclass(slots=True)
class Step:
    """The plan under construction. All seconds are predictions, of computing unless stated otherwise."""

    now: float
    rates: Rates
    """The costs of a step and its contents, as measured so far."""
    ranked: Sequence[SequenceState]
    """All sequences, the most important first."""
    owed: Sequence[SequenceState]
    """The sequences that the minimum share puts first; they are planned whatever time is left."""
    waiting_prompts: Sequence[SequenceState] = ()
    """Latency-sensitive sequences whose prompts are still to be prefilled."""
    urgent: Urgent | None = None
    """The sequences under the TPOT bound, if there are any."""
    held_back: Set[SequenceState] = frozenset()
    """Sequences that decode, but leave this step to shorter ones."""
    drafts: Drafts = field(default_factory=Drafts)
    """Drafts for sequences that decode, if they are planned."""

    prefill_left: int = 0
    """Number of prompt tokens that may still be added to the step."""
    prefilled: int = 0
    """Number of prompt tokens in the step."""
    background_tokens: int = 0
    """Most prompt tokens that the step may hold if some of them are throughput work's."""
    seconds_left: float = math.inf
    """Time that the TPOT bound leaves to sequences that are not under it."""
    later_prompt_seconds: float | None = None
    """Time left for prompts of later work beside decoding earlier work; None until it is first needed."""

    planned: list[Planned] = field(default_factory=list[Planned])
    decode_seconds: float = 0.0
    """Time of the planned sequences that decode."""
    first_decoding: tuple[int, tuple[int, int]] | None = None
    """The most important work that decodes, but not under the TPOT bound."""
    short_of_time: bool = False
    """Whether some work was left out for lack of time."""
    promised: int = 0
    """Pages that planned sequences will still need."""
    full: bool = False
    """Whether no further sequences without pages may join, because an earlier one did not fit."""

    def tokens_left(self, objective: Objective) -> int:
        """Number of prompt tokens of a sequence with this objective that may still be added to the step."""
        if objective is Objective.LATENCY:
            return self.prefill_left
        most = self.background_tokens * (_GROUP_TIMES if objective is Objective.GROUP else 1)
        return min(self.prefill_left, max(0, most - self.prefilled))

    def cost(self, state: SequenceState, count: int) -> float:
        """Seconds that the next `count` tokens of a sequence add to the step."""
        if count == len(state.known) - state.computed == 1:
            return self.rates.row(len(state.known))
        return self.rates.prefilling(count, state.computed)

    def reads_whole(self, state: SequenceState) -> bool:
        """Whether the sequences under the TPOT bound let this sequence's prompt be prefilled whole."""
        if self.urgent is None:
            return False
        return self.urgent.wait_for(state, self.cost(state, len(state.known) - state.computed))

    def add(self, state: SequenceState, count: int) -> None:
        """Plans the next `count` tokens of a sequence, and subtracts them from the budgets."""
        decodes = len(state.known) - state.computed == 1
        self.planned.append(Planned(state, count, decodes))
        cost = self.cost(state, count)
        if not state.urgent:  # the time of urgent ones is reserved already
            self.seconds_left -= cost
        if decodes:
            self.decode_seconds += cost
            if not state.urgent and self.first_decoding is None:
                self.first_decoding = state.work
        else:
            self.prefill_left = max(0, self.prefill_left - count)
            self.prefilled += count
            if self.later_prompt_seconds is not None:
                self.later_prompt_seconds -= cost


def fitting_in(seconds: float, count: int, *, cost: float) -> int:
    """How many of `count` tokens, which together cost `cost` seconds, fit into `seconds` (none if it is negative).

    Tokens whose cost is zero, as far as is known yet, always fit.
    """
    left = max(seconds, 0.0)
    return count if cost <= left else int(count * left / cost)
