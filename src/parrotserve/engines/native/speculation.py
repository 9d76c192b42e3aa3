"""Which sequences get a draft in a step, and how long one may be: as long as it is expected to save more than it costs.

A row more takes all who decode some time, and spares its sequence a step if it is right. So a token is worth trying
that is right, with those before it, with a probability above rows x (time of a row) / (time of the step): for one
sequence alone nearly any, among many only what is nearly certain. The time of a row is what it computes (`step_cost`).
The first rows more are cheaper, since a step reads the weights meanwhile; all drafts together are not.
"""

import math
from collections.abc import Sequence

from parrotserve.engines.native.pace import Pace
from parrotserve.engines.native.sequence import SequenceState

_STRETCH = 1.5
"""How much longer drafts may make a step that is longer than the TPOT bound without them."""

_CROWDED = 0.95
"""Where computing is so much of a step's time, the rest of it is hardly worth looking for drafts.

Nine rows instead of one for each sequence, all of them right, would be 1.05 times as fast."""

Drafts = dict[SequenceState, tuple[int, ...]]


class Speculation:
    """Proposes drafts, by what steps are expected to take."""

    def __init__(self, pace: Pace, *, on: bool = True) -> None:
        self._pace = pace
        self._on = on

    def drafts(self, runnable: Sequence[SequenceState]) -> Drafts:
        """What those that decode may go on with, of the sequences that could run in a step.

        Where there are latency-sensitive ones it is theirs, as far as their TPOT bound leaves time for it; or, where so
        many cannot have it anyway, as far as the step becomes by half longer. The bound is for whoever reads along, and
        for other work and prompts: where there is neither, all that is worth it is tried. A row is taken to cost the
        same for all.
        """
        decoding = [state for state in runnable if state.decodes] if self._on else []
        if not decoding:
            return {}
        urgent = [state for state in decoding if state.urgent]
        rates, bound = self._pace.model.rates(), self._pace.bound
        cost = rates.row(sum(len(state.known) for state in decoding) / len(decoding))
        lost = math.hypot(rates.reading(len(urgent)), cost * len(urgent)) > bound if urgent else False
        rows = len(urgent) if lost else len(decoding)  # where it is lost, nobody else decodes
        computing = cost * rows
        seconds = math.hypot(rates.reading(rows), computing)
        least = computing / seconds if computing else 0.0
        if least > _CROWDED:
            return {}
        bounded = bool(urgent) and any(_minds(state) for state in runnable)
        longest = (_STRETCH * seconds if lost else bound) if bounded else math.inf
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


def _minds(state: SequenceState) -> bool:
    """Whether it loses where a step is long, however much that writes."""
    return state.is_streamed or not (state.urgent or state.runs_ahead)
