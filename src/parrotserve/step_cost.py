"""What a step of an engine costs, learned from the steps that it has made: engines and the scheduler go by it.

A step reads the weights, and it computes: some seconds for each prompt token (`prefill`), decode row (`decode`), token
of KV that is read (`read`; what sequences share counts once) and pair of a row and a token that it attends to
(`attend`). The two overlap, though not wholly: a step takes the square root of the sum of their squares. That is
between the roofline, which takes the longer one (S. Williams et al., 2009), and their sum, by which SmolLM2 on two
cores of a Zen 4 would decode a row alone 17 % faster than it does (ADR 011). Steps of few rows may read the weights in
a shorter form (ADR 019): what part of the reading time that takes is a coefficient of its own.

The coefficients are fitted by an extended Kalman filter (R. E. Kalman, 1960): recursive least squares around what is
believed so far, whose memory fades because every observation adds a little noise to the coefficients. So it neither
forgets what it does not see nor blows up. It works on their logarithms: all of them are above zero, and at first only
their orders of magnitude are known. Errors count relative to a step's time, so that long steps do not drown short ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

FEW_ROWS = 7
"""A step of at most so many rows has few. Sums of steps are told apart by the binary digits of their rows, so that none
mixes steps of few rows with others."""
_PRIOR = (0.003, 0.0005, 0.0008, 1e-7, 1.5e-7, 1.0)
"""The coefficients, in seconds, until steps were measured: a small model on a laptop. The last one is no time, but what
part of the reading time steps of few rows take."""
_COMMON_VARIANCE = 2.0
"""Variance of the logarithm of how much slower or faster everything is than the prior: a factor of four is nothing
unusual."""
_OWN_VARIANCES = (1.0, 1.0, 1.0, 0.3, 1.0, 0.2)
"""Variances of the logarithms of how much each coefficient differs beside that. The last one has nothing in common with
the others."""
_DRIFTS = (0.0004, 0.0004, 0.0004, 0.0004, 0.0004, 0.0)
"""By how much variances grow from one observation to the next: coefficients wander by two percent."""
_NOISE = 0.01
"""Variance of a step's relative error."""
_SHORTEST = 1e-6
"""Seconds. What took less was not measured."""
_LEAST_PART = 0.03
"""Memory and computing are each given at least this part of an error, though one of them seems to take no time: what is
believed of it may be wrong."""
_LEAST, _MOST = math.log(1e-18), math.log(1e3)
"""Between these the logarithms stay, whatever is observed."""
_FARTHEST = 3.0
"""Standard deviations: an observation that is farther off is taken to be off by so much. A step that was held up tells
nothing of what it held."""


def _prior_variance() -> list[list[float]]:
    last = len(_PRIOR) - 1
    return [
        [_COMMON_VARIANCE * (last not in (row, column)) + own * (row == column) for column in range(len(_PRIOR))]
        for row, own in enumerate(_OWN_VARIANCES)
    ]


_PRIOR_VARIANCE = _prior_variance()
"""The filter is never less certain of a coefficient than at first."""


class Work(NamedTuple):
    """What steps held, summed. Only like steps should be: a sum of unlike ones tells little of what each of them
    takes."""

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
        """`prior`: an engine of the same kind, as a first guess."""
        self._logs = [math.log(cost) for cost in _PRIOR] if prior is None else list(prior._logs)
        self._variance = [list(row) for row in _PRIOR_VARIANCE]
        self.observed = 0
        """How many observations it has seen."""
        self.rates = self._rates()
        """The costs, each by itself."""

    def observe(self, work: Work, seconds: float) -> None:
        """Steps that held `work` together took so many seconds."""
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
        """Seconds for such work, and the derivative of their logarithm by that of each coefficient."""
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
    """Seconds of reading the weights for one step, and of computing for one more of what it holds."""

    step: float
    prefill: float
    decode: float
    read: float
    attend: float
    few: float | None = None
    """Instead of `step`, for steps of few rows; None: the same."""

    def reading(self, rows: float) -> float:
        """Seconds of reading the weights for a step of so many rows."""
        return self.few if rows <= FEW_ROWS and self.few is not None else self.step

    def seconds(self, work: Work) -> float:
        """How long steps take that hold `work` together, each of them as much as any other; unlike steps take
        longer."""
        return math.hypot(self.reading(work.rows) * work.steps, self.computing(work))

    def computing(self, work: Work) -> float:
        """Seconds of computing in steps that hold `work` together."""
        return (
            self.prefill * work.prefill_tokens
            + self.decode * work.decode_rows
            + self.read * work.kv_tokens
            + self.attend * work.attended
        )

    def room(self, seconds: float, *, row: float | None = None) -> float:
        """How many seconds a step can compute and still take no more than `seconds`; 0 where reading the weights alone
        takes longer. Each of its rows computes for `row` seconds at least, which bounds how much few rows can use."""
        least = min(self.prefill, self.decode) if row is None else row
        few = min(_leg(seconds, self.reading(1)), FEW_ROWS * least)
        return max(_leg(seconds, self.step), few)

    def prefilling(self, tokens: float, before: float) -> float:
        """Seconds of computing to prefill `tokens` after `before` others: they attend to those and to one another."""
        return tokens * (self.prefill + self.attend * (before + tokens / 2))

    def row(self, length: float) -> float:
        """Seconds of computing that one more decode row, of a sequence of `length` tokens, adds to a step."""
        return self.decode + self.attend * length


def _leg(longest: float, other: float) -> float:
    """The other leg of a right-angled triangle with this longest side; 0 where there is none."""
    return math.sqrt(max(longest * longest - other * other, 0.0))


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
