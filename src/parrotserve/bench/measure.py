"""Measuring: every side runs every case of a workload, round after round, so that the machine's moods hit all alike."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

from parrotserve.bench.sides import Side
from parrotserve.bench.texts import CountsTokens, Texts
from parrotserve.bench.workload import Application, Case, Figures, Outcome, Workload, check, figures
from parrotserve.errors import ParrotError

_HOPELESS = 3.0
"""Times the bound of a workload: higher rates are not tried on a side that is over it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and how often."""

    workload: Workload
    cases: Sequence[Case]
    sides: Sequence[Side]
    delays: Sequence[float]
    """Seconds added to every HTTP exchange."""
    rounds: int
    seed: int
    trial_seconds: float = 900.0
    """A trial that takes longer has failed."""


@dataclass(slots=True)
class Series:
    """One side on one case: the figures of every round."""

    case: Case
    side: Side
    delay: float
    rounds: list[Figures] = field(default_factory=list["Figures"])
    errors: list[str] = field(default_factory=list[str])
    """Why trials failed."""

    def of(self, figure: str) -> list[float]:
        """One figure in every round that has it."""
        return [found[figure] for found in self.rounds if figure in found]


Told = Callable[[str], None]


async def measure(plan: Plan, tokenizer: CountsTokens, told: Told) -> list[Series]:
    """Runs the plan; `told` hears of every trial."""
    found = [Series(case, side, delay) for case in plan.cases for delay in plan.delays for side in plan.sides]
    for number in range(plan.rounds):
        for series in found:
            if _hopeless(series, found, plan.workload):
                continue
            outcome = await _trial(plan, series, number, tokenizer)
            if isinstance(outcome, str):
                series.errors.append(outcome)
                told(f"{_name(plan, series)}: {outcome}")
                continue
            series.rounds.append(outcome)
            shown = ", ".join(f"{name} {outcome[name]:.3f} s" for name in plan.workload.headline if name in outcome)
            told(f"round {number + 1}, {_name(plan, series)}: {shown}")
    return found


async def _trial(plan: Plan, series: Series, number: int, tokenizer: CountsTokens) -> Figures | str:
    """One side once on one case: its figures, or why there are none.

    Lengths and arrivals are the same for all sides of a round; the text is each side's own, so that no cache has it.
    """
    chance = random.Random(f"{plan.seed} {series.case.name} {number}")
    texts = Texts(tokenizer, f"{plan.seed} {series.case.name} {number} {series.side.name} {series.delay}")
    applications = series.case.build(texts, chance)
    check(applications)
    try:
        async with asyncio.timeout(plan.trial_seconds):
            outcomes = await _run(applications, series.side, series.delay)
    except TimeoutError:
        return f"not done within {plan.trial_seconds:g} s"
    except ParrotError as error:
        return error.message
    except ExceptionGroup as group:
        refused, bugs = group.split(ParrotError)
        if bugs is not None:
            raise bugs from group
        return "; ".join(dict.fromkeys(map(str, _leaves(refused))))
    return figures(outcomes, plan.workload.measured)


async def _run(applications: Sequence[Application], side: Side, delay: float) -> list[Outcome]:
    taken = [application for each in applications if (application := side.takes(each)) is not None]
    async with side.serving(delay) as run:
        began = time.perf_counter()

        async def one(application: Application) -> Outcome:
            await asyncio.sleep(began + application.arrival - time.perf_counter())
            await run(application)
            return Outcome(application, time.perf_counter() - began)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(application)) for application in taken]
    return [task.result() for task in tasks]


def _leaves(error: object) -> Iterator[object]:
    """The errors of nested groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("tuple[object, ...]", error.exceptions):
            yield from _leaves(inner)
    elif error is not None:
        yield error


def _hopeless(series: Series, found: Sequence[Series], workload: Workload) -> bool:
    """Whether the side cannot keep up with a lower rate already."""
    if workload.bound is None or series.case.rate is None:
        return False
    slower = [
        other
        for other in found
        if other.side is series.side and other.delay == series.delay and (other.case.rate or 0) < series.case.rate
    ]
    return any(
        other.errors or max(other.of("latency a token"), default=0) > _HOPELESS * workload.bound for other in slower
    )


def _name(plan: Plan, series: Series) -> str:
    return f"{plan.workload.name}, {series.case.name}, {series.delay * 1000:.0f} ms, {series.side.name}"
