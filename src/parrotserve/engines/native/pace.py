"""How long a step takes, learned as steps run, and how long it may take: the TPOT bound of latency-sensitive work."""

import math

from parrotserve.bounds import LATER_PROMPTS, Bounds
from parrotserve.engines.native.timing import StepShape
from parrotserve.step_cost import FEW_ROWS, Rates, StepCost, Work

_FIRST_STEPS = 8
"""No bound is derived from fewer steps than these."""
_NEARLY_ALONE = 2
"""Rows. Steps of at most so many tell how long a step of one row takes."""
_ALONE_KEPT = 0.8
"""How much of what such steps told counts still after one more of them."""
_ALONE_MODEL = 0.5
"""For how many of them the model itself counts."""
_TRIED_EVERY = 16
"""After so many steps without one of few rows, what such a step takes is guessed rather than known."""
_HARDLY_NOTICED = 10.0
"""A step that computes so many times as long as it reads the weights takes half a percent longer for reading them."""
_MOST_ALIKE = 32
"""Steps of one shape are learned from as one sum: at most so many, and while nobody asks what they teach."""


class StepModel:
    """The engine's own `StepCost`. Learning from a step that is like the one before it takes next to no time."""

    def __init__(self) -> None:
        self.steps = 0
        self._cost = StepCost()
        self._alike = Work()
        """Sum of the latest steps, all of one shape, from which `_cost` has not learned yet."""
        self._seconds = 0.0
        """What they took."""
        self._rows = (0, 0)
        """Prefill and decode rows of each of them."""
        self.since_few = 0
        """Steps since the last one of few rows."""
        self._alone = Work()
        """What steps of one or two rows held lately, the latest ones most."""
        self._alone_seconds = 0.0
        """How long they took together."""

    def learn(self, step: StepShape, seconds: float) -> None:
        """A step of this shape took so long."""
        self.steps += 1
        rows = step.prefill_tokens, step.decode_rows
        if rows != self._rows or self._alike.steps >= _MOST_ALIKE:
            self._note_alone(step, seconds)
            self._fit()
        self._rows = rows
        self.since_few = self.since_few + 1 if sum(rows) > FEW_ROWS else 0
        self._alike = Work(*(so_far + more for so_far, more in zip(self._alike, _work(step), strict=True)))
        self._seconds += seconds

    def _note_alone(self, step: StepShape, seconds: float) -> None:
        if not step.prefill_tokens and step.decode_rows <= _NEARLY_ALONE:
            pairs = zip(self._alone, _work(step), strict=True)
            self._alone = Work(*(_ALONE_KEPT * so_far + more for so_far, more in pairs))
            self._alone_seconds = _ALONE_KEPT * self._alone_seconds + seconds

    def seconds(self, step: StepShape) -> float:
        """How long a step of this shape is expected to take."""
        return self.rates().seconds(_work(step))

    @property
    def alone(self) -> float:
        """Seconds that one sequence alone takes for a token: what the model expects, which full steps tell only
        roughly, corrected by what such steps took lately."""
        rates = self.rates()
        one = rates.seconds(_work(StepShape(decode_rows=1)))
        took, expected = self._alone_seconds + _ALONE_MODEL * one, rates.seconds(self._alone) + _ALONE_MODEL * one
        return one * took / expected if expected else one

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
        """Seconds that a step may take; infinite where there is no bound, or nothing is known yet."""
        if not self._adapt:
            return math.inf
        alone = self.model.alone
        known = self._bounds.tpot is not None or (self.model.steps >= _FIRST_STEPS and alone > 0.0)
        return self._bounds.step(alone) if known else math.inf

    @property
    def knows(self) -> bool:
        """Whether steps are to be kept short, and enough of them were seen to know how."""
        return self._adapt and self.model.steps >= _FIRST_STEPS

    def room(self, decoding: float) -> float:
        """Seconds that prompts of later work may compute in a step whose decode rows compute for `decoding` seconds;
        infinite where nothing is known yet."""
        rates = self.model.rates()
        return rates.room(LATER_PROMPTS * math.hypot(rates.step, decoding)) - decoding if self.knows else math.inf

    def is_to_try(self, rows: int) -> bool:
        """Whether a step of these `rows` alone is due, to measure again how fast the engine is without others' rows:
        the bound is a multiple of that, and full steps do not tell it."""
        return self._adapt and rows <= FEW_ROWS and self.model.since_few >= _TRIED_EVERY

    @property
    def efficient_prefill(self) -> float:
        """Seconds of computing in a step beside which reading the weights for it is hardly noticed; infinite where
        nothing is known yet."""
        return _HARDLY_NOTICED * self.model.rates().step if self.knows else math.inf

    def left(self, step: StepShape) -> float:
        """Seconds of computing that the bound leaves beside a step of this shape; below zero if that alone takes longer
        than the bound."""
        rates = self.model.rates()
        return rates.room(self.bound) - rates.computing(_work(step))

    def learn(self, step: StepShape, seconds: float) -> None:
        """A step of this shape took so long. It is learned without a bound, too: drafts go by what rows cost."""
        self.model.learn(step, seconds)


def _work(step: StepShape) -> Work:
    """KV that is read is not told apart from KV that is attended to: the next step shares as much of it."""
    return Work(1, step.prefill_tokens, step.decode_rows, 0, step.attended)
