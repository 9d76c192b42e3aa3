"""Which outputs leave a step to shorter ones: shortest remaining processing time first, if a step is too wide.

Beyond some number of rows, the time of a step grows in proportion to its rows. Then outputs with few tokens left should
go first: they end much sooner, and the long ones end about when they would anyway (shortest remaining processing time
first, L. Schrage, 1968). Only an upper bound of an output's remaining length is known: the tokens that it may still
have.

If a step takes t(w) with w rows, then n outputs of equal length L that are decoded w at a time end after
L t(w) (n / w + 1) / 2 on average. With t = sqrt(s^2 + (b + c w)^2), where s is the time of reading the weights, c that
of computing a row and b that of computing others' rows in the step (`step_cost`), this is least where
(b + c w) (c w^2 - b n) = n s^2. Without others, that is w = (n (s / c)^2)^(1/3): up to n = s / c, all at once is best.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from parrotserve.engines.native.sequence import SequenceState
from parrotserve.step_cost import Rates


def held_back(sequences: Iterable[SequenceState], rates: Rates) -> set[SequenceState]:
    """The latency-sensitive sequences that could decode now but should leave the step to others of their tenant.

    Only outputs that nobody streams are held back, and none for more steps than it has tokens left. Outputs whose
    limits are equal all go on, since it is not known which of them ends first.
    """
    urgent = [state for state in sequences if state.urgent]
    waiting = [state for state in urgent if not state.is_streamed]
    if not waiting:
        return set()
    row = rates.row(sum(len(state.known) for state in waiting) / len(waiting))
    width = _best_width(len(waiting), rates.step, row * (len(urgent) - len(waiting)), row)
    if width >= len(waiting):
        return set()
    tenants: defaultdict[str, list[SequenceState]] = defaultdict(list)
    for state in waiting:
        tenants[state.salt].append(state)
    return {
        state
        for tenant in tenants.values()
        for state in _longest(tenant, max(1, round(width * len(tenant) / len(waiting))))
        if state.held_steps < _left(state)
    }


def _best_width(count: int, step: float, others: float, row: float) -> float:
    """The number of `count` outputs that are best decoded at a time. Per step, in seconds: `step` for reading the
    weights, `others` for computing others' rows, and `row` for computing one row."""

    def is_too_wide(width: float) -> bool:
        return (others + row * width) * (row * width * width - others * count) > count * step * step

    narrowest, widest = 0.0, float(count)
    if not is_too_wide(widest):
        return widest
    while widest - narrowest > 0.5:
        middle = (narrowest + widest) / 2
        narrowest, widest = (narrowest, middle) if is_too_wide(middle) else (middle, widest)
    return (narrowest + widest) / 2


def _longest(states: Sequence[SequenceState], width: int) -> Iterable[SequenceState]:
    """All sequences except the `width` shortest, and those that may end no later than the last of these."""
    left, limit = sorted((_left(state), _limit(state)) for state in states)[width - 1]
    return (state for state in states if _left(state) > left and _limit(state) > limit)


def _left(state: SequenceState) -> int:
    return state.output.left if state.output else 0


def _limit(state: SequenceState) -> int:
    return state.output.limit if state.output else 0
