"""A step's plan under construction: what it holds already, and what is left of tokens, time and pages."""

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from parrotserve.criteria import Objective
from parrotserve.engines.native.sequence import SequenceState, Turn
from parrotserve.engines.native.speculation import Drafts
from parrotserve.step_cost import Rates

_GROUP_TIMES = 2
"""A step may hold so many times as many prompt tokens with prompts of task groups as with those of throughput work:
somebody waits for the group, too, and small steps cost it time."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The next `count` tokens of a sequence; its pages have room for them."""

    state: SequenceState
    count: int
    decodes: bool
    """Whether this is the one token that it lacks, and not a part of its prompt."""
    draft: tuple[int, ...] = ()
    """Tokens that may come after that, and are run along; there is room for them, too."""


@dataclass(frozen=True, slots=True)
class Urgent:
    """The sequences that decode under the TPOT bound in a step, taken together."""

    salts: frozenset[str]
    """Their tenants."""
    first: Turn
    """Whose turn comes first among them."""
    streamed: bool
    """Whether somebody streams one of them."""
    seconds: float
    """For how long the last of them may go on writing."""
    stages: int
    """How many stages of its work follow after the one of them that is nearest to its result."""

    @classmethod
    def of(cls, states: Sequence[SequenceState], step_seconds: float) -> "Urgent":
        """These sequences, of which there is one at least, if each of their steps takes `step_seconds`."""
        return cls(
            salts=frozenset(state.salt for state in states),
            first=min(state.turn for state in states),
            streamed=any(state.is_streamed for state in states),
            seconds=step_seconds * max(state.output.left if state.output else 0 for state in states),
            stages=min(state.precedence.stages for state in states),
        )

    def wait_for(self, state: SequenceState, seconds: float) -> bool:
        """Whether they let this sequence's prompt, which takes `seconds`, be read whole, however long that makes the
        step.

        They do not if they were there first and are done sooner than it. Else reading the prompt in parts beside them
        gains nothing: it takes as long, and both wait for both. Nor do they let a later piece of work pass that has as
        many stages before it as they have: of two chains the first ends long before the second then, and not both when
        all is done.
        """
        is_waited_for = state.objective is Objective.LATENCY and not self.streamed
        stages = state.precedence.stages
        passes = seconds <= self.seconds and (stages == 0 or stages < self.stages)
        comes_first = passes or state.turn <= self.first
        return is_waited_for and self.salts == frozenset({state.salt}) and comes_first


@dataclass(slots=True)
class Step:
    """The plan under construction. All seconds are predictions, of computing unless something else is said."""

    now: float
    rates: Rates
    """What a step and what it holds cost, as measured so far."""
    ranked: Sequence[SequenceState]
    """All sequences, the most important first."""
    owed: Sequence[SequenceState]
    """Those of them that are put first by the minimum share; there is always time for them."""
    waiting_prompts: Sequence[SequenceState] = ()
    """Latency-sensitive sequences whose prompts are to be read."""
    urgent: Urgent | None = None
    """Those under the TPOT bound, if any are."""
    held_back: Set[SequenceState] = frozenset()
    """Sequences that decode, but leave this step to shorter ones."""
    drafts: Drafts = field(default_factory=Drafts)
    """For sequences that decode, if they are planned."""

    prefill_left: int = 0
    """How many more prompt tokens the step may hold."""
    prefilled: int = 0
    """How many prompt tokens it holds."""
    background_tokens: int = 0
    """How many prompt tokens the step may hold if some of them are throughput work's."""
    seconds_left: float = math.inf
    """What the TPOT bound leaves to sequences that are not under it."""
    later_prompt_seconds: float | None = None
    """What is left to prompts of later work beside earlier work that decodes; None until somebody asks."""

    planned: list[Planned] = field(default_factory=list[Planned])
    decode_seconds: float = 0.0
    """What the planned sequences that decode take."""
    first_decoding: tuple[int, tuple[int, int]] | None = None
    """The most important work that decodes, but not under the TPOT bound."""
    short_of_time: bool = False
    """Whether something had to wait for want of time."""
    promised: int = 0
    """Pages that planned sequences are still going to need."""
    full: bool = False
    """Whether no sequence without pages may join any more, because one before it did not fit."""

    def tokens_left(self, objective: Objective) -> int:
        """How many more prompt tokens the step may hold, if those of a sequence with this objective come next."""
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
        """Whether those under the TPOT bound let this sequence's prompt be read whole."""
        if self.urgent is None:
            return False
        return self.urgent.wait_for(state, self.cost(state, len(state.known) - state.computed))

    def add(self, state: SequenceState, count: int) -> None:
        """Plans the next `count` tokens of a sequence, and takes them off what is left."""
        decodes = len(state.known) - state.computed == 1
        self.planned.append(Planned(state, count, decodes))
        cost = self.cost(state, count)
        if not state.urgent:  # what those take has been reserved
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
    """How many of `count` tokens, which together cost `cost` seconds, fit into `seconds`; below zero, none do.

    Tokens that cost nothing, as far as is known yet, always fit.
    """
    left = max(seconds, 0.0)
    return count if cost <= left else int(count * left / cost)
