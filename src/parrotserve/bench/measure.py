"""Measuring: every side runs every case, round after round, so that changes of the machine's speed affect all alike.

A trial is one run of a case on a side. A series is all trials of a case on a side, with one delay.
"""

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import cast

from parrotserve.bench.circumstances import now, source_version
from parrotserve.bench.sides import Side
from parrotserve.bench.texts import CountsTokens, Texts
from parrotserve.bench.workload import (
    Application,
    Call,
    Case,
    Figures,
    Outcome,
    Workload,
    check,
    figures,
    open_at_once,
)
from parrotserve.errors import ParrotError

_HOPELESS = 3.0
"""A side whose latency exceeds this many times the workload's bound is not tried at higher rates."""
_FIRST_SECONDS = 60.0
"""Expected duration of a trial before any was made."""
_MARGIN = 1.25
"""Expected duration of a trial, relative to that of the last one."""
_OVERDUE = "not done within"
"""Beginning of the errors of trials that took too long."""
_WARM_CALLS, _WARM_PROMPT, _WARM_OUTPUT = 8, 192, 16
"""The warm-up: number of parallel calls, and tokens of their prompts and outputs."""


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
    sitting: str = ""
    """Name of this run. It makes the run draw other text than earlier ones, which a running peer may have cached."""
    trial_seconds: float = 900.0
    """A trial that takes longer has failed."""


@dataclass(slots=True)
class Series:
    """One side on one case: the figures of every round, by its number from 0."""

    case: Case
    side: Side
    delay: float
    rounds: dict[int, Figures] = field(default_factory=dict[int, Figures])
    errors: dict[int, str] = field(default_factory=dict[int, str])
    """Errors of failed trials, by round; removed when a repeated trial succeeds."""
    made: dict[int, dict[str, str]] = field(default_factory=dict[int, dict[str, str]])
    """By round: the trial's date, the version of the source, and what its side tells of the server."""
    took: float | None = None
    """Seconds of the last trial, including the start and end of its service."""

    def of(self, figure: str) -> list[float]:
        """One figure in every round that has it."""
        return [found[figure] for found in self.rounds.values() if figure in found]

    def tried(self, number: int) -> bool:
        """Whether a round was measured, or took too long; trials that failed otherwise may succeed another time."""
        return number in self.rounds or self.errors.get(number, "").startswith(_OVERDUE)


Told = Callable[[str], None]
"""Receives lines about trials, for people who watch."""


def series_of(plan: Plan) -> list[Series]:
    """The series of a plan, with nothing measured yet."""
    return [Series(case, side, delay) for case in plan.cases for delay in plan.delays for side in plan.sides]


async def measure(
    plan: Plan,
    found: Sequence[Series],
    tokenizer: CountsTokens,
    told: Told,
    *,
    keep: Callable[[], None] = lambda: None,
    until: float = math.inf,
) -> bool:
    """Measures the trials of `found` that are not measured yet, round after round. After every trial, `told` is given a
    line, and `keep` is called. Returns False if trials are left that would not have ended by `until`, a time of
    `time.perf_counter`."""
    begun = False
    for number in range(plan.rounds):
        for series in _in_turn(found, number):
            if series.tried(number) or _hopeless(series, found, plan.workload):
                continue
            if begun and time.perf_counter() + _expected(series, found) > until:
                return False
            begun = True
            await _measure_one(plan, series, number, tokenizer, told)
            keep()
    return True


def _in_turn(found: Sequence[Series], number: int) -> Iterator[Series]:
    """The series case by case, each round starting with another side, as every trial may affect the next one."""
    for _, alike in groupby(found, key=lambda series: (series.case.name, series.delay)):
        sides = list(alike)
        first = number % len(sides)
        yield from (*sides[first:], *sides[:first])


async def _measure_one(plan: Plan, series: Series, number: int, tokenizer: CountsTokens, told: Told) -> None:
    name = f"round {number + 1}, {_name(plan, series)}"
    began = time.perf_counter()
    series.made[number] = {"date": now(), "source": await asyncio.to_thread(source_version)}
    outcome = await _trial(plan, series, number, tokenizer)
    series.took = time.perf_counter() - began
    if isinstance(outcome, str):
        series.errors[number] = outcome
        told(f"{name}: {outcome}")
        return
    series.errors.pop(number, None)
    series.rounds[number] = outcome
    shown = ", ".join(f"{figure} {outcome[figure]:.3f} s" for figure in plan.workload.headline if figure in outcome)
    told(f"{name}: {shown} ({series.took:.0f} s)")


