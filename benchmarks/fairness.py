"""What one tenant's load does to another: in time, in shares by weight, and split into many sessions.

    python benchmarks/fairness.py                              # SmolLM2-135M, some eight minutes
    python benchmarks/fairness.py latency --pairs 1 --seconds 5
    python benchmarks/fairness.py latency --without fairness   # what others' load does where nothing is done about it

One service in this process, one engine. Ann and Bob each keep a number of requests open at all times; every request has
a prompt of its own and writes the same number of tokens. Runs of a pair follow one another, pair after pair:

    latency   Bob has as many open as Ann, then 50 times as many: Ann's median latency
    work      both are there, Bob with 50 times as many, then Bob alone: tokens of both
    sessions  both have many, each in one session, then Bob in a hundred: Bob's tokens for each of Ann's
    weights   both have many, and Ann three times Bob's weight: her tokens for each of his

The targets: Ann's median latency at most 1.3 times as long; tokens 3:1 within 10%; and for a hundred sessions a share
within 5% of what one gets. The exit code is 1 where one is missed. Every point is printed and written to `--json` as it
comes; a file that is there is added to, so that parts can be measured one by one.
"""

import argparse
import asyncio
import json
import math
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from parrotserve.bench.circumstances import circumstances
from parrotserve.config import ServiceConfig
from parrotserve.errors import UnknownObject
from parrotserve.ids import SessionId, TenantId, new_id
from parrotserve.protocol import Failure, OutputSegment, RequestSpec, Submit, TextSegment, VariableSpec, WaitSpec
from parrotserve.runtime.service import Service
from parrotserve.sampling import Sampling
from parrotserve.tenancy.directory import Directory
from parrotserve.tenancy.limits import Limits
from parrotserve.tenancy.store import TenantStore

ANN, BOB = TenantId("ann"), TenantId("bob")
TIMES = 50
SESSIONS = 100
PARTS = {"latency": (0.0, 1.3), "work": (0.0, math.inf), "sessions": (0.95, 1.05), "weights": (2.7, 3.3)}
"""What is measured, and the range in which the median ratio should be."""
DRAINING_SECONDS = 60.0
"""Time in which engines must have released cancelled requests."""


Point = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """The result of one run."""

    median: dict[TenantId, float]
    """Median latency in seconds."""
    tokens: dict[TenantId, int]

    @property
    def share(self) -> float:
        """Bob's tokens divided by Ann's."""
        return self.tokens[BOB] / self.tokens[ANN]


class NothingMeasured(Exception):
    """A run has no usable result. The message says why, and what to do."""


class Load:
    """The load of one tenant, which keeps a number of requests open in `sessions` sessions; 0: one for each request."""

    def __init__(self, service: Service, tenant: TenantId, *, tokens: int, sessions: int = 0) -> None:
        self.service, self.tenant, self.tokens = service, tenant, tokens
        self.latencies: list[float] = []
        self._sessions = [new_id("s") for _ in range(sessions)]
        self._sent = 0

    async def keep_open(self, count: int, *, until: float) -> None:
        """Keep `count` requests open until this time of the monotonic clock; then cancel those that are open."""
        workers = [asyncio.ensure_future(self._one_after_another()) for _ in range(count)]
        await asyncio.sleep(until - time.monotonic())
        broken = [worker for worker in workers if worker.done()]
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        for session in self._sessions:
            with suppress(UnknownObject):
                self.service.end_session(SessionId(session), tenant=self.tenant)
        for worker in broken:
            worker.result()

    async def _one_after_another(self) -> None:
        while True:
            self._sent += 1
            shared = self._sessions[self._sent % len(self._sessions)] if self._sessions else None
            session = shared or new_id("s")
            began = time.monotonic()
            try:
                async with aclosing(self.service.submit(self._body(session), tenant=self.tenant)) as events:
                    async for event in events:
                        if isinstance(event, Failure):
                            raise NothingMeasured(f"A request of {self.tenant} failed: {event.error.message}")
                self.latencies.append(time.monotonic() - began)
            finally:
                if shared is None:
                    self.service.end_session(SessionId(session), tenant=self.tenant)

    def _body(self, session: str) -> Submit:
        variable, request = new_id("v"), new_id("r")
        text = f"{request} asks for a tale of {variable}, and of nothing else: "
        output = OutputSegment(variable=variable, sampling=Sampling(max_tokens=self.tokens, ignore_eos=True))
        return Submit(
            session=session,
            variables=(VariableSpec(id=variable),),
            requests=(RequestSpec(id=request, segments=(TextSegment(text=text), output)),),
            wait=(WaitSpec(variable=variable),),
        )


