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
"""How many of a row's highest logits `candidates` returns: nearly always enough to draw from."""


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
"""Largest relative error of a mass."""

_MOST_TOP_K = 2**31 - 1
"""Larger values keep the whole vocabulary just as well."""


class DrawSettings:
    """The outputs for which tokens are drawn, all at temperatures above 0, and their sampling parameters. None of this
    changes from step to step."""

    def __init__(self, outputs: Sequence[int], samplings: Sequence[Sampling]) -> None:
        self.outputs: IntArray = np.array(outputs, dtype=np.int32)
        self.scales = np.array([1 / each.temperature for each in samplings])
        self.top_k: IntArray = np.array([min(each.top_k, _MOST_TOP_K) for each in samplings], dtype=np.int32)
        self.top_p = np.array([each.top_p for each in samplings], dtype=np.float64)
        self.min_p = np.array([each.min_p for each in samplings], dtype=np.float64)
        self.starts = np.array([start_of(each.seed or 0) for each in samplings], dtype=np.uint64)


class Logits(Protocol):
    """The logits of a step's outputs. Valid until the backend's next step."""

    @property
    def rows(self) -> FloatArray:
        """[outputs, vocabulary]: all logits, in the backend's memory; for rules that need more than the members below.
        Rows of `likeliest_only` outputs are undefined: of these, only `likeliest` and `highest` may be read."""
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
        `sampler.draw_from_row` draws, or None where the backend cannot tell for sure. Only for outputs without
        penalties, biases, bans and grammars, which are not applied."""
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
        """See `Logits`; nothing is drawn here, so that `sampler` draws from the rows."""
        return [None] * len(positions)


def likeliest_ids(values: NDArray[np.floating[Any]], count: int) -> NDArray[np.intp]:
    """Ids of the `count` highest values, highest first and lower ids first among equals."""
    count = min(count, len(values))
    least = np.partition(values, len(values) - count)[len(values) - count]
    return sorted_ids(values, np.flatnonzero(values >= least))[:count]


def sorted_ids(values: NDArray[np.floating[Any]], ids: NDArray[np.intp]) -> NDArray[np.intp]:
    """These ascending ids, highest value first and lower ids first among equals."""
    return ids[np.argsort(-values[ids], kind="stable")]
