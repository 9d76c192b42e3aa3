"""What `benchmarks/overhead.py` measured, for people."""

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from records import sources

Measured = dict[str, Any]

ADDED = {"p50": 1.0, "p99": 3.0}
"""Milliseconds that Parrot may add to a request."""
HANDLE = 1000.0
"""Microseconds that `handle` may take for a request that is placed, however many wait."""
FLAT = 2.0
"""`handle` may take so many times what it takes with `FLAT_FROM` requests waiting."""
FLAT_FROM = 100
LOOKUP = 20.0
"""Microseconds that looking a prefix up may take, however many engines there are."""


def added(measured: Measured) -> dict[str, float]:
    """What Parrot adds to the echo's time, by percentile."""
    times = measured["milliseconds"]
    return {name: _median(times["parrot"][name]) - _median(times["echo"][name]) for name in ADDED}


def flatness(measured: Measured) -> float | None:
    """How many times as long placing takes with the most waiting as with a hundred."""
    by_waiting = measured["microseconds"]
    if str(FLAT_FROM) not in by_waiting:
        return None
    most = by_waiting[max(by_waiting, key=int)]
    return _median(most["end_and_place"]) / _median(by_waiting[str(FLAT_FROM)]["end_and_place"])


def lines(name: str, measured: Measured) -> Iterator[str]:
    """One point, for a terminal."""
    if "a_second" in measured:
        for side, rates in _sides(name, measured):
            yield f"{side:12} {_spread(rates, 0)} requests/s"
    elif name == "added":
        for side, times in measured["milliseconds"].items():
            yield f"{side:12} p50 {_spread(times['p50'], 2)}, p99 {_spread(times['p99'], 2)} ms"
        yield ", ".join(f"{q} +{value:.2f} ms {_verdict(value, ADDED[q])}" for q, value in added(measured).items())
    elif name == "lookup":
        for engines, times in measured["microseconds"].items():
            yield f"{engines:>3} engines  {_spread(times, 2)} us {_verdict(_median(times), LOOKUP)}"
    else:
        for waiting, row in measured["microseconds"].items():
            cells = f"end and place {_spread(row['end_and_place'], 0)}, submit {_spread(row['submit'], 0)}"
            yield f"{measured['engines']:>3} engines {waiting:>6} waiting  {cells}, longest {row['longest']:,.0f} us"


def markdown(points: dict[str, Measured]) -> str:
    """All tables; what was not measured is left out."""
    rows = ["| requests a second | median (range) |", "|---|---|"]
    names = {"machine": "through the machine alone", "runtime": "through the runtime", "parrot": "over HTTP"}
    names |= {"no journal": "over HTTP, without a journal", "echo": "the bare echo over HTTP"}
    for point in ("machine", "runtime", "http"):
        for side, rates in _sides(point, points[point]) if point in points else ():
            rows.append(f"| {names[side]} | {_spread(rates, 0)} |")
    if "added" in points:
        rows += ["", *_latencies(points["added"])]
    handles = sorted((one for name, one in points.items() if name.startswith("handle-")), key=lambda o: o["engines"])
    rows += ["", *_handles(handles)] if handles else []
    if "lookup" in points:
        rows += ["", "| looking a prefix up, engines | microseconds | wanted | |", "|---|---|---|---|"]
        for engines, times in points["lookup"]["microseconds"].items():
            rows.append(
                f"| {engines} | {_spread(times, 2)} | at most {LOOKUP:g} | {_verdict(_median(times), LOOKUP)} |"
            )
    return "\n".join([*rows, "", *sources(points)]) + "\n"


def _latencies(measured: Measured) -> Iterator[str]:
    yield f"| milliseconds at {measured['rate']:g} requests/s | p50 | p99 |"
    yield "|---|---|---|"
    for side, times in measured["milliseconds"].items():
        yield f"| {side} | {_spread(times['p50'], 2)} | {_spread(times['p99'], 2)} |"
    found = added(measured)
    cells = (f"{found[q]:.2f}, at most {bar:g} wanted: {_verdict(found[q], bar)}" for q, bar in ADDED.items())
    yield f"| added | {' | '.join(cells)} |"


def _handles(points: Sequence[Measured]) -> Iterator[str]:
    yield "| engines | waiting | end one and place the next, us | submit one, us | longest call, us | |"
    yield "|---|---|---|---|---|---|"
    for measured in points:
        most = max(measured["microseconds"], key=int)
        for waiting, row in measured["microseconds"].items():
            ends, verdict = row["end_and_place"], ""
            if waiting == most:
                met = _verdict(_median(ends), HANDLE)
                flat = flatness(measured)
                verdict = f"at most {HANDLE:g} wanted: {met}"
                if flat is not None:
                    verdict += f"; {flat:.2f} times that of {FLAT_FROM}, {FLAT:g} wanted: {_verdict(flat, FLAT)}"
            cells = f"{int(waiting):,} | {_spread(ends, 0)} | {_spread(row['submit'], 0)} | {row['longest']:,.0f}"
            yield f"| {measured['engines']} | {cells} | {verdict} |"


def _sides(name: str, measured: Measured) -> list[tuple[str, Sequence[float]]]:
    rates = measured["a_second"]
    return list(rates.items()) if isinstance(rates, dict) else [(name, rates)]


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{_median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def _verdict(value: float, most: float) -> str:
    return "met" if value <= most else "**missed**"
