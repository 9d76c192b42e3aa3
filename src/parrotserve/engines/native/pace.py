"""The time that steps take, learned as they run, and the time that they may take: the TPOT bound."""

import math

from parrotserve.bounds import LATER_PROMPTS, Bounds
from parrotserve.engines.native.timing import StepShape
from parrotserve.step_cost import FEW_ROWS, Rates, StepCost, Work

_FIRST_STEPS = 8
"""Number of steps that must be measured before a bound is derived."""
_NEARLY_ALONE = 2
"""Rows. Steps of at most this many show how long a step of one row takes."""
_ALONE_KEPT = 0.8
"""Factor by which the weight of earlier such steps decays with each further one."""
_ALONE_MODEL = 0.5
"""Weight of the model's own estimate, in numbers of such steps."""
_TRIED_EVERY = 16
"""After this many steps without one of few rows, the time of such a step is extrapolated rather than measured."""
_HARDLY_NOTICED = 10.0
"""Ratio of computing time to the time of reading the weights, at which reading them lengthens a step by only half a
percent."""
_MOST_ALIKE = 32
"""Most steps of one shape that are summed before the model learns from them; fewer if it is asked sooner."""


class StepModel:
    """The engine's own `StepCost`. Learning from a step of the same shape as the one before takes hardly any time."""

    def __init__(self) -> None:
        self.steps = 0
        self._cost = StepCost()
        self._alike = Work()
        """Sum of the latest steps, all of one shape, from which `_cost` has not learned yet."""
        self._seconds = 0.0
        """Total time of these steps."""
        self._rows = (0, 0)
        """Prefill and decode rows of each of these steps."""
        self.since_few = 0
        """Number of steps since the last one of few rows."""
        self._alone = Work()
        """Decaying sum of the contents of recent steps of one or two decode rows."""
        self._alone_seconds = 0.0
        """Decaying sum of their times."""

    def learn(self, step: StepShape, seconds: float) -> None:
        """Learns that a step of this shape took `seconds`."""
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
        """The time that a step of this shape is expected to take."""
        return self.rates().seconds(_work(step))

    @property
    def alone(self) -> float:
        """Seconds per token of one sequence that runs alone: the model's estimate, which full steps determine only
        roughly, corrected by the recent steps of one or two rows."""
        rates = self.rates()
        one = rates.seconds(_work(StepShape(decode_rows=1)))
        took, expected = self._alone_seconds + _ALONE_MODEL * one, rates.seconds(self._alone) + _ALONE_MODEL * one
        return one * took / expected if expected else one

    def rates(self) -> Rates:
        """The costs of a step and of its contents."""
        self._fit()
        return self._cost.rates

    def _fit(self) -> None:
        self._cost.observe(self._alike, self._seconds)
        self._alike, self._seconds = Work(), 0.0


class Pace:
    """The bound on the length of steps while latency-sensitive sequences decode: their TPOT bound."""

    def __init__(self, *, tpot: float | None = None, adapt: bool = True) -> None:
        """`tpot` is in seconds; None derives it from the measured speed of one sequence alone. Without `adapt` there is
        no bound."""
        self.model = StepModel()
        self._bounds = Bounds(tpot=tpot)
        self._adapt = adapt

    @property
    def bound(self) -> float:
        """Seconds that a step may take; infinite if there is no bound, or too few steps were measured."""
        if not self._adapt:
            return math.inf
        alone = self.model.alone
        known = self._bounds.tpot is not None or (self.model.steps >= _FIRST_STEPS and alone > 0.0)
        return self._bounds.step(alone) if known else math.inf

    @property
    def knows(self) -> bool:
        """Whether steps are to be kept short, and enough of them were measured to do so."""
        return self._adapt and self.model.steps >= _FIRST_STEPS

    def room(self, decoding: float) -> float:
        """Seconds that prompts of later work may compute in a step whose decode rows compute for `decoding` seconds;
        infinite if steps are not bounded, or too few were measured."""
        rates = self.model.rates()
        return rates.room(LATER_PROMPTS * math.hypot(rates.step, decoding)) - decoding if self.knows else math.inf

    def is_to_try(self, rows: int) -> bool:
        """Whether a step with only these `rows` is due, to measure the engine's speed without other rows again: the
        bound is a multiple of it, and full steps do not show it."""
        return self._adapt and rows <= FEW_ROWS and self.model.since_few >= _TRIED_EVERY

    @property
    def efficient_prefill(self) -> float:
        """Seconds of computing in a step beyond which reading the weights hardly adds to its time; infinite if steps
        are not bounded, or too few were measured."""
        return _HARDLY_NOTICED * self.model.rates().step if self.knows else math.inf

    def left(self, step: StepShape) -> float:
        """Seconds of computing that the bound leaves beside the contents of a step of this shape; negative if that
        alone takes longer than the bound."""
        rates = self.model.rates()
        return rates.room(self.bound) - rates.computing(_work(step))

    def learn(self, step: StepShape, seconds: float) -> None:
        """Learns that a step of this shape took `seconds`; without a bound too, since drafts depend on the cost of
        rows."""
        self.model.learn(step, seconds)


def _work(step: StepShape) -> Work:
    """The work of one step. KV tokens that are read are left out, and counted as attended: consecutive steps share
    about as much of the KV."""
    return Work(1, step.prefill_tokens, step.decode_rows, 0, step.attended)
