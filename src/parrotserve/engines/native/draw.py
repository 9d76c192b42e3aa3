"""How the sampler is asked for a token, and how the rules for it change logits before it is chosen."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parrotserve.sampling import Sampling

Mask = NDArray[np.bool_]
Weights = NDArray[np.float64]
Ids = NDArray[np.intp]


class Seen:
    """The tokens that penalties apply to, and how often the output has each of them. Kept sorted as tokens are added,
    so that no draw has to sort thousands of them."""

    __slots__ = ("counts", "ids")

    def __init__(self, prompt: Iterable[int] = (), output: Iterable[int] = ()) -> None:
        self.ids: Ids = np.unique(np.array([*prompt], dtype=np.intp))
        """Ascending."""
        self.counts: Weights = np.zeros(len(self.ids))
        """How often the output has each; 0 for tokens that only the prompt has."""
        for token in output:
            self.add(token)

    def add(self, token: int) -> None:
        """Counts a token that the output continues with."""
        place = int(self.ids.searchsorted(token))
        if place == len(self.ids) or self.ids[place] != token:
            self.ids, self.counts = np.insert(self.ids, place, token), np.insert(self.counts, place, 0.0)
        self.counts[place] += 1.0


_NONE = Seen()


@dataclass(slots=True)
class Draw:
    """How the sampler is to choose a row's next token, given what the output has so far."""

    sampling: Sampling
    position: int
    """The token's number in its output."""
    banned: tuple[int, ...] = ()
    """Tokens that may not be chosen now, such as the end of turn before `min_tokens`."""
    seen: Seen = _NONE
    """Tokens of the output if a penalty needs them, and of the prompt if the repetition penalty does."""
    allowed: Mask | None = None
    """[vocabulary]: the tokens that a grammar allows; None where there is no grammar."""

    @property
    def adjusts(self) -> bool:
        """Whether any logit is changed before a token is chosen."""
        return bool(self.banned or self.allowed is not None or self.sampling.logit_bias) or has_penalties(self.sampling)

    @property
    def plain(self) -> bool:
        """Whether the token is drawn at random, and from unchanged logits."""
        return self.sampling.temperature > 0.0 and not self.adjusts


def has_penalties(sampling: Sampling) -> bool:
    """Whether the output's own tokens change its logits."""
    return bool(sampling.presence_penalty or sampling.frequency_penalty) or sampling.repetition_penalty != 1.0


def touched(draw: Draw, vocabulary: int) -> Ids:
    """The tokens that penalties, bias and bans change, ascending."""
    seen = draw.seen.ids if has_penalties(draw.sampling) else _NONE.ids
    more = sorted(token for token in {*draw.sampling.logit_bias, *draw.banned} if token < vocabulary)
    if not more:
        return seen
    others = np.array(more, dtype=np.intp)
    others = others[~among(others, seen)]
    return np.insert(seen, seen.searchsorted(others), others)


def among(tokens: Ids, ids: Ids) -> Mask:
    """Which of `tokens` are among the ascending `ids`."""
    if not len(ids):
        return np.zeros(tokens.shape, dtype=np.bool_)
    return ids[np.minimum(ids.searchsorted(tokens), len(ids) - 1)] == tokens


def adjust(logits: Weights, draw: Draw, ids: Ids | None = None) -> Weights:
    """Applies penalties, bias and grammar to `logits` in place, and returns them. Tokens that the grammar forbids get
    minus infinity.

    `logits` are those of the whole vocabulary or, where given, of the ascending `ids`, which have all `touched` tokens.
    """
    sampling = draw.sampling
    if has_penalties(sampling):
        _penalise(logits, draw, slice(None) if draw.seen.ids is ids else _places(draw.seen.ids, ids))
    vocabulary = len(logits) if ids is None else int(ids.max(initial=-1)) + 1
    bias = {token: bias for token, bias in sampling.logit_bias.items() if token < vocabulary}
    logits[_places(bias, ids)] += np.fromiter(bias.values(), dtype=np.float64, count=len(bias))
    if draw.allowed is not None:
        logits[~(draw.allowed if ids is None else draw.allowed[ids])] = -np.inf
    return logits


def ban(logits: Weights, draw: Draw, ids: Ids | None = None) -> Weights:
    """Sets the banned tokens of `adjust`ed logits to minus infinity, in place, and returns the logits."""
    vocabulary = len(logits) if ids is None else int(ids.max(initial=-1)) + 1
    logits[_places([token for token in draw.banned if token < vocabulary], ids)] = -np.inf
    return logits


def _penalise(logits: Weights, draw: Draw, seen: Ids | slice) -> None:
    sampling, counts, value = draw.sampling, draw.seen.counts, logits[seen]
    if sampling.repetition_penalty != 1.0:
        value = np.where(value > 0, value / sampling.repetition_penalty, value * sampling.repetition_penalty)
    if sampling.presence_penalty or sampling.frequency_penalty:
        value = value - np.where(counts > 0, sampling.presence_penalty + sampling.frequency_penalty * counts, 0.0)
    logits[seen] = value


def _places(tokens: Ids | Collection[int], ids: Ids | None) -> Ids:
    """The indices of these tokens in `ids` or, where that is None, in the vocabulary."""
    places = tokens if isinstance(tokens, np.ndarray) else np.fromiter(tokens, dtype=np.intp, count=len(tokens))
    return places if ids is None else ids.searchsorted(places)
