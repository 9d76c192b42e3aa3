"""The batches of consecutive steps: while the same sequences decode, the last batch is moved on by one token.

That is what most steps are, and it costs a few array operations, however many sequences there are and however deep
their forest is. Everything else is built anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from parrotserve.engines.native.backend import StepBatch
from parrotserve.engines.native.batch import SequenceRows, build_batch
from parrotserve.engines.native.planner import Planned
from parrotserve.engines.native.sequence import SequenceState

_SPARE_PAGES = 16
"""Room for new pages behind every sequence's own: with it used up, and every so often so, all is built anew."""


@dataclass(slots=True)
class _Last:
    """The batch before, of decode rows only; `tails` is the first of the sequences' own spans."""

    plan: list[tuple[SequenceState, int]]
    rows: list[SequenceState]
    batch: StepBatch
    tails: int


class BatchBuilder:
    """Makes the batch of each plan."""

    def __init__(self, page_tokens: int, *, group: bool, align_tokens: int) -> None:
        self._page_tokens = page_tokens
        self._group = group
        self._align_tokens = align_tokens
        self._last: _Last | None = None

    def build(self, plan: Sequence[Planned]) -> tuple[StepBatch, list[SequenceState]]:
        """The step's batch, and the sequence of each of its outputs."""
        moves = [(planned.state, planned.state.moves) for planned in plan if planned.decodes]
        if self._last is not None and len(moves) == len(plan) and moves == self._last.plan and self._go_on(self._last):
            return self._last.batch, self._last.rows
        batch, order = build_batch(
            [_rows(planned) for planned in plan],
            self._page_tokens,
            group=self._group,
            align_tokens=self._align_tokens,
            spare_pages=_SPARE_PAGES,
        )
        rows = [plan[index].state for index in order]
        all_decode = len(moves) == len(plan) == len(rows)
        self._last = _Last(moves, rows, batch, len(batch.spans.rows) - len(rows)) if all_decode else None
        return batch, rows

    def _go_on(self, last: _Last) -> bool:
        """Moves the batch on by a token of each sequence; False if there is no room for a new page."""
        batch, spans = last.batch, last.batch.spans
        positions, slots = batch.positions + np.int32(1), batch.slots + np.int32(1)
        for row in np.flatnonzero(positions % self._page_tokens == 0).tolist():
            index, span = int(positions[row]) // self._page_tokens, last.tails + row
            page = last.rows[row].pages[index]
            place = int(spans.page_starts[span]) + index - int(spans.keys[span, 0]) // self._page_tokens
            if place == spans.page_starts[span + 1]:
                return False
            spans.pages[place] = page
            slots[row] = page * self._page_tokens
        spans.keys[last.tails :, 1] += 1
        tokens = np.array([state.known[-1] for state in last.rows], dtype=np.int32)
        last.batch = replace(batch, tokens=tokens, positions=positions, slots=slots)
        return True


def _rows(planned: Planned) -> SequenceRows:
    state = planned.state
    stop = state.computed + planned.count
    return SequenceRows(
        tokens=state.known[state.computed : stop],
        start=state.computed,
        pages=state.pages,
        want_logits=state.output is not None and stop == len(state.known),
    )
