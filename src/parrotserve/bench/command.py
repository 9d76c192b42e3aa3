"""What `parrot bench` does, once its options are read."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from parrotserve.bench.measure import Plan, measure
from parrotserve.bench.report import as_json, plot, tables
from parrotserve.bench.sides import OpenAiSide, Side, choose, parrot_sides
from parrotserve.bench.tokenizers import tokenizer_of
from parrotserve.bench.workload import Case, Workload
from parrotserve.bench.workloads import WORKLOADS
from parrotserve.errors import DeclarationError
from parrotserve.models.tokenizer import Tokenizer

EVERY = "all"
"""In place of a workload: one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is measured, on whom, how often."""

    workload: str
    sides: Sequence[str]
    cases: Sequence[str]
    """Only cases whose names contain one of these; none: all."""
    quick: bool
    rounds: int | None
    delays: Sequence[float]
    """Seconds."""
    model: str
    kv_memory: str
    cap: int
    peers: dict[str, str]
    """URLs of running servers, by the side's name."""
    peer_model: str
    seed: int
    into: Path | None

    @property
    def service(self) -> tuple[str, ...]:
        """Options of `parrot serve`."""
        return ("--model", self.model, "--kv-memory", self.kv_memory)


def run(options: Options, *, told: Callable[[str], None], show: Callable[[Table], None]) -> None:
    """Measure and show; write where asked. Raises `DeclarationError` for what does not exist."""
    workloads = _workloads(options.workload)
    tokenizer = tokenizer_of(options.model)
    sides = choose(options.sides, _sides(options, tokenizer))
    for workload in workloads:
        cases = _cases(workload, options)
        if not cases:
            continue
        plan = Plan(
            workload=workload,
            cases=cases,
            sides=sides,
            delays=options.delays,
            rounds=options.rounds or (1 if options.quick else 5),
            seed=options.seed,
        )
        found = asyncio.run(measure(plan, tokenizer, told))
        for table in tables(plan, found):
            show(table)
        if options.into is not None:
            options.into.mkdir(parents=True, exist_ok=True)
            result = as_json(plan, found, model=options.model, options=options.service)
            target = options.into / f"{workload.name}.json"
            target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            if not plot(plan, found, target.with_suffix(".png")):
                told("There is no picture: that needs matplotlib (pip install -r benchmarks/requirements.txt).")


def _workloads(name: str) -> list[Workload]:
    if name == EVERY:
        return list(WORKLOADS.values())
    if name not in WORKLOADS:
        raise DeclarationError(f"There is no workload {name!r}; there are: {', '.join(WORKLOADS)}, {EVERY}.")
    return [WORKLOADS[name]]


def _sides(options: Options, tokenizer: Tokenizer) -> dict[str, Side]:
    there: dict[str, Side] = dict(parrot_sides(options.service, cap=options.cap))
    for name, url in options.peers.items():
        there[name] = OpenAiSide(name, f"a client program over {name}", url, options.peer_model, tokenizer)
    return there


def _cases(workload: Workload, options: Options) -> list[Case]:
    cases = workload.quick if options.quick else workload.cases
    if not options.cases:
        return list(cases)
    chosen = [case for case in cases if any(part in case.name for part in options.cases)]
    if not chosen and options.workload != EVERY:
        there = ", ".join(case.name for case in cases)
        raise DeclarationError(f"No case of {workload.name} has such a name; there are: {there}.")
    return chosen
