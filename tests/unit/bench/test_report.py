"""Measuring and reporting, over sides whose times are made up."""

import contextlib
import io
from collections.abc import AsyncGenerator
from statistics import median

import pytest
from rich.console import Console

from parrotserve.bench.clients import Runner
from parrotserve.bench.measure import Plan, Series, measure
from parrotserve.bench.report import as_json, ratio, sustained, tables
from parrotserve.bench.sides import Side, choose, parrot_sides
from parrotserve.bench.workload import Application, Call, Case, Workload
from parrotserve.engines.fake_tokenizer import FakeTokenizer
from parrotserve.errors import DeclarationError, EngineFailed

ONE = Application(kind="k", calls=(Call("a", ("x",), 10),), results=("a",))


class MadeUp(Side):
    """Runs nothing; notes that it was asked."""

    def __init__(self, name: str, *, error: str | None = None) -> None:
        self.name, self.about, self._error = name, "made up", error
        self.delays: list[float] = []

    @contextlib.asynccontextmanager
    async def serving(self, delay: float) -> AsyncGenerator[Runner]:
        self.delays.append(delay)

        async def run(application: Application) -> None:
            if self._error:
                raise EngineFailed(self._error)

        yield run


def workload(*rates: float) -> Workload:
    cases = tuple(Case(f"at {rate:g}", lambda texts, chance: [ONE], rate=rate) for rate in rates)
    return Workload(name="w", about="w", cases=cases, quick=cases, headline=("k mean",), bound=0.1)


def plan(of: Workload, *sides: Side, rounds: int = 2) -> Plan:
    return Plan(workload=of, cases=of.cases, sides=sides, delays=(0.0, 0.25), rounds=rounds, seed=1)


def series(side: Side, case: Case, *latencies: float) -> Series:
    found = Series(case, side, 0.0)
    found.rounds += [{"latency a token": each, "k mean": 10 * each} for each in latencies]
    return found


async def test_sides_take_turns_and_a_failing_one_stops_nobody():
    good, bad = MadeUp("on"), MadeUp("off", error="no luck")
    told: list[str] = []
    chosen = plan(workload(1.0), good, bad)
    found = await measure(chosen, FakeTokenizer(), told.append)
    assert good.delays == bad.delays == [0.0, 0.25, 0.0, 0.25]
    assert [len(each.rounds) for each in found] == [2, 0, 2, 0]
    assert found[1].errors == ["no luck", "no luck"]
    assert sum("no luck" in line for line in told) == 4

    console = Console(width=200, record=True, file=io.StringIO())
    for table in tables(chosen, found):
        console.print(table)
    assert "failed" in console.export_text()
    result = as_json(chosen, found, model="m", options=())
    assert [each["errors"] for each in result["results"][:2]] == [[], ["no luck", "no luck"]]
    assert result["command"]
    assert result["machine"]["cores"]


async def test_higher_rates_are_not_tried_once_a_side_is_lost():
    bad = MadeUp("off", error="overrun")
    found = await measure(plan(workload(1.0, 2.0, 4.0), bad, rounds=1), FakeTokenizer(), lambda line: None)
    assert [bool(each.errors) for each in found] == [True, True, False, False, False, False]


def test_the_sustained_rate_lies_where_latency_crosses_the_bound():
    of = workload(1.0, 2.0, 4.0)
    on, off, lost = MadeUp("on"), MadeUp("off"), MadeUp("lost")
    found = [
        *(series(on, case, each) for case, each in zip(of.cases, (0.01, 0.02, 0.05), strict=True)),
        *(series(off, case, each) for case, each in zip(of.cases, (0.05, 0.08, 0.16), strict=True)),
        series(lost, of.cases[0], 0.3),
    ]
    rates = sustained(of, found)
    assert rates[("on", 0.0)] == 4.0
    assert rates[("off", 0.0)] == pytest.approx(2.5)
    assert rates[("lost", 0.0)] == 0.0


def test_ratios_are_of_medians_on_the_same_case():
    of = workload(1.0, 2.0)
    on, off = MadeUp("on"), MadeUp("off")
    reference, slower = series(on, of.cases[0], 0.1, 0.2, 0.9), series(off, of.cases[0], 0.4, 0.5, 0.1)
    assert median(slower.of("k mean")) == 4.0
    assert ratio(slower, [reference, slower], "k mean") == "2.00x"
    assert ratio(reference, [reference, slower], "k mean") == ""
    assert ratio(series(off, of.cases[1], 1.0), [reference], "k mean") == ""


def test_there_is_a_side_without_each_optimisation():
    there = dict(parrot_sides(("--model", "fake"), cap=4))
    ablations = choose(["ablations"], dict(there))
    assert {"without prefix", "without objectives", "without sharing"} <= {side.name for side in ablations}
    assert there["capped"].options[-2:] == ("--max-running", "4")
    assert there["throughput"].takes(ONE) != ONE
    assert there["chats alone"].takes(ONE) is None
    with pytest.raises(DeclarationError, match="there are: on, off"):
        choose(["of"], dict(there))
