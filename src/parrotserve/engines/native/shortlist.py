"""Chooses tokens from the likeliest candidates alone, for many rows at once, wherever these suffice.

The result is always that of `sampler.draw_from_row`: a row is left undecided, for its whole logits to decide, where
the answer may lie beyond the candidates or could depend on rounding. So masses may have a small error, and sums may be
added in another order, without ever changing a token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parrotserve.engines.native.draw import Draw, Ids, Weights, adjust, among, ban, touched
from parrotserve.engines.native.logits import MASS_ERROR, Candidates, FloatArray, Logits
from parrotserve.sampling import Sampling

_BEYOND = 1 << 30
"""Stands for a count that reaches beyond the candidates."""
_ROUNDING = 1e-12
"""A generous bound of the relative rounding error of a sum or a weight in float64."""

Counts = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class _Shortlists:
    """The tokens with the highest adjusted logits of some rows: each list is the exact beginning of its row's order."""

    ids: Ids
    """[rows, width]"""
    values: Weights
    """[rows, width]: adjusted logits; minus infinity beyond the row's length."""
    lengths: Counts
    """[rows]: how many tokens each list has."""
    masses: Weights
    """[rows]: sum of exp((logit - values[0]) / temperature) over the vocabulary."""
    errors: Weights
    """[rows]: relative errors of the masses."""
    complete: bool
    """Whether the lists are the whole vocabulary."""


def draw_from_candidates(logits: Logits, draws: Mapping[int, Draw], numbers: Mapping[int, float]) -> dict[int, int]:
    """The tokens of those outputs for which candidates decide; `numbers` are their uniform random numbers."""
    if not draws:
        return {}
    outputs = list(draws)
    found = logits.candidates(outputs, [1 / (draws[output].sampling.temperature or 1.0) for output in outputs])
    lists = _shortlists(logits.rows, found, draws)
    places = _choose(lists, list(draws.values()), np.array([numbers[output] for output in outputs]))
    sure = np.flatnonzero(places >= 0)
    tokens = lists.ids[sure, places[sure]].tolist()
    return dict(zip([outputs[row] for row in sure.tolist()], tokens, strict=True))


def _shortlists(rows: FloatArray, found: Candidates, draws: Mapping[int, Draw]) -> _Shortlists:
    width = found.ids.shape[1]
    lists = _Shortlists(
        ids=found.ids.astype(np.intp),
        values=found.values.astype(np.float64),
        lengths=np.full(len(draws), width),
        masses=found.masses,
        errors=np.full(len(draws), MASS_ERROR),
        complete=width == rows.shape[1],
    )
    for row, (output, draw) in enumerate(draws.items()):
        if draw.adjusts:
            _adjust(lists, row, rows[output], draw)
    return lists


def _adjust(lists: _Shortlists, row: int, raw: FloatArray, draw: Draw) -> None:
    """Applies the draw's rules to its list, which keeps only what is certain: logits above the last candidate's."""
    ids, values, width = lists.ids[row], lists.values[row], lists.ids.shape[1]
    highest, least = values[0], -np.inf if lists.complete else values[-1]
    changed = touched(draw, len(raw))
    before = raw[changed].astype(np.float64)
    after = ban(adjust(before.copy(), draw, changed), draw, changed)
    same = ~among(ids, changed)
    if draw.allowed is not None:
        same &= draw.allowed[ids]
    pool, logits = np.concatenate((ids[same], changed)), np.concatenate((values[same], after))
    above = np.flatnonzero(logits > least)
    order = above[np.lexsort((pool[above], -logits[above]))][:width]
    length = lists.lengths[row] = len(order)
    lists.ids[row, :length], lists.values[row, :length] = pool[order], logits[order]
    lists.values[row, length:] = -np.inf
    if draw.sampling.temperature > 0.0 and length:
        _adjust_mass(lists, row, highest, before, after, draw)


