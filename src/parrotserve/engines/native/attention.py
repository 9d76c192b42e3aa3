"""Attention of a step in NumPy: every row over the spans that cover it, merged by log-sum-exp.

Partial softmaxes over disjoint sets of keys combine exactly (Milakov & Gimelshein, "Online normalizer calculation
for softmax", 2018; Rabe & Staats, "Self-attention does not need O(n²) memory", 2021). So the keys of a shared prefix
are read once, by the queries of all rows below it as one matrix product, and each row's own keys are added after.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from parrotserve.engines.native.backend import StepBatch
from parrotserve.engines.native.logits import FloatArray, IntArray

MAX_SCORES = 1 << 20
"""Most scores computed at a time, over all heads: 4 MB, which stay in the cache and bound a long prompt's memory."""

LONG_RUN_TOKENS = 512
"""Runs of neighbouring pages with this many tokens get blocks of their own: that costs less than copying them."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows and some keys that they attend to."""

    rows: slice
    pages: slice | IntArray
    """The pages of the keys; a slice, which needs no copy, if they are neighbours."""
    keys: int
    """Number of the pages' keys that are attended to."""
    hidden: NDArray[np.bool_] | None
    """[rows, 1, keys]: which keys a row must not see; None if all rows see all."""


def plan_blocks(batch: StepBatch, page_tokens: int, heads: int) -> list[Block]:
    """Cuts the spans of a step into blocks of bounded size; done once per step, used by every layer."""
    spans = batch.spans
    blocks: list[Block] = []
    bounds = zip(spans.rows.tolist(), spans.keys.tolist(), spans.causal.tolist(), strict=True)
    for span, ((first, last), (start, count), causal) in enumerate(bounds):
        first_page = spans.page_starts[span]
        pages = spans.pages[first_page : first_page - (-count // page_tokens)]
        step = max(1, MAX_SCORES // ((last - first) * heads * page_tokens))
        for low, high in _pieces(pages, step, -(-LONG_RUN_TOKENS // page_tokens)):
            skip = low * page_tokens
            keys = min(high * page_tokens, count) - skip
            blocks.append(_block(batch.positions, (first, last), pages[low:high], start + skip, keys, causal=causal))
    return blocks


def _pieces(pages: IntArray, step: int, long_run: int) -> list[tuple[int, int]]:
    """Cuts `pages` around their long runs of neighbours, and every piece into at most `step` pages."""
    breaks = [0, *(np.flatnonzero(np.diff(pages) != 1) + 1).tolist(), len(pages)]
    cuts = {0, len(pages)}
    for low, high in pairwise(breaks):
        if high - low >= long_run:
            cuts |= {low, high}
    return [
        (place, min(place + step, high)) for low, high in pairwise(sorted(cuts)) for place in range(low, high, step)
    ]


def _block(
    positions: IntArray, rows: tuple[int, int], pages: IntArray, start: int, keys: int, *, causal: bool
) -> Block:
    first, last = rows
    hidden = None
    if causal:
        # Positions rise along a sequence's rows. Rows before the block's first key see none of its keys.
        first += int(np.searchsorted(positions[first:last], start))
        if positions[first] < start + keys - 1:
            hidden = (positions[first:last, None] < np.arange(start, start + keys))[:, None, :]
    low = int(pages[0])
    neighbours = int(pages[-1]) - low == len(pages) - 1 and bool((np.diff(pages) == 1).all())
    return Block(slice(first, last), slice(low, low + len(pages)) if neighbours else pages, keys, hidden)


def attend(queries: FloatArray, keys: FloatArray, values: FloatArray, blocks: Sequence[Block]) -> FloatArray:
    """Softmax attention of every row over its blocks.

    `queries` are [kv_heads, rows, group, head_dim], already scaled, `keys` and `values` one layer's pages,
    [kv_heads, pages, page_tokens, head_dim]. Returns the shape of `queries`.
    """
    peak = np.full((*queries.shape[:3], 1), -np.inf, dtype=np.float32)
    total = np.zeros_like(peak)
    output = np.zeros_like(queries)
    for block in blocks:
        rows = np.s_[:, block.rows]
        new_peak, new_total, new_output = _partial(queries[rows], keys, values, block)
        best = np.maximum(peak[rows], new_peak)
        old, new = np.exp(peak[rows] - best), np.exp(new_peak - best)
        peak[rows] = best
        total[rows] = total[rows] * old + new_total * new
        output[rows] = output[rows] * old + new_output * new
    return output / total


def _partial(queries: FloatArray, keys: FloatArray, values: FloatArray, block: Block) -> Iterator[FloatArray]:
    """For one block, of every query: the largest score, the sum of exponentials relative to it, the weighted values."""
    kv_heads, rows, group, head_dim = queries.shape
    flat = queries.reshape(kv_heads, rows * group, head_dim)
    scores = flat @ _gather(keys, block).swapaxes(1, 2)
    if block.hidden is not None:
        np.copyto(scores.reshape(kv_heads, rows, group, block.keys), -np.inf, where=block.hidden)
    peak = scores.max(axis=-1, keepdims=True)
    scores -= peak
    np.exp(scores, out=scores)
    parts = (peak, scores.sum(axis=-1, keepdims=True), scores @ _gather(values, block))
    return (part.reshape(kv_heads, rows, group, -1) for part in parts)


def _gather(pages: FloatArray, block: Block) -> FloatArray:
    """The keys or values of a block, [kv_heads, keys, head_dim]."""
    chosen = pages[:, block.pages]
    return chosen.reshape(len(pages), -1, pages.shape[-1])[:, : block.keys]
