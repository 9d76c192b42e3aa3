"""One question to the sampler, and what its rules make of logits before a token is chosen."""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from parrotserve.sampling import Sampling

Mask = NDArray[np.bool_]
Weights = NDArray[np.float64]
Ids = NDArray[np.intp]


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
    def adjusts(self) -> bool:
        """Whether any logit is changed before a token is chosen."""
        return bool(self.banned or self.allowed is not None or self.sampling.logit_bias) or has_penalties(self.sampling)

    @property
    def plain(self) -> bool:
        """Whether it is drawn at random, and from unchanged logits."""
        return self.sampling.temperature > 0.0 and not self.adjusts


def has_penalties(sampling: Sampling) -> bool:
    """Whether the output's own tokens change its logits."""
    return bool(sampling.presence_penalty or sampling.frequency_penalty) or sampling.repetition_penalty != 1.0


def touched(draw: Draw, vocabulary: int) -> Ids:
    """The tokens that penalties, bias and bans change, ascending."""
    tokens = {*draw.sampling.logit_bias, *draw.banned}
    if draw.sampling.repetition_penalty != 1.0:
        tokens |= draw.seen
    if draw.sampling.presence_penalty or draw.sampling.frequency_penalty:
        tokens |= draw.counts.keys()
    return np.array(sorted(token for token in tokens if token < vocabulary), dtype=np.intp)


def adjust(logits: Weights, draw: Draw, ids: Ids | None = None) -> Weights:
    """`logits`, changed in place, after penalties, bias and grammar: what may not come is at minus infinity.

    They are those of the whole vocabulary, or of the ascending tokens `ids`, all `touched` ones among them.
    """
    sampling = draw.sampling
    if sampling.repetition_penalty != 1.0 and draw.seen:
        seen = _places(draw.seen, ids)
        value = logits[seen]
        logits[seen] = np.where(value > 0, value / sampling.repetition_penalty, value * sampling.repetition_penalty)
    if draw.counts and (sampling.presence_penalty or sampling.frequency_penalty):
        counts = np.fromiter(draw.counts.values(), dtype=np.float64, count=len(draw.counts))
        logits[_places(draw.counts, ids)] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    vocabulary = len(logits) if ids is None else int(ids.max(initial=-1)) + 1
    bias = {token: bias for token, bias in sampling.logit_bias.items() if token < vocabulary}
    logits[_places(bias, ids)] += np.fromiter(bias.values(), dtype=np.float64, count=len(bias))
    if draw.allowed is not None:
        logits[~(draw.allowed if ids is None else draw.allowed[ids])] = -np.inf
    return logits


def ban(logits: Weights, draw: Draw, ids: Ids | None = None) -> Weights:
    """`adjust`ed logits, changed in place, with the banned tokens at minus infinity."""
    vocabulary = len(logits) if ids is None else int(ids.max(initial=-1)) + 1
    logits[_places([token for token in draw.banned if token < vocabulary], ids)] = -np.inf
    return logits


def _places(tokens: Collection[int], ids: Ids | None) -> Ids:
    """Where in `ids`, or in the vocabulary, these tokens are."""
    places = np.fromiter(tokens, dtype=np.intp, count=len(tokens))
    return places if ids is None else ids.searchsorted(places)
