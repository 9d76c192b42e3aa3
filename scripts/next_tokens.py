"""How well a backend predicts a text: the probability of each next token, and which token it finds likeliest."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from golden_corpus import Corpus
from numpy.typing import NDArray

from parrotserve.engines.native.backend import Backend
from parrotserve.engines.native.batch import SequenceRows, build_batch
from parrotserve.engines.native.kernels import BLOCK_TOKENS
from parrotserve.engines.native.logits import FloatArray
from parrotserve.models.tokenizer import Tokenizer

WINDOW = 1000
"""Tokens that are read together. Each window starts with an empty context."""
CHUNK = 250


@dataclass(frozen=True)
class Prediction:
    """What was predicted after every position of a text except the last one of each window."""

    losses: NDArray[np.float64]
    """Negative log-likelihood of the actual token, in nats."""
    likeliest: NDArray[np.int64]
    second: NDArray[np.int64]
    gaps: FloatArray
    """How much the likeliest token's logit exceeds the second's."""

    @property
    def perplexity(self) -> float:
        """Over all positions."""
        return math.exp(float(self.losses.mean()))


def documentation_windows(tokenizer: Tokenizer, tokens: int) -> list[list[int]]:
    """The first `tokens` tokens of the documentation strings of Python's standard library, in windows."""
    stream: list[int] = []
    for text in Corpus("accuracy").documentation():
        stream += tokenizer.encode(f"{text}\n\n")
        if len(stream) >= tokens:
            break
    return [stream[first : first + WINDOW] for first in range(0, tokens, WINDOW)]


def predict(backend: Backend, windows: Sequence[list[int]]) -> Prediction:
    """Predictions for every window by itself, from position 0. The backend's pages are overwritten."""
    return joined(part for window in windows for part in _read(backend, window))


def judged(logits: FloatArray, tokens: Sequence[int]) -> Prediction:
    """The prediction by `logits`, of shape [positions, vocabulary], given the tokens that actually came."""
    rows = np.arange(len(tokens))
    likeliest = logits.argmax(axis=1)
    top = logits[rows, likeliest]
    losses = np.log(np.exp(logits - top[:, None]).sum(axis=1, dtype=np.float64)) - (logits[rows, tokens] - top)
    others = logits.copy()
    others[rows, likeliest] = -np.inf
    second = others.argmax(axis=1)
    return Prediction(losses=losses, likeliest=likeliest, second=second, gaps=top - logits[rows, second])


def joined(found: Iterable[Prediction]) -> Prediction:
    """Several predictions as one, in their order."""
    parts = list(found)
    return Prediction(
        losses=np.concatenate([part.losses for part in parts]),
        likeliest=np.concatenate([part.likeliest for part in parts]),
        second=np.concatenate([part.second for part in parts]),
        gaps=np.concatenate([part.gaps for part in parts]),
    )


def _read(backend: Backend, window: list[int]) -> Iterator[Prediction]:
    """The predictions after every token except the last, chunk by chunk."""
    pages = range(-(-len(window) // backend.page_tokens))
    for first in range(0, len(window) - 1, CHUNK):
        part = window[first : min(first + CHUNK, len(window) - 1)]
        batch, _ = build_batch([SequenceRows(part, first, pages, True)], backend.page_tokens, align_tokens=BLOCK_TOKENS)
        every = np.arange(len(part), dtype=np.int32)
        logits = backend.step(
            replace(batch, logit_rows=every, scales=np.zeros(len(part)), likeliest_only=np.zeros(len(part), np.bool_))
        )
        yield judged(logits.rows, window[first + 1 : first + 1 + len(part)])
