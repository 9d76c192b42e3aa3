"""How long steps may take: a model of their time, fitted as they run, and the bound that it is held against."""

import math

import numpy as np
from numpy.typing import NDArray

from parrotserve.bounds import Bounds
from parrotserve.engines.native.timing import StepHeld

_SCALES = np.array([1.0, 512.0, 64.0, 131_072.0])
"""What is large of each quantity, so that one amount of doubt fits all coefficients."""
_MEMORY = 0.98
"""Weight of a step against the one after it: some fifty steps count."""
_DOUBT = 1e-3
"""How much evidence it takes to leave an earlier belief: that of a thousandth of a large step."""
_FIRST_STEPS = 8
"""Before these, no bound is derived."""
_MOST_FRESH = 32
"""Steps that may wait to be learned from, where nobody asks what they teach."""


class StepModel:
    """seconds = a + b (prefill tokens) + c (decode rows) + d (tokens attended to), none of them negative.

    Recursive least squares that forgets. What recent steps say nothing about stays as it was believed: an hour without
    prefill does not make prefill free.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._weights = np.zeros(4)
        self._moments = np.zeros((4, 4))
        self._targets = np.zeros(4)
        self._fresh: list[tuple[float, float, float, float, float]] = []
        """Steps that the rest does not know of yet."""

    def learn(self, step: StepHeld, seconds: float) -> None:
        """A step with this took so long."""
        self.steps += 1
        self._fresh.append((1.0, step.prefill_tokens, step.decode_rows, step.attended, seconds))
        if len(self._fresh) == _MOST_FRESH:
            self._fit()

    def seconds(self, step: StepHeld) -> float:
        """How long a step with this is expected to take."""
        self._fit()
        return float(_features(step) @ self._weights)

    def rates(self) -> tuple[float, float, float, float]:
        """Seconds of a step with nothing in it, of a prefill token, of a decode row, of a token attended to."""
        self._fit()
        start, prefill, row, attended = (self._weights / _SCALES).tolist()
        return start, prefill, row, attended

    def _fit(self) -> None:
        if not self._fresh:
            return
        table = np.array(self._fresh)
        held, seconds = table[:, :4] / _SCALES, table[:, 4]
        ages = _MEMORY ** np.arange(len(table) - 1, -1, -1.0)
        self._moments = _MEMORY ** len(table) * self._moments + (ages * held.T) @ held
        self._targets = _MEMORY ** len(table) * self._targets + (ages * held.T) @ seconds
        doubt = _DOUBT * np.eye(4)
        solved = np.linalg.solve(self._moments + doubt, self._targets + _DOUBT * self._weights)
        self._weights = np.maximum(solved, 0.0)
        self._fresh.clear()


class Pace:
    """The longest step while latency-sensitive sequences decode: their TPOT bound."""

    def __init__(self, *, tpot: float | None = None, adapt: bool = True) -> None:
        """`tpot` in seconds; None derives it from the measured speed of one sequence alone. Without `adapt` there is
        no bound."""
        self.model = StepModel()
        self._bounds = Bounds(tpot=tpot)
        self._adapt = adapt

    @property
    def bound(self) -> float:
        """Seconds; infinite where there is none, or nothing is known yet."""
        if not self._adapt:
            return math.inf
        alone = self.model.seconds(StepHeld(decode_rows=1))
        known = self._bounds.tpot is not None or (self.model.steps >= _FIRST_STEPS and alone > 0.0)
        return self._bounds.step(alone) if known else math.inf

    def learn(self, step: StepHeld, seconds: float) -> None:
        """A step with this took so long."""
        if self._adapt:
            self.model.learn(step, seconds)


def _features(step: StepHeld) -> NDArray[np.float64]:
    return np.array([1.0, step.prefill_tokens, step.decode_rows, step.attended]) / _SCALES