class Bench:
    """One service with two tenants."""

    def __init__(self, service: Service, store: TenantStore, options: argparse.Namespace) -> None:
        self.service, self.store, self.options = service, store, options

    async def run(self, anns: int, bobs: int, *, sessions: int = 0) -> "Run":
        """Run with so many requests of each tenant open. With `sessions`, Bob uses so many and Ann one; else every
        request has its own."""
        counts = {tenant: count for tenant, count in ((ANN, anns), (BOB, bobs)) if count}
        loads = {
            tenant: Load(
                self.service,
                tenant,
                tokens=self.options.tokens,
                sessions=min(sessions, 1) if tenant == ANN else sessions,
            )
            for tenant in counts
        }
        before = await self._tokens()
        until = time.monotonic() + self.options.seconds
        await asyncio.gather(*(load.keep_open(counts[tenant], until=until) for tenant, load in loads.items()))
        await self._drain()
        used = await self._tokens() - before
        for load in loads.values():
            if not load.latencies:
                raise NothingMeasured(
                    f"No request of {load.tenant} ended in {self.options.seconds:g} s, with {anns} of ann and {bobs} "
                    f"of bob open; tokens written: {dict(used)}. Give more --seconds, or less --open."
                )
        return Run(
            median={tenant: statistics.median(load.latencies) for tenant, load in loads.items()},
            tokens={tenant: used[tenant] for tenant in loads},
        )

    async def _drain(self) -> None:
        """Wait until every request is accounted for: cancelled ones count too, and run until their step ends."""
        end = time.monotonic() + DRAINING_SECONDS
        while any(self.service.meter.ledger.held(one, now=time.monotonic())[1] for one in (ANN, BOB)):
            if time.monotonic() > end:
                raise NothingMeasured(f"Engines have not let go of cancelled requests in {DRAINING_SECONDS:g} s.")
            await asyncio.sleep(0.02)

    async def _tokens(self) -> Counter[TenantId]:
        used: Counter[TenantId] = Counter()
        for row in await self.service.usage(None):
            used[row.tenant] += row.output_tokens
        return used

    async def points(self, part: str) -> AsyncIterator[Point]:
        """The points of one part, as they are measured."""
        few, many = self.options.open, TIMES * self.options.open
        self.store.set_limits(ANN, Limits(weight=3 if part == "weights" else 1))
        await self.run(few, few)  # warms up
        for _ in range(self.options.pairs):
            match part:
                case "latency":
                    alike, loud = await self.run(few, few), await self.run(few, many)
                    yield {
                        "alike_seconds": alike.median[ANN],
                        "loud_seconds": loud.median[ANN],
                        "ratio": loud.median[ANN] / alike.median[ANN],
                    }
                case "work":
                    both, alone = await self.run(few, many), await self.run(0, many)
                    yield {"both_tokens": both.tokens, "alone_tokens": alone.tokens,
                           "ratio": sum(both.tokens.values()) / sum(alone.tokens.values())}  # fmt: skip
                case "sessions":
                    one, split = [await self.run(many, many, sessions=sessions) for sessions in (1, SESSIONS)]
                    yield {"one": one.share, "split": split.share, "ratio": split.share / one.share}
                case _:
                    yield {"ratio": 1 / (await self.run(many, many)).share}


class Report:
    """The points so far: in a file, if one is given, and the ratios of each part."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._runs: list[dict[str, Any]] = json.loads(path.read_text()) if path and path.exists() else []
        self.ratios: dict[str, list[float]] = {}

    def begin(self, options: argparse.Namespace) -> None:
        """Begin the record of another run of this program."""
        told = {name: value for name, value in vars(options).items() if name != "json"}
        self._runs.append({"options": told, "circumstances": circumstances(), "points": []})

    def add(self, part: str, point: Point) -> None:
        """Add a point, and write the file."""
        self._runs[-1]["points"].append({"part": part, **point})
        self.ratios.setdefault(part, []).append(point["ratio"])
        if self._path:
            self._path.write_text(json.dumps(self._runs, indent=2) + "\n")


async def main(options: argparse.Namespace, console: Console) -> bool:
    """Start a service and measure it. Returns whether the targets were met."""
    report = Report(options.json)
    report.begin(options)
    with tempfile.TemporaryDirectory() as folder, closing(TenantStore(Path(folder))) as store:
        for tenant in (ANN, BOB):
            store.create_tenant(tenant, Limits())
        with closing(TenantStore(Path(folder))) as own:
            config = ServiceConfig(models=(options.model,), data=Path(folder), without=tuple(options.without))
            service = await Service.start(config, directory=Directory(own))
            try:
                await service.wait_started()
                bench = Bench(service, store, options)
                for part in options.parts or PARTS:
                    async for point in bench.points(part):
                        report.add(part, point)
                        console.print(part, point)
            finally:
                await service.close()
    met = True
    for part, ratios in report.ratios.items():
        least, most = PARTS[part]
        middle = statistics.median(ratios)
        verdict = "met" if least <= middle <= most else "missed"
        met = met and verdict == "met"
        target = f", {verdict} ({least:g} to {most:g})" if most < math.inf else ""
        console.print(f"{part}: {middle:.3f}, from {min(ratios):.3f} to {max(ratios):.3f}{target}")
    return met


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help="of those above; all without")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--open", type=int, default=4, help="requests of Ann")
    parser.add_argument("--tokens", type=int, default=16, help="of every output")
    parser.add_argument("--seconds", type=float, default=12.0, help="of every run")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--without", nargs="*", default=[], help="optimisations to turn off")
    parser.add_argument("--json", type=Path, help="add the points to this file")
    try:
        sys.exit(0 if asyncio.run(main(parser.parse_args(), Console())) else 1)
    except NothingMeasured as error:
        sys.exit(str(error))
