"""The record of a workload: a JSON file that is written after every trial, so that nothing measured is lost, and later
runs can continue it."""

import contextlib
import json
import os
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from parrotserve.bench.circumstances import circumstances
from parrotserve.bench.clients import Runner
from parrotserve.bench.measure import Plan, Series, series_of
from parrotserve.bench.report import sustained
from parrotserve.bench.sides import Side
from parrotserve.errors import DeclarationError


class Absent(Side):
    """A side that was measured by an earlier run, and is not by this one."""

    def __init__(self, name: str, about: str) -> None:
        self.name, self.about = name, about

    @contextlib.asynccontextmanager
    async def serving(self, delay: float, service: Sequence[str] = ()) -> AsyncGenerator[Runner]:
        """See `Side.serving`."""
        raise DeclarationError(f"The side {self.name!r} is not measured this time.")
        yield  # pyright: ignore[reportUnreachable]


class Record:
    """All measurements of one workload, of this run and earlier ones."""

    def __init__(self, plan: Plan, target: Path | None, *, about: dict[str, Any], resume: bool) -> None:
        """`about` must be the same in all runs of one record. With `resume`, the file's measurements are loaded; raises
        `DeclarationError` if it is a record of something else."""
        self._target = target
        edition = plan.workload.edition
        self._about = {**about, **({"edition": edition} if edition > 1 else {})}
        self._sittings: list[Any] = [circumstances(seed=plan.seed)]
        self.chosen = series_of(plan)
        """The series to be measured by this run."""
        self.whole = plan
        """The plan, including the cases and sides of earlier runs."""
        self.found: Sequence[Series] = self.chosen
        """All series, including those of earlier runs."""
        if resume and target is not None and target.exists():
            try:
                self._take_up(json.loads(target.read_text(encoding="utf-8")), plan)
            except (ValueError, KeyError) as error:
                raise DeclarationError(f"{target} is not a record of these cases: name another folder.") from error

    def save(self) -> None:
        """Write the file atomically."""
        if self._target is None:
            return
        self._target.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._target.with_suffix(".new")
        fresh.write_text(json.dumps(self.as_json(), indent=1) + "\n", encoding="utf-8")
        os.replace(fresh, self._target)

    def as_json(self) -> dict[str, Any]:
        """The whole record, with all that is needed to measure it again."""
        return {
            "benchmark": self.whole.workload.name,
            "about": self._about,
            "sittings": self._sittings,
            "sides": {side.name: side.about for side in self.whole.sides},
            "results": [_told(series) for series in self.found if series.rounds or series.errors],
            "sustained_rates": [
                {"side": side, "delay_seconds": delay, "requests_a_second": rate}
                for (side, delay), rate in sustained(self.whole.workload, self.found).items()
            ],
        }

    def _take_up(self, told: dict[str, Any], plan: Plan) -> None:
        if told["about"] != self._about:
            raise DeclarationError(
                f"{self._target} is of {told['about']}, and this is of {self._about}: name another folder."
            )
        self._sittings = [*told["sittings"], *self._sittings]
        results: list[dict[str, Any]] = told["results"]
        self.whole = _with_earlier(plan, results, told["sides"])
        there = {_key(series): series for series in series_of(self.whole)} | {_key(one): one for one in self.chosen}
        self.found = list(there.values())
        for result in results:
            series = there[result["case"], result["side"], result["delay_seconds"]]
            series.rounds |= {int(number): figures for number, figures in result["rounds"].items()}
            series.errors |= {int(number): error for number, error in result["errors"].items()}
            series.made |= {int(number): made for number, made in result.get("made", {}).items()}
            series.took = result["took_seconds"]


def _with_earlier(plan: Plan, results: Sequence[dict[str, Any]], sides: dict[str, str]) -> Plan:
    """The plan, extended by the cases, delays and sides that were measured before; cases in the workload's order."""
    cases = {case.name: case for case in (*plan.workload.cases, *plan.workload.quick)}
    wanted = {result["case"] for result in results} | {case.name for case in plan.cases}
    there: dict[str, Side] = {name: Absent(name, about) for name, about in sides.items()}
    return Plan(
        workload=plan.workload,
        cases=[case for name, case in cases.items() if name in wanted],
        sides=list((there | {side.name: side for side in plan.sides}).values()),
        delays=sorted({result["delay_seconds"] for result in results} | set(plan.delays)),
        rounds=plan.rounds,
        seed=plan.seed,
    )


def _key(series: Series) -> tuple[str, str, float]:
    return series.case.name, series.side.name, series.delay


def _told(series: Series) -> dict[str, Any]:
    return {
        "case": series.case.name,
        "rate": series.case.rate,
        "side": series.side.name,
        "delay_seconds": series.delay,
        "took_seconds": round(series.took, 1) if series.took is not None else None,
        "rounds": {
            str(number): {name: round(value, 5) for name, value in figures.items()}
            for number, figures in sorted(series.rounds.items())
        },
        "errors": {str(number): error for number, error in sorted(series.errors.items())},
        "made": {str(number): made for number, made in sorted(series.made.items())},
    }
