"""Which sequences get a draft in a step, and how long it may be: as long as it is expected to save more than it costs.

One more row makes the step longer for all who decode, and spares its sequence a step if it is right. So a token is
worth trying if it and those before it are right with a probability above (rows x time of a row) / (time of the step):
for one sequence alone nearly any token is, among many only nearly certain ones. The time of a row is what it computes
(`step_cost`). The first rows more cost less than that, for they compute while the step reads the weights, but all
drafts of a step together do not.
"""

import math
from collections.abc import Sequence

from parrotserve.engines.native.pace import Pace
from parrotserve.engines.native.sequence import SequenceState

_STRETCH = 1.5
"""A step that is longer than the TPOT bound even without drafts may become so many times as long with them."""

_CROWDED = 0.95
"""Where computing is more than this part of a step's time, nobody looks for drafts: nine rows instead of one for each
sequence, all of them right, would make it 1.05 times as fast."""

Drafts = dict[SequenceState, tuple[int, ...]]


class Speculation:
    """Proposes drafts, by what steps are expected to take."""

    def __init__(self, pace: Pace, *, on: bool = True) -> None:
        self._pace = pace
        self._on = on

    def drafts(self, runnable: Sequence[SequenceState]) -> Drafts:
        """The drafts of those that decode, among the sequences that could run in a step.

        Where latency-sensitive sequences decode, nobody else gets drafts. Theirs may take the time that the TPOT bound
        leaves; or, where so many decode that it is lost without drafts, make the step longer by half. The bound is for
        whoever streams, and for other work and prompts: where there are none of these, all that pays is tried. A row is
        taken to cost the same for all.
        """
        decoding = [state for state in runnable if state.decodes] if self._on else []
        if not decoding:
            return {}
        urgent = [state for state in decoding if state.urgent]
        rates, bound = self._pace.model.rates(), self._pace.bound
        cost = rates.row(sum(len(state.known) for state in decoding) / len(decoding))
        is_lost = bool(urgent) and math.hypot(rates.reading(len(urgent)), cost * len(urgent)) > bound
        rows = len(urgent) if is_lost else len(decoding)  # where the bound is lost, nobody else decodes
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
    """However many tokens they write: it is streamed, or waits for what a step leaves to it."""
    return state.is_streamed or not (state.urgent or state.runs_ahead)
