"""Which sequences get a draft in a step, and how long it may be: as long as it is expected to save more than it costs.

One more row lengthens the step for all sequences that decode, and saves its own sequence a step if it is right. So a
token is worth trying if it and those before it are right with a probability above (rows x time of a row) / (time of the
step): for one sequence alone nearly any token is, among many only nearly certain ones. The time of a row is its
computing time (`step_cost`). The first additional rows cost less than that, as they compute while the step reads the
weights, but all drafts of a step together do not.
"""

import math
from collections.abc import Sequence

from parrotserve.engines.native.pace import Pace
from parrotserve.engines.native.sequence import SequenceState

_STRETCH = 1.5
"""Factor by which drafts may lengthen a step that exceeds the TPOT bound even without them."""

_CROWDED = 0.95
"""Above this ratio of computing to the step's time, no drafts are looked for: nine rows per sequence instead of one,
all of them right, would make decoding only 1.05 times as fast."""

Drafts = dict[SequenceState, tuple[int, ...]]


class Speculation:
    """Chooses drafts by the expected time of steps."""

    def __init__(self, pace: Pace, *, on: bool = True) -> None:
        self._pace = pace
        self._on = on

    def drafts(self, runnable: Sequence[SequenceState]) -> Drafts:
        """The drafts for a step in which `runnable` could run, by sequence.

        If latency-sensitive sequences decode, only they get drafts. These may take the time that the TPOT bound leaves
        or, if the step exceeds the bound even without drafts, make it longer by half. The bound protects streams, other
        work and prompts: without any of these, all drafts that pay are tried. The cost of a row is taken to be the
        same for all.
        """
        decoding = [state for state in runnable if state.decodes] if self._on else []
        if not decoding:
            return {}
        urgent = [state for state in decoding if state.urgent]
        rates, bound = self._pace.model.rates(), self._pace.bound
        cost = rates.row(sum(len(state.known) for state in decoding) / len(decoding))
        is_lost = bool(urgent) and math.hypot(rates.reading(len(urgent)), cost * len(urgent)) > bound
        rows = len(urgent) if is_lost else len(decoding)  # if the bound is exceeded, no other sequences decode
        computing = cost * rows
        seconds = math.hypot(rates.reading(rows), computing)
        least = computing / seconds if computing else 0.0
        if least > _CROWDED:
            return {}
        is_bounded = bool(urgent) and any(_suffers_from_long_steps(state) for state in runnable)
        longest = (_STRETCH * seconds if is_lost else bound) if is_bounded else math.inf
        left = (rates.room(longest, row=cost) - computing) / cost if cost else math.inf
        found: Drafts = {}
        for state in urgent or decoding:
            output = state.output
            if output is None or not output.may_draft:
                continue
            most = int(min(left, output.left - 1))
            if most > 0 and (draft := output.draft(state.known, most=most, least=least)):
                left -= len(draft)
                found[state] = draft
        return found


def _suffers_from_long_steps(state: SequenceState) -> bool:
    """Whether long steps harm it even if they yield more tokens: it is streamed, or gets only the time that is left."""
    return state.is_streamed or not (state.urgent or state.runs_ahead)
