"""The interface of a backend: run one batch of token rows, through all layers, over pages of KV.

The engine loop decides what a step holds; a backend computes it in one call. `reference` is NumPy in float32;
a compiled backend gets the same arrays. Everything here is flat arrays, so a step crosses a language border
without walking Python objects.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from parrotserve.engines.native.logits import IntArray, Logits


@dataclass(frozen=True, slots=True)
class Spans:
    """Runs of keys, and the rows of the batch that attend to each: the forest of shared prefixes, flattened.

    A row's attention is the log-sum-exp merge over every span that covers it. Spans shared by several sequences
    (inner nodes of the forest) lie wholly before all of their rows. A sequence's own tail is a span with
    `causal`: there a row at position p attends to keys at positions up to and including p. Sequences are ordered
    so that the rows below any node are contiguous.
    """

    rows: IntArray
    """[spans, 2]: first row, and one past the last."""
    keys: IntArray
    """[spans, 2]: absolute position of the first key, a multiple of the page size; number of keys."""
    causal: NDArray[np.bool_]
    """[spans]"""
    page_starts: IntArray
    """[spans + 1]: span s reads pages[page_starts[s] : page_starts[s + 1]], in order of position; pages at the end
    that its keys do not need are ignored."""
    pages: IntArray
    """Page numbers of all spans, one span after the other."""


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One step: rows of several sequences, prefill chunks and decode rows alike."""

    tokens: IntArray
    """[rows]"""
    positions: IntArray
    """[rows]: absolute position of each row's token in its sequence."""
    slots: IntArray
    """[rows]: where the row's KV is written: page * page_tokens + offset in the page."""
    spans: Spans
    logit_rows: IntArray
    """[outputs]: the rows whose logits are wanted."""
    scales: NDArray[np.float64]
    """[outputs]: one over the temperature at which a token will probably be drawn, 0 where none is drawn; a hint."""
    likeliest_only: NDArray[np.bool_]
    """[outputs]: whether only `Logits.likeliest` and `Logits.highest` will be read."""


class Backend(Protocol):
    """Holds the weights and the pages of KV of one model."""

    @property
    def page_tokens(self) -> int:
        """Tokens per page."""
        ...

    def step(self, batch: StepBatch) -> Logits:
        """Run all rows, writing their KV. Returns the logits of the outputs, valid until the next step."""
        ...
