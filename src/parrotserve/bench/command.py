"""The work of `parrot bench`, once its options are parsed."""

import asyncio
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from parrotserve.bench.circumstances import now
from parrotserve.bench.measure import Plan, Series, failed, measure
from parrotserve.bench.record import Record
from parrotserve.bench.report import plot, tables
from parrotserve.bench.sides import OpenAiSide, Side, choose, parrot_sides
from parrotserve.bench.tokenizers import tokenizer_of
from parrotserve.bench.workload import Case, Workload
from parrotserve.bench.workloads import WORKLOADS
from parrotserve.errors import DeclarationError
from parrotserve.models.tokenizer import Tokenizer

EVERY = "all"
"""Stands for all workloads, one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is measured, on which sides, and how often."""

    workload: str
    sides: Sequence[str]
    cases: Sequence[str]
    """Names of cases, or parts of names (unless they are a case's whole name); empty: all cases."""
    quick: bool
    rounds: int | None
    delays: Sequence[float]
    """Seconds."""
    model: str
    kv_memory: str
    cap: int
    peers: dict[str, str]
    """Addresses of running servers, by the side's name: a URL, or a URL and a process group."""
    peer_model: str
    seed: int
    into: Path | None
    resume: bool
    """Continue the record in `into`."""
    limit: float
    """Seconds after which a trial counts as failed."""
    seconds: float | None
    """Time budget: no trial is started that is not expected to end within this time from the start."""

    @property
    def service(self) -> tuple[str, ...]:
        """Options of `parrot serve`."""
        return ("--model", self.model, "--kv-memory", self.kv_memory)


def run(options: Options, *, told: Callable[[str], None], show: Callable[[Table], None]) -> bool:
    """Measure, and show the results; record them if asked. Returns False if all trials of some side failed.

    Raises `DeclarationError` for workloads, sides or cases that do not exist.
    """
    until = time.perf_counter() + options.seconds if options.seconds is not None else math.inf
    workloads = _workloads(options.workload)
    tokenizer = tokenizer_of(options.model)
    sides = choose(options.sides, _sides(options, tokenizer))
    chosen: list[Series] = []
    for workload in workloads:
        cases = _cases(workload, options)
        if not cases:
            continue
        plan = Plan(
            workload=workload,
            cases=cases,
            sides=sides,
            delays=options.delays,
            rounds=options.rounds if options.rounds is not None else 1 if options.quick else 5,
            seed=options.seed,
            sitting=now(),
            trial_seconds=options.limit,
        )
        record = _record(plan, options)
        chosen += record.chosen
        done = measure(plan, record.chosen, tokenizer, told, keep=record.save, until=until)
        if not asyncio.run(done):
            told("The time is up; trials are left: --resume goes on with them.")
            break
        _report(record, options, told, show)
    lost = failed(chosen)
    for name in lost:
        told(f"{name}: every trial failed.")
    return not lost


def _record(plan: Plan, options: Options) -> Record:
    target = options.into / f"{plan.workload.name}.json" if options.into is not None else None
    about = {"model": options.model, "service_options": list(options.service), "seed": options.seed}
    return Record(plan, target, about=about, resume=options.resume)


def _report(record: Record, options: Options, told: Callable[[str], None], show: Callable[[Table], None]) -> None:
    for table in tables(record.whole, record.found):
        show(table)
    if options.into is not None:
        picture = options.into / f"{record.whole.workload.name}.png"
        if not plot(record.whole, record.found, picture):
            told("There is no picture: that needs matplotlib (pip install -r benchmarks/requirements.txt).")


def _workloads(name: str) -> list[Workload]:
    if name == EVERY:
        return list(WORKLOADS.values())
    if name not in WORKLOADS:
        raise DeclarationError(f"There is no workload {name!r}; there are: {', '.join(WORKLOADS)}, {EVERY}.")
    return [WORKLOADS[name]]


def _sides(options: Options, tokenizer: Tokenizer) -> dict[str, Side]:
    there: dict[str, Side] = dict(parrot_sides(options.service, cap=options.cap))
    for name, address in options.peers.items():
        url, _, group = address.partition(",")
        if not url.startswith(("http://", "https://")):
            raise DeclarationError(f"--{name} {address}: write a whole URL, such as http://127.0.0.1:8101.")
        if group and not (group.isdecimal() and hasattr(os, "killpg")):
            raise DeclarationError(
                f"--{name} {address}: behind the comma is a process group's number, on Linux and macOS."
            )
        about = f"a client program over {name}"
        there[name] = OpenAiSide(name, about, url, options.peer_model, tokenizer, int(group) if group else None)
    return there


def _cases(workload: Workload, options: Options) -> list[Case]:
    cases = workload.quick if options.quick else workload.cases
    if not options.cases:
        return list(cases)
    exact = {case.name for case in cases} & set(options.cases)
    parts = [part for part in options.cases if part not in exact]
    chosen = [case for case in cases if case.name in exact or any(part in case.name for part in parts)]
    if not chosen and options.workload != EVERY:
        there = ", ".join(repr(case.name) for case in cases)  # names have commas in them
        raise DeclarationError(f"No case of {workload.name} has such a name; there are: {there}.")
    return chosen
