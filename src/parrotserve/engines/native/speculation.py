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

        Where there are latency-sensitive ones it is theirs, as far as their TPOT bound leaves time for it.
        """
        if not self._on or not decoding:
            return {}
        rates = self._pace.model.rates()
        costs = {state: rates.row(len(state.known)) for state in decoding}
        seconds = rates.step + sum(costs.values())
        urgent = [state for state in decoding if state.urgent]
        left = self._pace.bound - seconds if urgent else math.inf
        found: Drafts = {}
        for state in urgent or decoding:
            cost = costs[state]
            least = cost * len(decoding) / seconds if cost else 0.0
            draft = _draft(state, least=least, most=left / cost if cost else math.inf)
            left -= cost * len(draft)
            if draft:
                found[state] = draft
        return found


def _draft(state: SequenceState, *, least: float, most: float) -> tuple[int, ...]:
    output = state.output
    if output is None or not output.is_plain or output.drafter.likelihood < least:
        return ()
    return output.drafter.draft(state.known, most=int(min(most, output.left - 1)), least=least)
