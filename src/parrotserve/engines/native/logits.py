"""The logits of a step as sampling sees them: a few numbers of each output, and whole rows only on demand."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from parrotserve.engines.native.uniform import start_of
from parrotserve.sampling import Sampling

IntArray = NDArray[np.int32]
FloatArray = NDArray[np.float32]

CANDIDATES = 128
"""How many of a row's highest logits `candidates` tells: nearly always enough to draw from."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The highest logits of some outputs; rows in the order in which they were asked for."""

    ids: IntArray
    """[rows, count]: highest logit first, lower ids first among equals; `count` is `CANDIDATES` or the vocabulary."""
    values: FloatArray
    """[rows, count]: their logits."""
    masses: NDArray[np.float64]
    """[rows]: sum of exp((logit - highest logit) * scale) over the whole vocabulary, within `MASS_ERROR`."""


MASS_ERROR = 2e-5
"""Of a mass, relative."""

_MOST_TOP_K = 2**31 - 1
"""More is all that any vocabulary has."""


class DrawSettings:
    """For which outputs tokens are drawn, all at temperatures above 0, and how. None of it changes from step to
    step."""

    def __init__(self, outputs: Sequence[int], samplings: Sequence[Sampling]) -> None:
        self.outputs: IntArray = np.array(outputs, dtype=np.int32)
        self.scales = np.array([1 / each.temperature for each in samplings])
        self.top_k: IntArray = np.array([min(each.top_k, _MOST_TOP_K) for each in samplings], dtype=np.int32)
        self.top_p = np.array([each.top_p for each in samplings], dtype=np.float64)
        self.min_p = np.array([each.min_p for each in samplings], dtype=np.float64)
        self.starts = np.array([start_of(each.seed or 0) for each in samplings], dtype=np.uint64)


class Logits(Protocol):
    """What a step says of the tokens after its outputs. Good until the backend's next step."""

    @property
    def rows(self) -> FloatArray:
        """[outputs, vocabulary]: all logits, where the backend left them; for rules that need more than what is below.
        Rows of outputs that were `likeliest_only` mean nothing, and of these outputs only `likeliest` and `highest` may
        be asked."""
        ...

    @property
    def likeliest(self) -> IntArray:
        """[outputs]: the id of the highest logit, the lowest id among equals."""
        ...

    @property
    def highest(self) -> FloatArray:
        """[outputs]: the highest logit; NaN where any of the output's logits is NaN."""
        ...

    def candidates(self, outputs: Sequence[int], scales: Sequence[float]) -> Candidates:
        """The highest logits of these outputs, none of which has a NaN, and their masses at these scales (see
        `Candidates`)."""
        ...

    def draw(self, settings: DrawSettings, positions: IntArray) -> list[int | None]:
        """A token for each of the settings' outputs, at its position in that output: the one that
        `sampler.draw_from_row` draws, or None where the backend cannot tell for sure. Penalties, biases, bans and
        grammars are not looked at: they are for outputs that have none."""
        ...


class WholeLogits:
    """`Logits` over an array [outputs, vocabulary], in NumPy."""

    def __init__(self, rows: FloatArray) -> None:
        self.rows = rows
        self.likeliest: IntArray = rows.argmax(axis=1).astype(np.int32)
        self.highest: FloatArray = rows.max(axis=1)

    def candidates(self, outputs: Sequence[int], scales: Sequence[float]) -> Candidates:
        """See `Logits`; masses are exact in float64."""
        rows = self.rows[outputs]
        count = min(CANDIDATES, rows.shape[1])
        ids = np.array([likeliest_ids(row, count) for row in rows], dtype=np.int32).reshape(-1, count)
        distances = rows.astype(np.float64) - rows.max(axis=1, keepdims=True)
        masses = np.exp(distances * np.array(scales)[:, None]).sum(axis=1)
        return Candidates(ids, np.take_along_axis(rows, ids, axis=1), masses)

    def draw(self, settings: DrawSettings, positions: IntArray) -> list[int | None]:
        """See `Logits`: the rows themselves decide."""
        return [None] * len(positions)


def likeliest_ids(values: NDArray[np.floating[Any]], count: int) -> NDArray[np.intp]:
    """Ids of the `count` highest values, highest first and lower ids first among equals."""
    count = min(count, len(values))
    least = np.partition(values, len(values) - count)[len(values) - count]
    return sorted_ids(values, np.flatnonzero(values >= least))[:count]


def sorted_ids(values: NDArray[np.floating[Any]], ids: NDArray[np.intp]) -> NDArray[np.intp]:
    """These ascending ids, highest value first and lower ids first among equals."""
    return ids[np.argsort(-values[ids], kind="stable")]
