"""From logits to tokens: every rule of `Sampling`, row by row, reproducible on any engine.

Randomness is one uniform number for each (seed, position), so a token depends neither on the batch around it nor on
what was generated elsewhere, and a rerun continues exactly. The number comes from SplitMix64 (Steele, Lea and Flood,
"Fast splittable pseudorandom number generators", 2014): the seed is mixed once, and position p takes output p of
the generator that starts there; its top 53 bits are the uniform.

A token is drawn by inverting the distribution function over tokens sorted by weight, likeliest first and lower
ids first among equals. Weights are float64 `exp((logit - highest logit) / temperature)`. Filters apply in the order
top_k, top_p (of what top_k left), min_p. All this is fixed so that a compiled kernel can draw the same token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from parrotserve.engines.native.backend import FloatArray
from parrotserve.sampling import Sampling, TokenLogprob

_WORD = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_LOOKS = (2.0**-8, 2.0**-12, 2.0**-16, 2.0**-24, 0.0)
"""Tokens at least this likely, relative to the likeliest, are sorted: at first few, and nearly always enough."""

Mask = NDArray[np.bool_]
Weights = NDArray[np.float64]
Ids = NDArray[np.intp]


def uniform(seed: int, position: int) -> float:
    """The number in [0, 1) that decides token `position` of an output with this seed."""
    start = _mix(seed + _GAMMA)
    return (_mix(start + (position + 1) * _GAMMA) >> 11) * 2.0**-53


def _mix(word: int) -> int:
    word &= _WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)


@dataclass(slots=True)
class Draw:
    """One row's question to the sampler: how to choose, given what the output has so far."""

    sampling: Sampling
    position: int
    """The token's number in its output."""
    banned: tuple[int, ...] = ()
    """Tokens that may not come now, such as the end of turn before `min_tokens`."""
    counts: dict[int, int] = field(default_factory=dict[int, int])
    """How often the output has each of its tokens; kept where a penalty asks for it."""
    seen: frozenset[int] | set[int] = frozenset()
    """Tokens of prompt or output; kept where the repetition penalty asks for it."""
    allowed: Mask | None = None
    """[vocabulary]: the tokens that a grammar lets come; None where there is no grammar."""

    @property
    def plain(self) -> bool:
        """Whether the likeliest raw token is the answer and nothing else is asked."""
        sampling = self.sampling
        return (
            sampling.temperature == 0.0
            and not self.banned
            and self.allowed is None
            and sampling.logprobs is None
            and not sampling.logit_bias
            and not has_penalties(sampling)
        )


def has_penalties(sampling: Sampling) -> bool:
    """Whether the output's own tokens change its logits."""
    return bool(sampling.presence_penalty or sampling.frequency_penalty) or sampling.repetition_penalty != 1.0


def sample(logits: FloatArray, draws: Sequence[Draw]) -> list[tuple[int, TokenLogprob | None]]:
    """The token of every row of `logits` [rows, vocabulary], and its log-probability where `logprobs` asks for it."""
    if not draws:
        return []
    likeliest = np.argmax(logits, axis=1)
    return [
        (int(likeliest[row]), None) if draw.plain else _sample_row(logits[row], draw) for row, draw in enumerate(draws)
    ]


def _sample_row(raw: FloatArray, draw: Draw) -> tuple[int, TokenLogprob | None]:
    logits = adjust(raw, draw)
    if draw.sampling.temperature == 0.0:
        token = int(np.argmax(logits))
    else:
        token = _draw_token(logits, draw.sampling, uniform(draw.sampling.seed or 0, draw.position))
    wanted = draw.sampling.logprobs
    return token, None if wanted is None else logprob_of(raw, token, wanted)


def adjust(raw: FloatArray, draw: Draw) -> Weights:
    """Logits [vocabulary] after penalties, bias, bans and grammar; forbidden tokens are at minus infinity."""
    logits = raw.astype(np.float64)
    sampling = draw.sampling
    if sampling.repetition_penalty != 1.0 and draw.seen:
        seen = np.fromiter(draw.seen, dtype=np.intp, count=len(draw.seen))
        value = logits[seen]
        logits[seen] = np.where(value > 0, value / sampling.repetition_penalty, value * sampling.repetition_penalty)
    if draw.counts and (sampling.presence_penalty or sampling.frequency_penalty):
        tokens = np.fromiter(draw.counts.keys(), dtype=np.intp, count=len(draw.counts))
        counts = np.fromiter(draw.counts.values(), dtype=np.float64, count=len(draw.counts))
        logits[tokens] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    for token, bias in sampling.logit_bias.items():
        if token < len(logits):
            logits[token] += bias
    if draw.allowed is not None:
        logits[~draw.allowed] = -np.inf
    return _ban(logits, draw.banned)


def _ban(logits: Weights, banned: tuple[int, ...]) -> Weights:
    """A ban gives way where nothing else is allowed: a complete grammar may only end."""
    if not banned:
        return logits
    ids = [token for token in banned if token < len(logits)]
    kept = logits[ids]
    logits[ids] = -np.inf
    if not np.isfinite(logits.max()):
        logits[ids] = kept
    return logits


def _draw_token(logits: Weights, sampling: Sampling, number: float) -> int:
    """Inverse of the distribution function at `number`, over the tokens that the filters keep.

    Only the likeliest tokens are sorted; more, should the answer not be among them. The sums run in the same order
    either way, so the token does not depend on how many were.
    """
    weights = np.exp((logits - logits.max()) / sampling.temperature)
    total = float(weights.sum())
    filtered = sampling.top_p < 1.0 or sampling.min_p > 0.0
    for least in _LOOKS:
        ids = _sorted(weights, np.flatnonzero(weights >= least))
        complete = len(ids) == len(weights) or 0 < sampling.top_k <= len(ids)
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


def _sorted(values: Weights, ids: Ids) -> Ids:
    """These ascending ids, highest value first and lower ids first among equals."""
    return ids[np.argsort(-values[ids], kind="stable")]


def _kept(weights: Weights, sums: Weights, mass: float, sampling: Sampling) -> int:
    """How many of the sorted tokens top_p and min_p keep: at least one."""
    kept = len(weights)
    if sampling.top_p < 1.0:
        kept = min(kept, int(np.searchsorted(sums, sampling.top_p * mass, side="left")) + 1)
    if sampling.min_p > 0.0:
        kept = min(kept, int(np.searchsorted(-weights, -sampling.min_p * weights[0], side="right")))
    return max(kept, 1)


def logprob_of(raw: FloatArray, token: int, top: int) -> TokenLogprob:
    """The log-softmax of the model's own logits [vocabulary] at `token`, and at the `top` likeliest tokens."""
    logits = raw.astype(np.float64)
    highest = logits.max()
    logprobs = logits - (highest + np.log(np.exp(logits - highest).sum()))
    ids = _likeliest(logprobs, top) if top else []
    return TokenLogprob(token, float(logprobs[token]), tuple((int(other), float(logprobs[other])) for other in ids))


def _likeliest(values: Weights, count: int) -> Ids:
    """Ids of the `count` highest values, highest first and lower ids first among equals."""
    count = min(count, len(values))
    least = np.partition(values, len(values) - count)[len(values) - count]
    return _sorted(values, np.flatnonzero(values >= least))[:count]
