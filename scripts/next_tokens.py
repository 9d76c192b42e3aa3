"""How a backend does on a text: what it gives each next token, and which it thinks likeliest."""

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
"""Tokens that are read together; each window starts anew."""
CHUNK = 250


@dataclass(frozen=True)
class Prediction:
    """What was expected after every position of a text but the last of each window."""

    losses: NDArray[np.float64]
    """Nats: how unexpected the token was that came."""
    likeliest: NDArray[np.int64]
    second: NDArray[np.int64]
    gaps: FloatArray
    """By how much the likeliest token's logit beats the second's."""

    @property
    def perplexity(self) -> float:
        """Over all positions."""
        return math.exp(float(self.losses.mean()))


def documentation_windows(tokenizer: Tokenizer, tokens: int) -> list[list[int]]:
    """The documentation strings of Python's standard library, one after another, in windows."""
    stream: list[int] = []
    for text in Corpus("accuracy").documentation():
        stream += tokenizer.encode(f"{text}\n\n")
        if len(stream) >= tokens:
            break
    return [stream[first : first + WINDOW] for first in range(0, tokens, WINDOW)]


def predict(backend: Backend, windows: Sequence[list[int]]) -> Prediction:
    """Every window alone, from position 0; the backend's pages are written over."""
    return joined(part for window in windows for part in _read(backend, window))


def judged(logits: FloatArray, tokens: Sequence[int]) -> Prediction:
    """What `logits`, [positions, vocabulary], say of the tokens that came."""
    rows = np.arange(len(tokens))
    likeliest = logits.argmax(axis=1)
    top = logits[rows, likeliest]
    losses = np.log(np.exp(logits - top[:, None]).sum(axis=1, dtype=np.float64)) - (logits[rows, tokens] - top)
    others = logits.copy()
    others[rows, likeliest] = -np.inf
    second = others.argmax(axis=1)
    return Prediction(losses=losses, likeliest=likeliest, second=second, gaps=top - logits[rows, second])


def joined(found: Iterable[Prediction]) -> Prediction:
    """One after another."""
    parts = list(found)
    return Prediction(
        losses=np.concatenate([part.losses for part in parts]),
        likeliest=np.concatenate([part.likeliest for part in parts]),
        second=np.concatenate([part.second for part in parts]),
        gaps=np.concatenate([part.gaps for part in parts]),
    )


def _read(backend: Backend, window: list[int]) -> Iterator[Prediction]:
    """After every token but the last."""
    pages = range(-(-len(window) // backend.page_tokens))
    for first in range(0, len(window) - 1, CHUNK):
        part = window[first : min(first + CHUNK, len(window) - 1)]
        batch, _ = build_batch([SequenceRows(part, first, pages, True)], backend.page_tokens, align_tokens=BLOCK_TOKENS)
        every = np.arange(len(part), dtype=np.int32)
        logits = backend.step(
            replace(batch, logit_rows=every, scales=np.zeros(len(part)), likeliest_only=np.zeros(len(part), np.bool_))
        )
        yield judged(logits.rows, window[first + 1 : first + 1 + len(part)])
