"""Reports of what `benchmarks/engine.py` measured: lines, tables, a plot."""

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from points import OURS, TARGETS, Point, in_order, wanted
from records import sources

from parrotserve.bench.marked import write_marked
from parrotserve.engines.native.settings import WeightFormat

Measured = dict[str, Any]

WEIGHTS = tuple(WeightFormat)


def fastest(measured: Measured, family: str) -> str | None:
    """The side of a family with the lowest median, among those measured in every round; None without one."""
    full = [
        name
        for name, times in measured["milliseconds"].items()
        if measured["families"][name] == family and len(times) == measured["rounds"]
    ]
    return min(full, key=lambda name: median(measured, name), default=None)


def median(measured: Measured, name: str) -> float:
    """A side's median, in milliseconds."""
    return statistics.median(measured["milliseconds"][name])


def ratio(measured: Measured, family: str) -> float | None:
    """The time of a family's fastest side divided by that of our fastest. Private KV is compared with shared KV of the
    same weights. None if one of the two was not measured."""
    other = fastest(measured, family)
    ours = "bf16" if family == "private" else fastest(measured, OURS)
    return None if other is None or ours is None else median(measured, other) / median(measured, ours)


def fraction(measured: Measured, weights: str) -> float | None:
    """The bound divided by our time: 1 means that the bound is reached. None if either was not measured."""
    if weights not in (measured["roofline"] or {}) or weights not in measured["milliseconds"]:
        return None
    return measured["roofline"][weights]["milliseconds"] / median(measured, weights)


def line(name: str, measured: Measured) -> str:
    """One point as a line."""
    cells = [f"{name:16}"]
    for weights in WEIGHTS:
        if weights in measured["milliseconds"]:
            part = fraction(measured, weights)
            cells.append(f"{weights} {_spread(measured, weights)}" + ("" if part is None else f" {part:.0%}"))
    for family in ("llama.cpp", "vLLM", "private"):
        other = fastest(measured, family)
        if other is not None:
            cells.append(f"{other} {_spread(measured, other)} {_verdict(measured, family)}")
    return " | ".join(cells)


def write_tables(points: dict[str, Measured], page: Path) -> None:
    """Write the tables between the two marks in the page, which is created if it does not exist."""
    write_marked(page, "benchmarks/engine.py", markdown(points))


def markdown(points: dict[str, Measured]) -> str:
    """The targets first, then every point."""
    ordered = {str(point): points[str(point)] for point in in_order(map(_point, points.values()))}
    return "\n".join([*_target_table(points), "", *_point_table(ordered), "", *sources(ordered)]) + "\n"


def _target_table(points: dict[str, Measured]) -> Iterator[str]:
    """Each target, and what was measured at its point."""
    yield "| work | against | ours, ms | theirs, ms | ratio | wanted | |"
    yield "|---|---|---|---|---|---|---|"
    for target in TARGETS:
        measured = points.get(str(target.point))
        found = None if measured is None else ratio(measured, target.family)
        if measured is None or found is None:
            yield f"| {target.point} | {target.family} | | | | {target.ratio:g}x | not measured |"
            continue
        ours = "bf16" if target.family == "private" else fastest(measured, OURS)
        theirs = fastest(measured, target.family)
        assert ours is not None
        assert theirs is not None
        verdict = "met" if found >= target.ratio else "**missed**"
        sides = f"{ours} {_spread(measured, ours)} | {_spread(measured, theirs)}"
        yield f"| {target.point} | {theirs} | {sides} | {found:.2f}x | {target.ratio:g}x | {verdict} |"


def _point_table(points: dict[str, Measured]) -> Iterator[str]:
    """All our sides at every point, with the bounds by the machine's peak rates, and the cost of private KV."""
    yield (
        "| work | bf16, ms | of bound | int8, ms | of bound | int4, ms | of bound "
        "| bounds, ms | private KV, ms | over shared |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for name, measured in points.items():
        cells = [name]
        for weights in WEIGHTS:
            part = fraction(measured, weights)
            cells += [_spread(measured, weights), "" if part is None else f"{part:.0%}"]
        bounds = measured["roofline"] or {}
        told = [f"{bounds[w]['milliseconds']:.1f} ({bounds[w]['by']})" for w in WEIGHTS if fraction(measured, w)]
        cells.append(" / ".join(told))
        against = ratio(measured, "private")
        cells += [_spread(measured, "bf16 private"), "" if against is None else f"{against:.2f}x"]
        yield f"| {' | '.join(cells)} |"


def plot(points: dict[str, Measured], target: Path) -> bool:
    """Plot decode step times over the length of the shared prefix, with a panel for each batch size. Returns False if
    matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    decodes = [point for point in in_order(map(_point, points.values())) if point.batch]
    batches = sorted({point.batch for point in decodes})
    figure, axes = plt.subplots(1, len(batches), figsize=(4 * len(batches), 4), squeeze=False)
    for axis, batch in zip(axes[0], batches, strict=True):
        curves: dict[str, list[tuple[int, float]]] = {}
        for point in decodes:
            measured = points[str(point)]
            if point.batch != batch:
                continue
            for label, name in _shown(measured):
                curves.setdefault(label, []).append((point.tokens, median(measured, name)))
            if measured["roofline"]:
                bound = measured["roofline"]["bf16"]["milliseconds"]
                curves.setdefault("bound (bf16)", []).append((point.tokens, bound))
        for label, curve in curves.items():
            style = ":k" if label.startswith("bound") else "o-" if label.startswith(WEIGHTS) else "s--"
            axis.plot(*zip(*curve, strict=True), style, label=label)
        axis.set(title=f"batch {batch}", xlabel="shared prefix, tokens", ylabel="ms a step", ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(target, dpi=110)
    return True


def _shown(measured: Measured) -> list[tuple[str, str]]:
    """Labels and sides: all of ours, the fastest of each peer."""
    sides = [(name, name) for name in (*WEIGHTS, "bf16 private") if name in measured["milliseconds"]]
    for family in ("llama.cpp", "vLLM"):
        name = fastest(measured, family)
        if name is not None:
            sides.append((f"{family}, its best", name))
    return sides


def _point(measured: Measured) -> Point:
    return Point(measured["tokens"], measured["batch"])


def _spread(measured: Measured, name: str) -> str:
    times = measured["milliseconds"].get(name)
    return f"{statistics.median(times):.1f} ({min(times):.1f}-{max(times):.1f})" if times else ""


def _verdict(measured: Measured, family: str) -> str:
    found = ratio(measured, family)
    assert found is not None
    target = wanted(_point(measured), family)
    if target is None:
        return f"{found:.2f}x"
    return f"{found:.2f}x of {target:g}x {'met' if found >= target else 'MISSED'}"
