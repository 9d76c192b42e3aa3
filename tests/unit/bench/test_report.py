"""Measuring and reporting, over sides whose times are made up."""

import asyncio
import contextlib
import dataclasses
import io
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from statistics import median

import pytest
from rich.console import Console

from parrotserve.bench.clients import Runner
from parrotserve.bench.measure import Plan, Series, failed, measure, series_of
from parrotserve.bench.record import Record
from parrotserve.bench.report import measured, ratio, sustained, tables
from parrotserve.bench.sides import Side, choose, parrot_sides
from parrotserve.bench.workload import OPEN_FIRST, OPEN_SECOND, Application, Call, Case, Workload
from parrotserve.engines.fake_tokenizer import FakeTokenizer
from parrotserve.errors import DeclarationError, EngineFailed

ONE = Application(kind="k", calls=(Call("a", ("x",), 10),), results=("a",))


class MadeUp(Side):
    """Runs nothing; notes that it was asked."""

    def __init__(self, name: str, *, error: str | None = None) -> None:
        self.name, self.about, self._error = name, "made up", error
        self.delays: list[float] = []
        self.ran: list[str] = []

    @contextlib.asynccontextmanager
    async def serving(self, delay: float, service: Sequence[str] = ()) -> AsyncGenerator[Runner]:
        self.delays.append(delay)

        async def run(application: Application) -> None:
            self.ran.append(application.kind)
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
    found.rounds |= {number: {"latency a token": each, "k mean": 10 * each} for number, each in enumerate(latencies)}
    return found


def record(of: Plan, target: Path | None = None, *, model: str = "m", resume: bool = True) -> Record:
    return Record(of, target, about={"model": model}, resume=resume)


async def run(kept: Record, of: Plan, *, until: float = float("inf")) -> bool:
    return await measure(of, kept.chosen, FakeTokenizer(), lambda line: None, keep=kept.save, until=until)


async def test_sides_take_turns_and_a_failing_one_stops_nobody(tmp_path: Path):
    good, bad = MadeUp("on"), MadeUp("off", error="no luck")
    told: list[str] = []
    chosen = plan(workload(1.0), good, bad)
    found = series_of(chosen)
    assert await measure(chosen, found, FakeTokenizer(), told.append)
    assert good.delays == bad.delays == [0.0, 0.25, 0.0, 0.25]
    assert good.ran == ["warm-up", "k"] * 4
    assert [len(each.rounds) for each in found] == [2, 0, 2, 0]
    assert found[1].errors == {0: "no luck", 1: "no luck"}
    assert sum("no luck" in line for line in told) == 4

    console = Console(width=200, record=True, file=io.StringIO())
    for table in tables(chosen, found):
        console.print(table)
    assert "failed" in console.export_text()


async def test_background_is_cut_off_once_what_counts_is_done():
    class Endless(MadeUp):
        @contextlib.asynccontextmanager
        async def serving(self, delay: float, service: Sequence[str] = ()) -> AsyncGenerator[Runner]:
            async def run(application: Application) -> None:
                if application.kind == "background":
                    await asyncio.Event().wait()

            yield run

    beside = dataclasses.replace(ONE, kind="background")
    case = Case("beside", lambda texts, chance: [beside, ONE])
    of = Workload(name="w", about="w", cases=(case,), quick=(), headline=("k mean",), measured=("k",))
    chosen = plan(of, Endless("on"), rounds=1)
    kept = record(chosen)
    assert await run(kept, chosen)
    assert [set(each.rounds[0]) for each in kept.chosen] == [{"k p50", "k mean", "latency a token", "all done"}] * 2


async def test_what_is_recorded_is_not_measured_again(tmp_path: Path):
    of, target = workload(1.0), tmp_path / "w.json"
    first = plan(of, MadeUp("on"), rounds=1)
    await run(record(first, target), first)

    on, off = MadeUp("on"), MadeUp("off", error="no luck")
    more = plan(of, on, off, rounds=2)
    await run(record(more, target), more)
    assert (on.delays, off.delays) == ([0.0, 0.25], [0.0, 0.25, 0.0, 0.25])
    told = json.loads(target.read_text())
    assert [(each["side"], len(each["rounds"]), each["errors"]) for each in told["results"][:2]] == [
        ("on", 2, {}),
        ("off", 0, {"0": "no luck", "1": "no luck"}),
    ]
    assert len(told["sittings"]) == 2
    assert told["sittings"][0]["command"]
    assert told["sittings"][0]["machine"]["cores"]

    again = MadeUp("on")
    kept = record(plan(of, again), target)
    await run(kept, plan(of, again))
    assert again.delays == []
    assert {each.side.name for each in kept.found} == {"on", "off"}
    assert json.loads(target.read_text())["results"] == told["results"]


