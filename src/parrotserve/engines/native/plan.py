"""A step's plan under construction: what it holds already, and what is left of tokens, time and pages."""

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from parrotserve.criteria import Objective, Precedence
from parrotserve.engines.native.sequence import SequenceState, Turn
from parrotserve.engines.native.speculation import Drafts


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
    """Those whose TPOT bound holds in a step."""

    salts: frozenset[str]
    first: Turn
    streamed: bool
    seconds: float
    """How long the last of them may write yet."""

    @classmethod
    def of(cls, states: Sequence[SequenceState], step: float) -> "Urgent":
        """All of these, of which there is one at least, where a step of theirs takes so many seconds."""
        return cls(
            salts=frozenset(state.salt for state in states),
            first=min(state.turn for state in states),
            streamed=any(state.is_streamed for state in states),
            seconds=step * max(state.output.left if state.output else 0 for state in states),
        )

    def wait_for(self, state: SequenceState, seconds: float) -> bool:
        """Whether they let this sequence's prompt be read, which takes so many seconds, however long the step becomes.

        Those who would be done in less time go first, if they were there first: read in parts beside them the prompt
        takes as long, and both wait for both."""
        waited_for = state.objective is Objective.LATENCY and not self.streamed
        comes_first = state.turn <= self.first or seconds <= self.seconds
        return waited_for and self.salts == frozenset({state.salt}) and comes_first


@dataclass(slots=True)
class Step:
    """The plan under construction."""

    now: float
    ranked: Sequence[SequenceState]
    """All sequences, the most important first."""
    owed: Sequence[SequenceState]
    """Those of them that have their place by the minimum share; there is always time for them."""
    budget: int = 0
    """Prefill tokens that are left."""
    patient: int = 0
    """How many of them prompts that nobody waits for may have."""
    prompts: Sequence[SequenceState] = ()
    """Latency-sensitive ones that are to be read."""
    seconds: float = math.inf
    """Of computing, that are left of the time that the step may take."""
    urgent: Urgent | None = None
    """For whose sake."""
    first_decodes: tuple[int, Precedence] | None = None
    """The most important work that decodes, though not so that a TPOT bound holds."""
    decoding: float = 0.0
    """Seconds that the step computes without prompts."""
    room: float | None = None
    """Seconds that later work's prompts may still compute in the step."""
    drafts: Drafts = field(default_factory=Drafts)
    """Of sequences that decode, if they are planned."""
    reads: bool = False
    """It holds a part of a prompt."""
    hurried: bool = False
    """Something had to wait for want of time."""
    held: Set[SequenceState] = frozenset()
    """Those that decode, but not in this step, for the sake of shorter ones."""
    planned: list[Planned] = field(default_factory=list[Planned])
    promised: int = 0
    """Pages that planned sequences are still going to need."""
    full: bool = False
    """No sequence that holds nothing yet may join any more: one before it did not fit."""


def fitting_in(seconds: float, count: int, *, cost: float) -> int:
    """How many of `count` tokens, which together take `cost` seconds, fit into so many; below zero, none are left.

    What costs nothing, as far as is known yet, fits always.
    """
    left = max(seconds, 0.0)
    return count if cost <= left else int(count * left / cost)
