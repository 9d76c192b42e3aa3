"""The batches of consecutive steps: while the same sequences decode, the last batch is kept and moved on by a token.

This is what others call a persistent batch. Most steps only decode what the one before decoded, however many sequences
there are and however deep their forest of shared prefixes is. Then nothing is built: the batch's own arrays are changed
number by number, because a model's step drives NumPy out of the processor's caches, so that each NumPy operation would
take tens of microseconds. Where anything else has changed, the batch is built anew (`batch`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from parrotserve.engines.native.backend import StepBatch
from parrotserve.engines.native.batch import SequenceRows, build_batch
from parrotserve.engines.native.plain_sampler import PlainSampler
from parrotserve.engines.native.plan import Planned
from parrotserve.engines.native.sequence import SequenceState

_SPARE_PAGES = 16
"""Room for new pages behind every sequence's own. Once one has used it up, the batch is built anew."""


@dataclass(slots=True)
class BuiltBatch:
    """The batch of a step and what belongs to its rows; valid until the next step."""

    batch: StepBatch
    rows: list[SequenceState]
    """The sequence of each row of logits."""
    runs: list[tuple[SequenceState, Sequence[int]]]
    """Each of these sequences once, with the indices of its rows of logits: several, if it has a draft."""
    attended: int
    """Number of pairs of a row and a token that it attends to."""
    kv_tokens: int
    """Number of tokens whose KV is read; tokens in shared spans count once."""
    sampler: PlainSampler | None = None
    """Kept from step to step, where all outputs are plain."""


class _PersistentBatch:
    """A batch of one decode row a sequence, which the next step can use again."""

    def __init__(self, built: BuiltBatch, decodes: list[tuple[SequenceState, int]], page_tokens: int) -> None:
        batch, spans = built.batch, built.batch.spans
        self.built = built
        self.decodes = decodes
        self._page_tokens = page_tokens
        self._first_own = len(spans.rows) - len(built.rows)
        """The first of the sequences' own spans; those before it are shared."""
        self._tokens, self._positions, self._slots = (
            array.data for array in (batch.tokens, batch.positions, batch.slots)
        )
        self._keys, self._pages = spans.keys.data, spans.pages.data
        self._page_starts: list[int] = spans.page_starts.tolist()

    def advance(self) -> bool:
        """Moves the batch on by one token per sequence. False if there is no room for a new page: then the batch must
        not be used any more."""
        for row, state in enumerate(self.built.rows):
            index, inside = divmod(state.computed, self._page_tokens)
            if not inside and not self._add_page(row, state.pages[index], index):
                return False
            self._tokens[row] = state.known[-1]
            self._positions[row] = state.computed
            self._slots[row] = state.pages[index] * self._page_tokens + inside
            self._keys[self._first_own + row, 1] += 1
        self.built.attended += len(self.built.rows)
        self.built.kv_tokens += len(self.built.rows)
        return True

    def _add_page(self, row: int, page: int, index: int) -> bool:
        span = self._first_own + row
        place = self._page_starts[span] + index - self._keys[span, 0] // self._page_tokens
        if place == self._page_starts[span + 1]:
            return False
        self._pages[place] = page
        return True


class BatchBuilder:
    """Makes the batch of each plan."""

    def __init__(self, page_tokens: int, *, group: bool, align_tokens: int) -> None:
        self._page_tokens = page_tokens
        self._group = group
        self._align_tokens = align_tokens
        self._last: _PersistentBatch | None = None

    def build(self, plan: Sequence[Planned]) -> BuiltBatch:
        """The step's batch. It may be that of the last step, changed in place."""
        decodes = [(planned.state, planned.state.table_version) for planned in plan if planned.decodes]
        last, drafts = self._last, any(planned.draft for planned in plan)
        if last and not drafts and len(decodes) == len(plan) and decodes == last.decodes and last.advance():
            return last.built
        batch, order = build_batch(
            [_rows(planned) for planned in plan],
            self._page_tokens,
            group=self._group,
            align_tokens=self._align_tokens,
            spare_pages=_SPARE_PAGES,
        )
        rows = [plan[index].state for index in order]
        built = BuiltBatch(
            batch,
            rows,
            [(state, tuple(run)) for state, run in groupby(range(len(rows)), key=rows.__getitem__)],
            attended=int(batch.positions.sum()) + len(batch.positions),
            kv_tokens=int(batch.spans.keys[:, 1].sum()),
        )
        all_decode = len(decodes) == len(plan) == len(order) and not drafts
        self._last = _PersistentBatch(built, decodes, self._page_tokens) if all_decode else None
        return built


def _rows(planned: Planned) -> SequenceRows:
    state = planned.state
    stop = state.computed + planned.count
    return SequenceRows(
        tokens=[*state.known[state.computed : stop], *planned.draft],
        start=state.computed,
        pages=state.pages,
        want_logits=state.output is not None and stop == len(state.known),
        drafted=len(planned.draft),
        scale=0.0 if state.output is None else state.output.scale,
        likeliest_only=state.output is not None and state.output.is_plain_greedy,
    )