async def test_what_failed_is_tried_again_and_what_took_too_long_is_not(tmp_path: Path):
    class Endless(MadeUp):
        @contextlib.asynccontextmanager
        async def serving(self, delay: float, service: Sequence[str] = ()) -> AsyncGenerator[Runner]:
            async def run(application: Application) -> None:
                await asyncio.Event().wait()

            yield run

    of, target = workload(1.0), tmp_path / "w.json"
    first = dataclasses.replace(plan(of, MadeUp("on", error="down"), Endless("off"), rounds=1), trial_seconds=0.05)
    await run(record(first, target), first)
    on, off = MadeUp("on"), MadeUp("off")
    again = plan(of, on, off, rounds=1)
    await run(record(again, target), again)
    assert (on.delays, off.delays) == ([0.0, 0.25], [])
    told = {each["side"]: (set(each["rounds"]), each["errors"]) for each in json.loads(target.read_text())["results"]}
    assert told == {"on": ({"0"}, {}), "off": (set(), {"0": "not done within 0.05 s"})}


async def test_a_trial_is_recorded_with_its_source_and_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Telling(MadeUp):
        async def served_by(self, service: Sequence[str] = ()) -> Mapping[str, str]:
            return {"server": f"of {self.name}"}

    of, target = workload(1.0), tmp_path / "w.json"
    for rounds, source in ((1, "older"), (2, "newer")):
        monkeypatch.setattr("parrotserve.bench.measure.source_version", lambda source=source: source)
        chosen = plan(of, Telling("on"), MadeUp("off", error="down"), rounds=rounds)
        await run(record(chosen, target), chosen)
    on, off = (each["made"] for each in json.loads(target.read_text())["results"][:2])
    assert [(on[number]["source"], on[number]["server"]) for number in "01"] == [("older", "of on"), ("newer", "of on")]
    assert [off[number]["source"] for number in "01"] == ["newer", "newer"]  # the first failed, and was made again
    assert all("T" in made["date"] for made in on.values())


async def test_a_record_without_sources_is_gone_on_with(tmp_path: Path):
    of, target = workload(1.0), tmp_path / "w.json"
    first = plan(of, MadeUp("on"), rounds=1)
    await run(record(first, target), first)
    told = json.loads(target.read_text())
    for result in told["results"]:
        del result["made"]
    target.write_text(json.dumps(told))
    more = plan(of, MadeUp("on"), rounds=2)
    await run(record(more, target), more)
    assert [set(each["made"]) for each in json.loads(target.read_text())["results"]] == [{"1"}, {"1"}]


def test_a_side_has_failed_where_none_of_its_trials_went_well():
    of, on, off, peer = workload(1.0, 2.0), MadeUp("on"), MadeUp("off"), MadeUp("peer")
    found = [series(side, case) for side in (on, off, peer) for case in of.cases]
    for each in found[:4]:
        each.errors[0] = "down"
    found[1].rounds[1] = {"k mean": 1.0}
    assert failed(found) == ["off"]


async def test_without_resume_all_is_measured_anew(tmp_path: Path):
    target, chosen = tmp_path / "w.json", plan(workload(1.0), MadeUp("on"), rounds=1)
    await run(record(chosen, target), chosen)
    again = MadeUp("on")
    anew = plan(workload(1.0), again, rounds=1)
    await run(record(anew, target, resume=False), anew)
    assert len(again.delays) == 2


async def test_a_record_of_something_else_is_not_gone_on_with(tmp_path: Path):
    target, chosen = tmp_path / "w.json", plan(workload(1.0), MadeUp("on"), rounds=1)
    await run(record(chosen, target), chosen)
    with pytest.raises(DeclarationError, match="name another folder"):
        record(chosen, target, model="another")


async def test_trials_of_another_edition_are_not_gone_on_with(tmp_path: Path):
    target, of = tmp_path / "w.json", workload(1.0)
    chosen = plan(of, MadeUp("on"), rounds=1)
    await run(record(chosen, target), chosen)
    with pytest.raises(DeclarationError, match="name another folder"):
        record(plan(dataclasses.replace(of, edition=2), MadeUp("on")), target)


@pytest.mark.parametrize("text", ["{", "{}", '{"about": {"model": "m"}}'], ids=["cut off", "empty", "of another form"])
def test_what_is_no_record_is_not_gone_on_with_either(tmp_path: Path, text: str):
    target = tmp_path / "w.json"
    target.write_text(text)
    with pytest.raises(DeclarationError, match="not a record of these cases"):
        record(plan(workload(1.0), MadeUp("on")), target)


async def test_nor_one_of_cases_that_are_gone(tmp_path: Path):
    target, chosen = tmp_path / "w.json", plan(workload(1.0), MadeUp("on"), rounds=1)
    await run(record(chosen, target), chosen)
    with pytest.raises(DeclarationError, match="not a record of these cases"):
        record(plan(workload(2.0), MadeUp("on")), target)


