"""From logits to tokens: every rule of `Sampling`, row by row, reproducible on any engine.

Randomness is one uniform number for each (seed, position); see `uniform`. A token is drawn by inverting the cumulative
distribution over tokens sorted by weight, likeliest first, and lower ids first among equals. Weights are float64
`exp((logit - highest logit) / temperature)`. Filters apply in the order top_k, top_p (of the mass that top_k leaves),
min_p. All this is fixed so that a compiled kernel can draw the same token.
"""

from collections.abc import Mapping

import numpy as np

from parrotserve.engines.native.draw import Draw, Weights, adjust, ban
from parrotserve.engines.native.logits import DrawSettings, FloatArray, Logits, sorted_ids
from parrotserve.engines.native.shortlist import draw_from_candidates
from parrotserve.engines.native.uniform import uniform
from parrotserve.sampling import Sampling, TokenLogprob

_LOOKS = (2.0**-8, 2.0**-12, 2.0**-16, 2.0**-24, 0.0)
"""Thresholds of weight, relative to the likeliest token, above which tokens are sorted; tried in turn. The first leaves
few tokens, which nearly always suffice."""


def sample(logits: Logits, draws: Mapping[int, Draw]) -> dict[int, tuple[int, TokenLogprob | None]]:
    """The token of every output in `draws`, and its log-probability if `logprobs` asks for it.

    Tokens of outputs with unchanged logits are drawn by the backend. Others are drawn from the candidates (the highest
    logits), which nearly always suffice; the rest are drawn from the whole row by NumPy. The results always equal those
    of the last way. None of these outputs may have a NaN among its logits.
    """
    if not draws:
        return {}
    numbers = {
        output: uniform(draw.sampling.seed or 0, draw.position) if draw.sampling.temperature > 0.0 else 0.0
        for output, draw in draws.items()
    }
    tokens = _draw_plain(logits, draws)
    tokens |= draw_from_candidates(logits, {at: draw for at, draw in draws.items() if at not in tokens}, numbers)
    for output, draw in draws.items():
        if output not in tokens:
            tokens[output] = draw_from_row(logits.rows[output], draw, numbers[output])
    logprobs = _logprobs(logits, draws, tokens)
    return {output: (tokens[output], logprobs.get(output)) for output in draws}


def _draw_plain(logits: Logits, draws: Mapping[int, Draw]) -> dict[int, int]:
    """The tokens of outputs with unchanged logits, as far as the backend can determine them."""
    plain = [output for output, draw in draws.items() if draw.plain]
    if not plain:
        return {}
    settings = DrawSettings(plain, [draws[output].sampling for output in plain])
    drawn = logits.draw(settings, np.array([draws[output].position for output in plain], dtype=np.int32))
    return {output: token for output, token in zip(plain, drawn, strict=True) if token is not None}


def draw_from_row(raw: FloatArray, draw: Draw, number: float) -> int:
    """The token at `number` in [0, 1), from all logits: every faster way must agree with it."""
    logits = adjust(raw.astype(np.float64), draw)
    banned = ban(logits.copy(), draw) if draw.banned else logits
    if np.isfinite(banned.max()):  # a ban is dropped if nothing else is allowed: a complete grammar may only end
        logits = banned
    if draw.sampling.temperature == 0.0:
        return int(np.argmax(logits))
    return _draw_token(logits, draw.sampling, number)


def _draw_token(logits: Weights, sampling: Sampling, number: float) -> int:
    """Inverse of the cumulative distribution at `number`, over the tokens that the filters keep.

    Only the likeliest tokens are sorted at first, and more if the answer is not among them. Sums are taken in the same
    order in any case, so the token does not depend on how many were sorted.
    """
    weights = np.exp((logits - logits.max()) / sampling.temperature)
    total = float(weights.sum())
    filtered = sampling.top_p < 1.0 or sampling.min_p > 0.0
    for least in _LOOKS:
        ids = sorted_ids(weights, np.flatnonzero(weights >= least))
        complete = len(ids) == len(weights) or 0 < sampling.top_k <= len(ids)
        if sampling.top_k and not complete:
            continue  # the mass that top_k leaves is not known until all of those tokens are sorted
        ids = ids[: sampling.top_k or None]
        sums = np.cumsum(weights[ids])
        mass = float(sums[-1]) if sampling.top_k else total
        kept = _kept(weights[ids], sums, mass, sampling)
        if kept < len(ids):
            mass, complete = float(sums[kept - 1]), True
        index = int(np.searchsorted(sums[:kept], number * mass, side="right"))
        if complete or (index < kept and not filtered):
            last_possible = int(np.count_nonzero(weights[ids[:kept]])) - 1
            return int(ids[min(index, last_possible)])
    raise AssertionError("the last look is complete")


def _kept(weights: Weights, sums: Weights, mass: float, sampling: Sampling) -> int:
    """Number of the sorted tokens that top_p and min_p keep: at least one."""
    kept = len(weights)
    if sampling.top_p < 1.0:
        kept = min(kept, int(np.searchsorted(sums, sampling.top_p * mass, side="left")) + 1)
    if sampling.min_p > 0.0:
        kept = min(kept, int(np.searchsorted(-weights, -sampling.min_p * weights[0], side="right")))
    return max(kept, 1)


def _logprobs(logits: Logits, draws: Mapping[int, Draw], tokens: Mapping[int, int]) -> dict[int, TokenLogprob]:
    """The log-softmax of the model's own logits at the chosen tokens, and at the likeliest ones."""
    outputs = [output for output, draw in draws.items() if draw.sampling.logprobs is not None]
    if not outputs:
        return {}
    found = logits.candidates(outputs, [1.0] * len(outputs))
    values = found.values.astype(np.float64)
    bases = values[:, 0] + np.log(found.masses)
    chosen = logits.rows[outputs, [tokens[output] for output in outputs]] - bases
    told: dict[int, TokenLogprob] = {}
    for place, output in enumerate(outputs):
        top = draws[output].sampling.logprobs or 0
        likeliest = zip(found.ids[place, :top].tolist(), (values[place, :top] - bases[place]).tolist(), strict=True)
        told[output] = TokenLogprob(tokens[output], float(chosen[place]), tuple(likeliest))
    return told
