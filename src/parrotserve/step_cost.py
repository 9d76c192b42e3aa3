"""What a step of an engine costs, learned from the steps that it has made: engines and the scheduler go by it.

A step reads the weights, and it computes: some seconds for each prompt token (`prefill`), decode row (`decode`), token
of KV that is read (`read`; tokens that sequences share count once) and pair of a row and a token that it attends to
(`attend`). Reading and computing overlap partly: a step takes the square root of the sum of their squares. That is
between the roofline model, which takes the longer one (S. Williams et al., 2009), and their sum; fitted with the sum,
SmolLM2 on two cores of a Zen 4 is predicted to decode a row alone 17 % faster than it does (ADR 011). Steps of few rows
may read the weights in a shorter form (ADR 019): the fraction of the reading time that this takes is a coefficient.

The coefficients are fitted by an extended Kalman filter (R. E. Kalman, 1960): recursive least squares around the
current estimate. Its memory fades, because every observation adds a little process noise to the coefficients; so it
neither forgets coefficients that it does not observe nor diverges. It works on their logarithms: all of them are
positive, and at first only their orders of magnitude are known. Errors are relative to a step's time, so that long
steps do not outweigh short ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

FEW_ROWS = 7
"""Most rows of a step that counts as one of few rows. Engines sum up steps by the number of binary digits of their
rows, so that no sum mixes steps of few rows with others."""
_PRIOR = (0.003, 0.0005, 0.0008, 1e-7, 1.5e-7, 1.0)
"""The coefficients before any step was measured, in seconds: a small model on a laptop. The last one is a ratio: the
part of the reading time that steps of few rows take."""
_COMMON_VARIANCE = 2.0
"""Variance of the logarithm of the factor by which everything is slower or faster than the prior: a factor of four is
not unusual."""
_OWN_VARIANCES = (1.0, 1.0, 1.0, 0.3, 1.0, 0.2)
"""Variances of the logarithms of the factors by which each coefficient differs besides. The last one does not share the
common factor."""
_DRIFTS = (0.0004, 0.0004, 0.0004, 0.0004, 0.0004, 0.0)
"""Process noise: what variances grow by with each observation. Coefficients drift by two percent."""
_NOISE = 0.01
"""Variance of a step's relative error."""
_SHORTEST = 1e-6
"""Seconds; shorter measurements are ignored."""
_LEAST_PART = 0.03
"""Least part of an error that is attributed to reading and to computing each, even if one of them seems to take no
time: that estimate may be wrong."""
_LEAST, _MOST = math.log(1e-18), math.log(1e3)
"""Bounds of the logarithms, whatever is observed."""
_FARTHEST = 3.0
"""Standard deviations at which an observation's error is clipped: the time of a step that was held up says nothing
about what it held."""


def _prior_variance() -> list[list[float]]:
    last = len(_PRIOR) - 1
    return [
        [_COMMON_VARIANCE * (last not in (row, column)) + own * (row == column) for column in range(len(_PRIOR))]
        for row, own in enumerate(_OWN_VARIANCES)
    ]


_PRIOR_VARIANCE = _prior_variance()
"""Initial covariance; the variance of a coefficient never grows above its initial one."""


class Work(NamedTuple):
    """What some steps held, summed. The steps should be alike: a sum of unlike ones says little about each of them."""

    steps: float = 0.0
    prefill_tokens: float = 0.0
    decode_rows: float = 0.0
    kv_tokens: float = 0.0
    attended: float = 0.0

    @property
    def rows(self) -> float:
        """Rows of one step, on average."""
        return (self.prefill_tokens + self.decode_rows) / self.steps if self.steps else 0.0