async def test_no_trial_begins_that_would_not_end_in_time():
    side = MadeUp("on")
    chosen = plan(workload(1.0), side)
    kept = record(chosen)
    kept.chosen[1].took = 1000.0
    assert not await run(kept, chosen, until=time.perf_counter() + 10)
    assert len(side.delays) == 1  # one is always made, so that every sitting is worth something


async def test_higher_rates_are_not_tried_once_a_side_is_lost():
    chosen = plan(workload(1.0, 2.0, 4.0), MadeUp("off", error="overrun"), rounds=1)
    kept = record(chosen)
    await run(kept, chosen)
    assert [bool(each.errors) for each in kept.chosen] == [True, True, False, False, False, False]


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


def growing(side: Side, case: Case, latency: float, *opened: tuple[float, float]) -> Series:
    """One with this latency a token, and what was open in the halves of each round."""
    found = series(side, case, *[latency] * len(opened))
    for number, (first, second) in enumerate(opened):
        found.rounds[number] = {**found.rounds[number], OPEN_FIRST: first, OPEN_SECOND: second}
    return found


def test_a_rate_whose_queue_grows_is_not_sustained_however_fast_its_requests_were():
    of, on = workload(2.0, 4.0), MadeUp("on")
    calm, crowded = of.cases
    # A quarter more and two requests are no growth: 10 may become 14.5; 20 may become 27.
    steady = growing(on, calm, 0.01, (10.0, 10.5))
    assert sustained(of, [steady, growing(on, crowded, 0.02, (20.0, 27.0))]) == {("on", 0.0): 4.0}
    assert sustained(of, [steady, growing(on, crowded, 0.02, (20.0, 31.0))]) == {("on", 0.0): pytest.approx(3.0)}
    assert sustained(of, [growing(on, calm, 0.01, (10.0, 20.0))]) == {("on", 0.0): 0.0}


def test_whether_a_queue_grows_is_what_most_rounds_say():
    of, on = workload(2.0), MadeUp("on")
    mostly = growing(on, of.cases[0], 0.01, (10.0, 10.0), (10.0, 30.0), (10.0, 9.0))
    assert sustained(of, [mostly]) == {("on", 0.0): 2.0}


async def test_a_trial_with_a_bound_tells_what_was_open_at_once():
    class Slow(MadeUp):
        @contextlib.asynccontextmanager
        async def serving(self, delay: float, service: Sequence[str] = ()) -> AsyncGenerator[Runner]:
            async def run(application: Application) -> None:
                await asyncio.sleep({"warm-up": 0, "k": 0.01, "endless": 30.0}[application.kind])

            yield run

    arriving = [dataclasses.replace(ONE, arrival=arrival) for arrival in (0.05, 0.45)]
    endless = dataclasses.replace(ONE, kind="endless")
    case = Case("at 1", lambda texts, chance: [endless, *arriving], rate=1.0)
    of = Workload(
        name="w", about="w", cases=(case,), quick=(), headline=("latency a token",), measured=("k",), bound=0.1
    )
    chosen = plan(of, Slow("on"), rounds=1)
    kept = record(chosen)
    await run(kept, chosen)
    (figures, *_) = kept.chosen[0].rounds.values()
    # The endless one is open all along, and not done when the trial is over; the others are so for a moment.
    assert 1.0 <= figures[OPEN_FIRST] <= 2.0
    assert 1.0 <= figures[OPEN_SECOND] <= 2.0
    assert figures["k mean"] < 30.0


def test_a_picture_is_of_what_was_measured():
    of, on = workload(1.0, 2.0), MadeUp("on")
    one, other = of.cases
    assert measured(plan(of, on), [series(on, one, 0.1), series(on, other)]) == [(one, 0.0)]


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
    assert there["chat priority"].options[-2:] == ("--tpot", "0.001")
    with pytest.raises(DeclarationError, match="there are: on, off"):
        choose(["of"], dict(there))
    with pytest.raises(DeclarationError, match="--vllm URL"):
        choose(["vllm"], dict(there))


async def test_every_round_begins_with_another_side():
    chosen = plan(workload(1.0), MadeUp("on"), MadeUp("off"), MadeUp("peer"), rounds=4)
    told: list[str] = []
    await measure(dataclasses.replace(chosen, delays=(0.0,)), series_of(dataclasses.replace(chosen, delays=(0.0,))),
                  FakeTokenizer(), told.append)  # fmt: skip
    order = [line.partition(" ms, ")[2].partition(":")[0] for line in told]
    assert order == ["on", "off", "peer", "off", "peer", "on", "peer", "on", "off", "on", "off", "peer"]
