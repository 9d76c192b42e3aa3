"""Which outputs leave a step to shorter ones: shortest remaining processing time first, where a step is too wide.

From some number of rows on, a step takes about as much longer as it writes more tokens. Then outputs with little left
had better go first: they end much sooner, and those with much left end about when they would anyhow (shortest remaining
processing time first, L. Schrage, 1968). How much an output has left is known only as a limit: the tokens that it may
still have.

If a step takes t(w) with w rows, then n outputs of equal length L that are written w at a time end after
L t(w) (n / w + 1) / 2 on average. With t = sqrt(s^2 + (b + c w)^2), where s is for reading the weights, c for computing
a row and b for what others compute in the step (`step_cost`), that is least where (b + c w) (c w^2 - b n) = n s^2.
Without others that is w = (n (s / c)^2)^(1/3): up to n = s / c, all at once is best.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from parrotserve.engines.native.sequence import SequenceState
from parrotserve.step_cost import Rates


def held_back(sequences: Iterable[SequenceState], rates: Rates) -> set[SequenceState]:
    """Those of the sequences that could decode now that had better leave the step to others of their tenant.

    Only outputs that nobody streams are held back, and none for more steps than it has tokens left. Outputs that may
    become equally long all go on: which of them ends first is not known.
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
    """How many of `count` outputs are best written at a time. In seconds: `step` is what reading takes in a step,
    `others` what others compute in it, and `row` what a row computes."""

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
    """All but the `width` shortest, and but those that may end no later than the last of these."""
    left, limit = sorted((_left(state), _limit(state)) for state in states)[width - 1]
    return (state for state in states if _left(state) > left and _limit(state) > limit)


def _left(state: SequenceState) -> int:
    return state.output.left if state.output else 0


def _limit(state: SequenceState) -> int:
    return state.output.limit if state.output else 0