class StepCost:
    """The fitted costs of one engine."""

    __slots__ = ("_logs", "_variance", "observed", "rates")

    def __init__(self, prior: "StepCost | None" = None) -> None:
        """`prior`: the costs of an engine of the same kind, as a first guess."""
        self._logs = [math.log(cost) for cost in _PRIOR] if prior is None else list(prior._logs)
        self._variance = [list(row) for row in _PRIOR_VARIANCE]
        self.observed = 0
        """Number of observations so far."""
        self.rates = self._rates()
        """The current estimates."""

    def observe(self, work: Work, seconds: float) -> None:
        """Update the estimates: steps that held `work` in sum took `seconds` in sum."""
        if seconds < _SHORTEST or work.steps <= 0.0:
            return
        self.observed += 1
        expected, slopes = self._expected(work)
        spread = [_dot(row, slopes) for row in self._variance]
        uncertainty = _dot(slopes, spread) + _NOISE
        gain = [value / uncertainty for value in spread]
        most = _FARTHEST * math.sqrt(uncertainty)
        error = min(max(math.log(seconds / expected), -most), most)
        self._logs = [min(max(log + step * error, _LEAST), _MOST) for log, step in zip(self._logs, gain, strict=True)]
        for row, step in enumerate(gain):
            self._variance[row] = [
                value - step * other for value, other in zip(self._variance[row], spread, strict=True)
            ]
            self._variance[row][row] = min(self._variance[row][row] + _DRIFTS[row], _PRIOR_VARIANCE[row][row])
        self.rates = self._rates()

    def _expected(self, work: Work) -> tuple[float, list[float]]:
        """Predicted seconds for the work, and the derivatives of their logarithm by that of each coefficient."""
        *costs, part = map(math.exp, self._logs)
        few = work.rows <= FEW_ROWS
        memory, *computed = (cost * amount for cost, amount in zip(costs, work, strict=True))
        memory *= part if few else 1.0
        computing = sum(computed)
        seconds = math.hypot(memory, computing)
        of_memory, of_computing = (max((one / seconds) ** 2, _LEAST_PART) for one in (memory, computing))
        slopes = [of_computing * one / computing if computing else 0.0 for one in computed]
        return seconds, [of_memory, *slopes, of_memory * few]

    def _rates(self) -> "Rates":
        *costs, part = map(math.exp, self._logs)
        return Rates(*costs, few=costs[0] * part)


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds to read the weights for one step, and to compute for each unit of what it holds (see `Work`)."""

    step: float
    prefill: float
    decode: float
    read: float
    attend: float
    few: float | None = None
    """Replaces `step` in steps of few rows; None: the same."""

    def reading(self, rows: float) -> float:
        """Seconds to read the weights in a step of this many rows."""
        return self.few if rows <= FEW_ROWS and self.few is not None else self.step

    def seconds(self, work: Work) -> float:
        """Seconds that steps take which hold `work` in sum, each of them the same amount; unlike steps take longer."""
        return math.hypot(self.reading(work.rows) * work.steps, self.computing(work))

    def computing(self, work: Work) -> float:
        """Seconds of computing in steps that hold `work` in sum."""
        return (
            self.prefill * work.prefill_tokens
            + self.decode * work.decode_rows
            + self.read * work.kv_tokens
            + self.attend * work.attended
        )

    def room(self, seconds: float, *, row: float | None = None) -> float:
        """Seconds that a step can compute while it takes no more than `seconds`; 0 if reading the weights alone takes
        longer. `row` is the least time that one row computes; it bounds how much a step of few rows can use."""
        least = min(self.prefill, self.decode) if row is None else row
        few = min(_leg(seconds, self.reading(1)), FEW_ROWS * least)
        return max(_leg(seconds, self.step), few)

    def prefilling(self, tokens: float, before: float) -> float:
        """Seconds of computing to prefill `tokens` after `before` others: they attend to those and to each other."""
        return tokens * (self.prefill + self.attend * (before + tokens / 2))

    def row(self, length: float) -> float:
        """Seconds of computing that a decode row of a sequence of `length` tokens adds to a step."""
        return self.decode + self.attend * length


def _leg(longest: float, other: float) -> float:
    """The second leg of a right triangle with this hypotenuse and leg; 0 if the leg is longer."""
    return math.sqrt(max(longest * longest - other * other, 0.0))


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
