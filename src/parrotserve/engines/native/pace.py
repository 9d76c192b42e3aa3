"""How long steps may take: a model of their time, fitted as they run, and the bound that it is held against."""

import math

from parrotserve.bounds import LATER_PROMPTS, Bounds
from parrotserve.engines.native.timing import StepShape
from parrotserve.step_cost import FEW_ROWS, Rates, StepCost, Work

_FIRST_STEPS = 8
"""Before these, no bound is derived."""
_NEARLY_ALONE = 2
"""Rows: what a step of so many takes is told by one of one row."""
_OFF_GAIN = 0.2
"""How far the latest of such steps moves what is thought of them."""
_TRIED_EVERY = 16
"""Steps after which, if none had few rows, what such a step takes is guessed rather than known."""
_HARDLY_NOTICED = 10.0
"""Times as long as a step reads: so long it computes, and takes half a percent longer than that."""
_MOST_ALIKE = 32
"""Steps that are learned from as one, where they held as many rows of each kind and nobody asks what they teach."""


class StepModel:
    """The engine's own `StepCost`, which costs a step that is like the one before it next to nothing."""

    def __init__(self) -> None:
        self.steps = 0
        self._cost = StepCost()
        self._alike = Work()
        """Steps that the rest does not know of yet, summed; the last one had so many rows of each kind."""
        self._rows = (0, 0)
        self._seconds = 0.0
        self.since_few = 0
        """Steps since the last one of few rows."""
        self._off = 1.0
        """What steps of one or two rows took lately, as a part of what is expected of them."""

    def learn(self, step: StepShape, seconds: float) -> None:
        """A step with this took so long."""
        self.steps += 1
        rows = step.prefill_tokens, step.decode_rows
        if rows != self._rows or self._alike.steps >= _MOST_ALIKE:
            self._compare(step, seconds)
            self._fit()
        self._rows = rows
        self.since_few = self.since_few + 1 if sum(rows) > FEW_ROWS else 0
        self._alike = Work(*(so_far + more for so_far, more in zip(self._alike, _work(step), strict=True)))
        self._seconds += seconds

    def _compare(self, step: StepShape, seconds: float) -> None:
        if not step.prefill_tokens and step.decode_rows <= _NEARLY_ALONE and (expected := self.seconds(step)) > 0.0:
            self._off += _OFF_GAIN * (seconds / expected - self._off)

    def seconds(self, step: StepShape) -> float:
        """How long a step with this is expected to take."""
        return self.rates().seconds(_work(step))

    @property
    def alone(self) -> float:
        """Seconds that one sequence alone takes for a token, as measured: full steps tell that only roughly."""
        return self._off * self.seconds(StepShape(decode_rows=1))

    def rates(self) -> Rates:
        """What a step costs, and what it holds."""
        self._fit()
        return self._cost.rates

    def _fit(self) -> None:
        self._cost.observe(self._alike, self._seconds)
        self._alike, self._seconds = Work(), 0.0


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
        alone = self.model.alone
        known = self._bounds.tpot is not None or (self.model.steps >= _FIRST_STEPS and alone > 0.0)
        return self._bounds.step(alone) if known else math.inf

    @property
    def knows(self) -> bool:
        """Whether it is to decide anything, and has seen enough steps for that."""
        return self._adapt and self.model.steps >= _FIRST_STEPS

    def room(self, decoding: float) -> float:
        """Seconds of computing for prompts of later work in a step that has so many for what decodes; infinite where
        nothing is known yet."""
        rates = self.model.rates()
        return rates.room(LATER_PROMPTS * math.hypot(rates.step, decoding)) - decoding if self.knows else math.inf

    def is_to_try(self, rows: int) -> bool:
        """Whether a step of these rows alone is to show again how fast the engine is without others' rows: the bound
        goes by that, and full steps do not tell."""
        return self._adapt and rows <= FEW_ROWS and self.model.since_few >= _TRIED_EVERY

    @property
    def least_prompt(self) -> float:
        """Seconds of computing beside which reading the weights for a step is hardly noticed; infinite where nothing is
        known yet."""
        return _HARDLY_NOTICED * self.model.rates().step if self.knows else math.inf

    def left(self, step: StepShape) -> float:
        """Seconds of computing that the bound leaves to others beside this; below zero if it takes longer alone."""
        rates = self.model.rates()
        return rates.room(self.bound) - rates.computing(_work(step))

    def learn(self, step: StepShape, seconds: float) -> None:
        """A step with this took so long. Without a bound, too: drafts go by what rows cost."""
        self.model.learn(step, seconds)


def _work(step: StepShape) -> Work:
    """What is read of the KV is not told apart from what is attended to: the next step shares as much."""
    return Work(1, step.prefill_tokens, step.decode_rows, 0, step.attended)
