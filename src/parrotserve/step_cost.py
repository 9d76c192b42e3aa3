"""What a step of an engine costs, learned from the steps that it has made: engines and the scheduler go by it.

A step's time is linear in what it holds: seconds = step + prefill * prompt tokens + decode * decode rows
+ read * KV tokens read (what sequences share once) + attend * pairs of a row and a token that it attends to. The five
coefficients follow measured steps by a Kalman filter (R. E. Kalman, 1960): recursive least squares whose memory fades
by a little noise on the coefficients, so that it neither forgets what it does not see nor blows up. Errors count
relative to a step's time, so that long steps do not drown the short ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

_SCALES = (1.0, 100.0, 10.0, 10_000.0, 100_000.0)
"""What of each a step typically holds: coefficients are fitted in these units, so that they are of one size."""
_PRIOR = (0.002, 0.03, 0.005, 0.001, 0.001)
"""Seconds for each of these, until steps were measured: a small model on a laptop."""
_PRIOR_VARIANCE = 0.01
_DRIFT = 0.01
"""How far a coefficient is thought to wander from one observation to the next, as a part of itself."""
_NOISE = 0.01
"""Variance of a step's relative error."""
_SHORTEST = 1e-6
"""Seconds. What took less was not measured."""


class Work(NamedTuple):
    """What steps held, summed."""

    steps: float = 0.0
    prefill_tokens: float = 0.0
    decode_rows: float = 0.0
    kv_tokens: float = 0.0
    attended: float = 0.0


class StepCost:
    """The fitted costs of one engine."""

    __slots__ = ("_coefficients", "_variance", "observed", "rates")

    def __init__(self, prior: "StepCost | None" = None) -> None:
        """`prior`: an engine of the same kind, as a first guess."""
        self._coefficients = list(_PRIOR if prior is None else prior._coefficients)
        size = range(len(_PRIOR))
        self._variance = [[_PRIOR_VARIANCE * (row == column) for column in size] for row in size]
        self.observed = 0
        """How many observations it has seen."""
        self.rates = self._rates()
        """The costs, each by itself."""

    def observe(self, work: Work, seconds: float) -> None:
        """Steps that held so much took so long."""
        if seconds < _SHORTEST or work.steps <= 0.0:
            return
        self.observed += 1
        features = [amount / scale / seconds for amount, scale in zip(work, _SCALES, strict=True)]
        spread = [_dot(row, features) for row in self._variance]
        error = 1.0 - _dot(self._coefficients, features)
        uncertainty = _dot(features, spread) + _NOISE
        gain = [value / uncertainty for value in spread]
        self._coefficients = [
            coefficient + step * error for coefficient, step in zip(self._coefficients, gain, strict=True)
        ]
        for row, step in enumerate(gain):
            self._variance[row] = [
                value - step * other for value, other in zip(self._variance[row], spread, strict=True)
            ]
            drift = (_DRIFT * self._coefficients[row]) ** 2
            self._variance[row][row] = min(self._variance[row][row] + drift, _PRIOR_VARIANCE)
        self.rates = self._rates()

    def _rates(self) -> "Rates":
        return Rates(*(max(one, 0.0) / scale for one, scale in zip(self._coefficients, _SCALES, strict=True)))


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds for one step, and for one more of what it holds. What a fit gives below zero costs nothing."""

    step: float
    prefill: float
    decode: float
    read: float
    attend: float

    def seconds(self, work: Work) -> float:
        """How long steps take that hold so much."""
        return (
            self.step * work.steps
            + self.prefill * work.prefill_tokens
            + self.decode * work.decode_rows
            + self.read * work.kv_tokens
            + self.attend * work.attended
        )

    def prefilling(self, tokens: float, before: float) -> float:
        """What it takes to prefill tokens after `before` others: they attend to these and to one another."""
        return tokens * (self.prefill + self.attend * (before + tokens / 2))

    def row(self, length: float) -> float:
        """What one more decode row of so many tokens adds to a step, shared ones apart."""
        return self.decode + self.attend * length


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
