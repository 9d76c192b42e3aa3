"""Building a step's batch: flat arrays from what each sequence brings, ordered along the shared-prefix forest."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from parrotserve.engines.native.backend import Spans, StepBatch
from parrotserve.engines.native.forest import Forest, find_forest

MIN_SHARED_TOKENS = 160
"""A span is shared if that saves each of its sequences at least this many key reads: a span's cost over a read's gain.

Both are measured. With the kernels on AVX-512, one more span costs a sequence some 700 cycles per KV head (a unit of
work, and a partial to merge for each query head); a key that is read once for all saves 4.5 cycles per KV head. So two
sequences are grouped from 320 shared tokens on, three from 240, many from 160. The kernels' spans are whole blocks of
256 tokens, so only pairs that share no more than one block stay apart.
"""


@dataclass(frozen=True, slots=True)
class SequenceRows:
    """What one sequence brings to a step: a prefill chunk, or the one token of a decode."""

    tokens: Sequence[int]
    """The new tokens, at least one."""
    start: int
    """Position of the first of them; the KV of all positions before it is in `pages`."""
    pages: Sequence[int]
    """The sequence's page table, covering positions up to start + len(tokens). May be longer."""
    want_logits: bool
    """Whether the logits of the last row are wanted."""
    drafted: int = 0
    """How many of the last tokens are a draft. The logits before each of them are wanted, too."""
    scale: float = 0.0
    """One over the temperature at which the next token will be drawn; 0 where none is drawn."""
    likeliest_only: bool = False
    """Whether only the likeliest token is wanted of its logits."""


def build_batch(
    rows: Sequence[SequenceRows],
    page_tokens: int,
    *,
    group: bool = True,
    min_shared_tokens: int = MIN_SHARED_TOKENS,
    align_tokens: int = 1,
    spare_pages: int = 0,
) -> tuple[StepBatch, list[int]]:
    """The batch of one step over all `rows`, and for each of its outputs the index in `rows` that it belongs to.

    Pages that several sequences share, wholly before the rows of each, become spans of their own if that saves each of
    them at least `min_shared_tokens` key reads; such spans start and stop at multiples of `align_tokens`. Without
    `group` every sequence is one span. Grouping changes results by rounding at most. Behind the pages of every
    sequence's own span there is room for `spare_pages` more.
    """
    tables = [one.pages for one in rows]
    limits = [one.start // page_tokens for one in rows] if group else [0] * len(rows)
    forest = find_forest(
        tables,
        limits,
        min_saved_pages=min_shared_tokens / page_tokens,
        align_pages=max(1, align_tokens // page_tokens),
    )
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    for sequence in forest.order:
        one = rows[sequence]
        tokens += one.tokens
        positions += range(one.start, one.start + len(one.tokens))
        slots += _slots(one, page_tokens)
    bounds = [0, *accumulate(len(rows[sequence].tokens) for sequence in forest.order)]
    outputs = [
        (place, row)
        for place, sequence in enumerate(forest.order)
        for row in _wanted(rows[sequence], bounds[place + 1])
    ]
    batch = StepBatch(
        tokens=np.array(tokens, dtype=np.int32),
        positions=np.array(positions, dtype=np.int32),
        slots=np.array(slots, dtype=np.int32),
        spans=_spans(rows, forest, bounds, page_tokens, spare_pages),
        logit_rows=np.array([row for _, row in outputs], dtype=np.int32),
        scales=np.array([rows[forest.order[place]].scale for place, _ in outputs], dtype=np.float64),
        likeliest_only=np.array([rows[forest.order[place]].likeliest_only for place, _ in outputs], dtype=np.bool_),
    )
    return batch, [forest.order[place] for place, _ in outputs]


def _wanted(one: SequenceRows, stop: int) -> range:
    """The rows whose logits are wanted, of a sequence whose last row is `stop` - 1."""
    return range(stop - one.drafted - 1, stop) if one.want_logits else range(0)


def _slots(one: SequenceRows, page_tokens: int) -> Sequence[int]:
    """The slots that the KV of its rows is written to."""
    stop = one.start + len(one.tokens)
    if stop > len(one.pages) * page_tokens:
        raise ValueError(f"Rows up to position {stop} do not fit into {len(one.pages)} pages of {page_tokens} tokens.")
    if stop == one.start + 1:  # a decode row: most are, and this runs in every step
        return (one.pages[one.start // page_tokens] * page_tokens + one.start % page_tokens,)
    slots: list[int] = []
    for index in range(one.start // page_tokens, -(-stop // page_tokens)):
        first, shift = index * page_tokens, one.pages[index] * page_tokens
        slots += range(shift + max(one.start - first, 0), shift + min(stop - first, page_tokens))
    return slots


def _spans(
    rows: Sequence[SequenceRows], forest: Forest, bounds: Sequence[int], page_tokens: int, spare_pages: int
) -> Spans:
    """The spans of the shared runs, then those of every sequence's tail."""
    spans: list[tuple[int, int, int, int]] = []
    pages: list[int] = []
    page_starts = [0]
    spare = [0] * spare_pages
    for run in forest.shared:
        keys = (run.stop - run.start) * page_tokens
        spans.append((bounds[run.first], bounds[run.last], run.start * page_tokens, keys))
        pages += rows[forest.order[run.first]].pages[run.start : run.stop]
        page_starts.append(len(pages))
    for place, sequence in enumerate(forest.order):
        one = rows[sequence]
        tail, stop = forest.tails[sequence], one.start + len(one.tokens)
        first = tail * page_tokens
        spans.append((bounds[place], bounds[place + 1], first, stop - first))
        pages += one.pages[tail : -(-stop // page_tokens)]
        pages += spare
        page_starts.append(len(pages))
    table = np.array(spans, dtype=np.int32).reshape(-1, 4)
    causal = np.ones(len(spans), dtype=np.bool_)
    causal[: len(forest.shared)] = False
    return Spans(
        rows=np.ascontiguousarray(table[:, :2]),
        keys=np.ascontiguousarray(table[:, 2:]),
        causal=causal,
        page_starts=np.array(page_starts, dtype=np.int32),
        pages=np.array(pages, dtype=np.int32),
    )
