"""What a step of an engine costs, learned from the steps that it has made: engines and the scheduler go by it.

A step reads the weights, and computes: prefill * prompt tokens + decode * decode rows + read * KV tokens (what
sequences share once) + attend * pairs of a row and a token that it attends to seconds. The two overlap, though not
wholly: it takes the square root of the sum of their squares. That is between the roofline, which takes the longer one
(S. Williams et al., 2009), and their sum, by which SmolLM2 on two cores of a Zen 4 would decode a row alone 17 %
faster than it does (ADR 011). Steps of few rows may read the weights in a shorter form (ADR 019): the part
of the time that this takes is a coefficient of its own.

The coefficients follow measured steps by an extended Kalman filter (R. E. Kalman, 1960): recursive least squares,
about what is thought so far, whose memory fades by a little noise on the coefficients, so that it neither forgets what
it does not see nor blows up. Errors count relative to a step's time, so that long steps do not drown the short ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

FEW_ROWS = 7
"""Rows of a step, at most, that are few; sums of alike steps are told of by binary digits of their rows."""
_SCALES = (1.0, 100.0, 10.0, 10_000.0, 100_000.0)
"""What of each a step typically holds: coefficients are fitted in these units, so that they are of one size."""
_PRIOR = (0.002, 0.03, 0.005, 0.001, 0.001, 1.0)
"""Seconds for each of these until steps were measured: a small model on a laptop. Last, what part of the time that
reading takes it takes where rows are few."""
_PRIOR_VARIANCES = (0.01, 0.01, 0.01, 0.01, 0.01, 0.005)
_DRIFT = 0.01
"""How far a coefficient is thought to wander from one observation to the next, as a part of itself."""
_NOISE = 0.01
"""Variance of a step's relative error."""
_SHORTEST = 1e-6
"""Seconds. What took less was not measured."""
_LEAST_PART = 0.05
"""Of an error at least so much is laid to memory and to computing each, though one of them seems to take no time: what
is thought of it may be wrong."""


class Work(NamedTuple):
    """What steps held, summed; like ones, for a sum tells least of what unlike ones take."""

    steps: float = 0.0
    prefill_tokens: float = 0.0
    decode_rows: float = 0.0
    kv_tokens: float = 0.0
    attended: float = 0.0

    @property
    def rows(self) -> float:
        """A step."""
        return (self.prefill_tokens + self.decode_rows) / self.steps if self.steps else 0.0


class StepCost:
    """The fitted costs of one engine."""

    __slots__ = ("_coefficients", "_variance", "observed", "rates")

    def __init__(self, prior: "StepCost | None" = None) -> None:
        """`prior`: an engine of the same kind, as a first guess."""
        self._coefficients = list(_PRIOR if prior is None else prior._coefficients)
        size = range(len(_PRIOR))
        self._variance = [[_PRIOR_VARIANCES[row] * (row == column) for column in size] for row in size]
        self.observed = 0
        """How many observations it has seen."""
        self.rates = self._rates()
        """The costs, each by itself."""

    def observe(self, work: Work, seconds: float) -> None:
        """Steps that held so much took so long."""
        if seconds < _SHORTEST or work.steps <= 0.0:
            return
        self.observed += 1
        amounts = [amount / scale for amount, scale in zip(work, _SCALES, strict=True)]
        expected, slopes = self._expected(amounts, few=work.rows <= FEW_ROWS)
        features = [slope / seconds for slope in slopes]
        spread = [_dot(row, features) for row in self._variance]
        error = 1.0 - expected / seconds
        uncertainty = _dot(features, spread) + _NOISE
        gain = [value / uncertainty for value in spread]
        self._coefficients = [
            coefficient + step * error for coefficient, step in zip(self._coefficients, gain, strict=True)
        ]
        for row, step in enumerate(gain):
            self._variance[row] = [
                value - step * other for value, other in zip(self._variance[row], spread, strict=True)
            ]
            drift = (_DRIFT * self._coefficients[row]) ** 2 if row < len(_SCALES) else 0.0
            self._variance[row][row] = min(self._variance[row][row] + drift, _PRIOR_VARIANCES[row])
        self.rates = self._rates()

    def _expected(self, amounts: Sequence[float], *, few: bool) -> tuple[float, list[float]]:
        """Seconds for such amounts, and how they grow with each coefficient."""
        *costs, part = self._coefficients
        step, prefill, decode, read, attend = (cost * amount for cost, amount in zip(costs, amounts, strict=True))
        part = part if few else 1.0
        memory, computing = max(step * part, 0.0), max(prefill + decode + read + attend, 0.0)
        seconds = math.hypot(memory, computing)
        of_memory, of_computing = (max(one / seconds, _LEAST_PART) if seconds else 1.0 for one in (memory, computing))
        shares = (of_memory * part, *[of_computing] * (len(amounts) - 1))
        slopes = [share * amount for share, amount in zip(shares, amounts, strict=True)]
        return seconds, [*slopes, of_memory * step if few else 0.0]

    def _rates(self) -> "Rates":
        *costs, part = self._coefficients
        rates = (max(one, 0.0) / scale for one, scale in zip(costs, _SCALES, strict=True))
        return Rates(*rates, few=max(costs[0] * part, 0.0))


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds of reading the weights for one step, and of computing for one more of what it holds. What a fit gives
    below zero costs nothing."""

    step: float
    prefill: float
    decode: float
    read: float
    attend: float
    few: float | None = None
    """`step`, where rows are few; None: the same."""

    def reading(self, rows: float) -> float:
        """Seconds of reading the weights for a step of so many rows."""
        return self.few if rows <= FEW_ROWS and self.few is not None else self.step

    def seconds(self, work: Work) -> float:
        """How long steps take that hold so much together, and each as much as any other; unlike ones take longer."""
        return math.hypot(self.reading(work.rows) * work.steps, self.computing(work))

    def computing(self, work: Work) -> float:
        """Seconds of computing in steps that hold so much."""
        return (
            self.prefill * work.prefill_tokens
            + self.decode * work.decode_rows
            + self.read * work.kv_tokens
            + self.attend * work.attended
        )

    def room(self, seconds: float, *, row: float | None = None) -> float:
        """Seconds of computing in a step that is to take so many, for rows of which each takes `row` at least; none
        where reading the weights alone takes longer."""
        least = min(self.prefill, self.decode) if row is None else row
        few = min(_leg(seconds, self.reading(1)), FEW_ROWS * least)
        return max(_leg(seconds, self.step), few)

    def prefilling(self, tokens: float, before: float) -> float:
        """Seconds of computing to prefill tokens after `before` others: they attend to these and to one another."""
        return tokens * (self.prefill + self.attend * (before + tokens / 2))

    def row(self, length: float) -> float:
        """What one more decode row of so many tokens adds to a step's computing."""
        return self.decode + self.attend * length


def _leg(longest: float, other: float) -> float:
    """Of a right-angled triangle; 0 where there is none."""
    return math.sqrt(max(longest * longest - other * other, 0.0))


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
