"""Reports of measurements: as tables for people, and as a picture."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from rich.table import Table

from parrotserve.bench.measure import Plan, Series
from parrotserve.bench.sides import REFERENCE
from parrotserve.bench.workload import OPEN_FIRST, OPEN_SECOND, Case, Workload

T = TypeVar("T")

_GROWTH, _CHANCE = 1.25, 2.0
"""A queue counts as growing if more is open in the second half of the arrivals than `_GROWTH` times what was open in
the first, plus `_CHANCE`. Some growth is normal: a service fills up until its longest requests end, and random arrivals
are uneven.
"""


def tables(plan: Plan, found: Sequence[Series]) -> Iterator[Table]:
    """Tables of medians with ranges and ratios to the reference side, and of the sustained rates."""
    table = Table(title=f"{plan.workload.name}: {plan.workload.about}", title_justify="left")
    for column in ("case", "round trip", "side"):
        table.add_column(column)
    for name in plan.workload.headline:
        table.add_column(f"{name}, s", justify="right")
        table.add_column("over on", justify="right")
    for series in found:
        cells = [series.case.name, f"{series.delay * 1000:.0f} ms", series.side.name]
        for name in plan.workload.headline:
            cells += [_spread(series.of(name)) or _failed(series), ratio(series, found, name)]
        table.add_row(*cells, end_section=series.side is plan.sides[-1])
    yield table
    rates = sustained(plan.workload, found)
    if rates:
        table = Table(
            title=f"Sustained requests a second: up to {plan.workload.bound} s a token, and no queue that grows",
            title_justify="left",
        )
        for column in ("round trip", "side", "requests/s"):
            table.add_column(column, justify="left" if column == "side" else "right")
        for (side, delay), rate in rates.items():
            table.add_row(f"{delay * 1000:.0f} ms", side, f"{rate:.2f}")
        yield table


def ratio(series: Series, found: Sequence[Series], figure: str) -> str:
    """Ratio of a figure to the reference side's on the same case; empty if there is nothing to compare."""
    reference = reference_of(series, found, place=lambda one: (one.case.name, one.delay, one.side.name))
    return times_as_long(series.of(figure), reference.of(figure) if reference is not None else [])


def reference_of(result: T, found: Sequence[T], *, place: Callable[[T], tuple[str, float, str]]) -> T | None:
    """The reference side's result for the same case and delay; None if there is none, or `result` is that. `place`
    gives a result's case, its delay in seconds and its side."""
    case, delay, _ = place(result)
    return next((one for one in found if one is not result and place(one) == (case, delay, REFERENCE)), None)


def times_as_long(mine: Sequence[float], reference: Sequence[float]) -> str:
    """Ratio of two medians; empty if one of them is not known."""
    return f"{median(mine) / median(reference):.2f}x" if mine and reference else ""


def sustained(workload: Workload, found: Sequence[Series]) -> dict[tuple[str, float], float]:
    """By side and delay: the highest rate, in requests per second, that the side sustains.

    It sustains a rate if the mean latency per output token is within the workload's bound, and the number of open
    requests does not grow. Both are interpolated linearly between measured rates; the result is the rate at which the
    first of them exceeds its bound. It is the highest measured rate if neither does, and 0 if one does at the lowest.
    """
    rates: dict[tuple[str, float], float] = {}
    if workload.bound is None:
        return rates
    curves: dict[tuple[str, float], list[tuple[float, Series]]] = {}
    for series in found:
        if series.case.rate is not None and series.of("latency a token"):
            curves.setdefault((series.side.name, series.delay), []).append((series.case.rate, series))
    for key, curve in curves.items():
        curve.sort(key=lambda point: point[0])
        latencies = [(rate, median(series.of("latency a token"))) for rate, series in curve]
        growths = [(rate, _growth(series)) for rate, series in curve]
        rates[key] = min(_crossing(latencies, workload.bound), _crossing(growths, 0.0))
    return rates


def _growth(series: Series) -> float:
    """Number of open applications beyond what `_GROWTH` and `_CHANCE` allow, in the median round; if positive, the
    queue grows."""
    rounds = [found for found in series.rounds.values() if OPEN_FIRST in found and OPEN_SECOND in found]
    return median([found[OPEN_SECOND] - _GROWTH * found[OPEN_FIRST] - _CHANCE for found in rounds] or [-_CHANCE])


def _crossing(curve: Sequence[tuple[float, float]], bound: float) -> float:
    """The rate at which a linearly interpolated curve of (rate, value) exceeds a bound; else its last rate."""
    before: tuple[float, float] | None = None
    for rate, value in curve:
        if value > bound:
            return 0.0 if before is None else before[0] + (rate - before[0]) * (bound - before[1]) / (value - before[1])
        before = (rate, value)
    return before[0] if before is not None else 0.0


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.3f} ({min(values):.3f}-{max(values):.3f})" if values else ""


def _failed(series: Series) -> str:
    return "failed" if series.errors else "not tried"


def measured(plan: Plan, found: Sequence[Series]) -> list[tuple[Case, float]]:
    """The cases and delays for which any side has a headline figure."""
    there = {(series.case, series.delay) for series in found for name in plan.workload.headline if series.of(name)}
    return [(case, delay) for case in plan.cases for delay in plan.delays if (case, delay) in there]


def plot(plan: Plan, found: Sequence[Series], target: Path) -> bool:
    """Draws bars of all sides, with a row for each measured case and delay and a column for each headline figure.
    Returns False if matplotlib, which only this needs, is not installed."""
    try:
        import matplotlib as mpl  # pyright: ignore[reportMissingImports]

        mpl.use("Agg")  # pyright: ignore[reportUnknownMemberType]
        import matplotlib.pyplot as plt  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    pyplot: Any = plt
    panels = measured(plan, found)
    columns = plan.workload.headline
    size = (6.0 * len(columns), 0.6 + max(1, len(panels)) * (0.7 + 0.25 * len(plan.sides)))
    figure, axes = pyplot.subplots(max(1, len(panels)), len(columns), figsize=size, squeeze=False)
    for row, (case, delay) in enumerate(panels):
        for column, name in enumerate(columns):
            axis = axes[row][column]
            shown = [s for s in found if s.case is case and s.delay == delay and s.of(name)]
            middle = [median(series.of(name)) for series in shown]
            low = [m - min(series.of(name)) for m, series in zip(middle, shown, strict=True)]
            high = [max(series.of(name)) - m for m, series in zip(middle, shown, strict=True)]
            colors = ["tab:green" if series.side.name == REFERENCE else "tab:gray" for series in shown]
            axis.barh([series.side.name for series in shown], middle, xerr=[low, high], color=colors)
            axis.invert_yaxis()
            axis.set_title(f"{case.name}, {delay * 1000:.0f} ms: {name}, seconds", fontsize=9)
            axis.tick_params(labelsize=8)
    figure.tight_layout()
    figure.savefig(target, dpi=110)
    pyplot.close(figure)
    return True