def _adjust_mass(lists: _Shortlists, row: int, highest: float, before: Weights, after: Weights, draw: Draw) -> None:
    """Replaces the old weights of changed tokens in the mass by the new ones. Its absolute error stays, and may be a
    larger part of it than before."""
    temperature, mass = draw.sampling.temperature, lists.masses[row]
    with np.errstate(over="ignore", invalid="ignore"):
        lost = np.exp((before - highest) / temperature).sum()
        gained = np.exp((after - highest) / temperature).sum()
        moved = np.exp((highest - lists.values[row, 0]) / temperature)
        left = mass - lost + gained
        lists.masses[row] = left * moved
        lists.errors[row] = MASS_ERROR * (mass + lost + gained) / left if left > 0.0 else np.inf
    # Only the whole row tells how much mass a grammar leaves.
    if draw.allowed is not None or not lists.errors[row] < 0.5 or not np.isfinite(lists.masses[row]):
        lists.lengths[row] = 0


def _choose(lists: _Shortlists, draws: Sequence[Draw], numbers: Weights) -> Counts:
    """[rows]: the index of every row's token in its list; -1 where that is not certain."""
    temperatures = np.array([draw.sampling.temperature for draw in draws])
    places = np.where(lists.lengths > 0, 0, -1)
    rows = np.flatnonzero((temperatures > 0.0) & (lists.lengths > 0))
    if len(rows):
        places[rows] = _invert(lists, rows, [draws[row].sampling for row in rows.tolist()], numbers[rows])
    return places


def _invert(lists: _Shortlists, rows: Ids, samplings: Sequence[Sampling], numbers: Weights) -> Counts:
    """Inverts the distribution function over the tokens that the filters keep, row by row as in `sampler`."""
    values, lengths, errors = lists.values[rows], lists.lengths[rows], lists.errors[rows]
    weights = np.exp((values - values[:, :1]) / _column([sampling.temperature for sampling in samplings]))
    sums = weights.cumsum(axis=1)
    end = lengths if lists.complete else np.full(len(rows), _BEYOND)

    top_k = np.array([sampling.top_k or _BEYOND for sampling in samplings])
    kept = np.minimum(top_k, end)
    masses = np.where(kept <= lengths, _last(sums, kept), lists.masses[rows])
    sure = (kept <= lengths) | (top_k == _BEYOND)

    top_p = np.array([sampling.top_p for sampling in samplings])
    min_p = np.array([sampling.min_p for sampling in samplings])
    filtered = (top_p < 1.0) | (min_p > 0.0)
    if filtered.any():
        reached, known = _count(sums, top_p * masses, errors, np.less)
        kept = np.where(top_p < 1.0, np.minimum(kept, np.where(reached < lengths, reached + 1, end)), kept)
        sure &= known | (top_p == 1.0)
        likely, known = _count(weights, min_p, np.full(len(rows), _ROUNDING), np.greater_equal)
        kept = np.where(min_p > 0.0, np.minimum(kept, np.where(likely < lengths, likely, end)), kept)
        sure &= known | (min_p == 0.0)
        told = kept <= lengths
        # Where top_p ends beyond the list, its last token is less likely than any in the list: nearly known, too.
        nearly = ~told & (top_p < 1.0) & (min_p == 0.0)
        errors = errors + np.where(nearly, _last(weights, lengths) / (top_p * masses), 0.0)
        masses = np.where(told, _last(sums, kept), np.where(nearly, top_p * masses, masses))
        sure &= told | nearly | ~filtered

    places, known = _count(sums, numbers * masses, errors, np.less_equal)
    return np.where(sure & known & (places < np.minimum(kept, lengths)), places, -1)


def _count(sums: Weights, targets: Weights, errors: Weights, compare: np.ufunc) -> tuple[Counts, NDArray[np.bool_]]:
    """How many sums of each row compare so with its target, and whether that is certain despite the target's error."""
    low = compare(sums, (targets * (1 - errors))[:, None]).sum(axis=1)
    high = compare(sums, (targets * (1 + errors))[:, None]).sum(axis=1)
    return low, low == high


def _last(values: Weights, counts: Counts) -> Weights:
    """[rows]: of each row, the last of its first `counts` values."""
    places = np.clip(counts - 1, 0, values.shape[1] - 1)
    return np.take_along_axis(values, places[:, None], axis=1)[:, 0]


def _column(numbers: Sequence[float]) -> Weights:
    return np.array(numbers)[:, None]