def _expected(series: Series, found: Sequence[Series]) -> float:
    """Seconds that a trial is expected to take: somewhat more than the side's last trial on this case or, if there is
    none, than the longest of the other sides' last trials."""
    others = [other.took for other in found if other.case is series.case and other.took is not None]
    return _MARGIN * (series.took or max(others, default=_FIRST_SECONDS))


async def _trial(plan: Plan, series: Series, number: int, tokenizer: CountsTokens) -> Figures | str:
    """Make one trial. Returns its figures, or the error message.

    Lengths and arrivals are the same for all sides of a round; the text differs, so that no cache has it.
    """
    chance = random.Random(f"{plan.seed} {series.case.name} {number}")
    which = f"{series.case.name} {number} {series.side.name} {series.delay}"
    texts = Texts(tokenizer, f"{plan.seed} {plan.sitting} {which}")
    applications = series.case.build(texts, chance)
    check(applications)
    try:
        async with asyncio.timeout(plan.trial_seconds):
            outcomes = await _run(plan.workload, applications, _warm_up(texts), series, series.made[number])
    except TimeoutError:
        return f"{_OVERDUE} {plan.trial_seconds:g} s"
    except ParrotError as error:
        return error.message
    except ExceptionGroup as group:
        refused, bugs = group.split(ParrotError)
        if bugs is not None:
            raise bugs from group
        return "; ".join(dict.fromkeys(map(str, _leaves(refused))))
    counted = [outcome for outcome in outcomes if plan.workload.counts(outcome.application)]
    return {**figures(counted), **(open_at_once(outcomes, counted) if plan.workload.bound is not None else {})}


async def _run(
    workload: Workload,
    applications: Sequence[Application],
    warm_up: Application,
    series: Series,
    made: dict[str, str],
) -> list[Outcome]:
    """The outcome of every application. Those that do not count are cut off as soon as those that count are done. Adds
    to `made` what the side tells of its server."""
    taken = [application for each in applications if (application := series.side.takes(each)) is not None]
    async with series.side.serving(series.delay, series.case.service) as run:
        made |= await series.side.served_by(series.case.service)
        await run(warm_up)
        began = time.perf_counter()

        async def one(application: Application) -> float:
            await asyncio.sleep(began + application.arrival - time.perf_counter())
            await run(application)
            return time.perf_counter() - began

        async with asyncio.TaskGroup() as group:
            tasks = [(application, group.create_task(one(application))) for application in taken]
            for application, task in tasks:
                if workload.counts(application):
                    await task
            outcomes = [Outcome(application, task.result() if task.done() else math.inf) for application, task in tasks]
            for _, task in tasks:
                task.cancel()
    return outcomes


def _warm_up(texts: Texts) -> Application:
    """The application that every service runs before its trial, so that its first steps are not measured."""
    calls = [
        Call(f"hello{number}", (texts.take(_WARM_PROMPT), "\nAnswer:"), _WARM_OUTPUT) for number in range(_WARM_CALLS)
    ]
    return Application(kind="warm-up", calls=tuple(calls), results=tuple(call.name for call in calls))


def _leaves(error: object) -> Iterator[object]:
    """The errors of nested groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("tuple[object, ...]", error.exceptions):
            yield from _leaves(inner)
    elif error is not None:
        yield error


def _hopeless(series: Series, found: Sequence[Series], workload: Workload) -> bool:
    """Whether the side failed, or was far beyond the bound, at a lower rate."""
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


def failed(found: Sequence[Series]) -> list[str]:
    """The names of sides all of whose trials failed."""
    names = dict.fromkeys(series.side.name for series in found if series.errors)
    return [name for name in names if not any(series.rounds for series in found if series.side.name == name)]


def _name(plan: Plan, series: Series) -> str:
    return f"{plan.workload.name}, {series.case.name}, {series.delay * 1000:.0f} ms, {series.side.name}"
