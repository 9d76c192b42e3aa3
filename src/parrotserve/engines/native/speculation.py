"""Which sequences get a draft in a step, and how long one may be: as long as it is expected to save more than it costs.

A row more takes all who decode some time, and spares its sequence a step if it is right. So a token is worth trying
that is right with a probability above rows x (time of a row) / (time of the step): for one sequence alone nearly any,
among many only what is nearly certain.
"""

import math
from collections.abc import Sequence

from parrotserve.engines.native.pace import Pace
from parrotserve.engines.native.sequence import SequenceState

Drafts = dict[SequenceState, tuple[int, ...]]


class Speculation:
    """Proposes drafts, by what steps are expected to take."""

    def __init__(self, pace: Pace, *, on: bool = True) -> None:
        self._pace = pace
        self._on = on

    def drafts(self, decoding: Sequence[SequenceState]) -> Drafts:
        """What the sequences that decode in a step may go on with.

        Where there are latency-sensitive ones it is theirs, as far as their TPOT bound leaves time for it. A row is
        taken to cost the same for all.
        """
        if not self._on or not decoding:
            return {}
        rates = self._pace.model.rates()
        cost = rates.row(sum(len(state.known) for state in decoding) / len(decoding))
        seconds = rates.step + cost * len(decoding)
        least = cost * len(decoding) / seconds if cost else 0.0
        promising = [state for state in decoding if _is_promising(state, least)]
        if not promising:
            return {}
        urgent = any(state.urgent for state in decoding)
        left = (self._pace.bound - seconds) / cost if urgent and cost else math.inf
        found: Drafts = {}
        for state in promising:
            if state.output is not None and (state.urgent or not urgent):
                most = int(min(left, state.output.left - 1))
                draft = state.output.draft(state.known, most=most, least=least)
                left -= len(draft)
                if draft:
                    found[state] = draft
        return found


def _is_promising(state: SequenceState, least: float) -> bool:
    """Whether a draft's next token is likelier right than that. Most are not, which is seen first."""
    output = state.output
    return output is not None and output.drafter.likelihood > least and output.may_draft
