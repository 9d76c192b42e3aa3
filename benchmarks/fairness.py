"""What one tenant's load does to another: in time, in shares by weight, and split into many sessions.

    python benchmarks/fairness.py                      # SmolLM2-135M, some five minutes
    python benchmarks/fairness.py --model PATH --seconds 5 --pairs 1

One service in this process, one engine. Ann and Bob each keep a number of requests open at all times; every request has
a prompt of its own and writes the same number of tokens. In each pair of runs Bob first has as many open as Ann, then
50 times as many. Then both have many, in one session each and then Bob's in a hundred; and at last with Ann at three
times Bob's weight. Ann fills half of the engine by default: one who asks for less also feels that steps are slower in a
full engine than in one that Bob leaves half empty.

The targets: Ann's median latency at most 1.3 times as long; tokens 3:1 within 10%; and for a hundred sessions a share
within 5% of what one gets. The exit code is 1 where one is missed.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import aclosing, closing, suppress
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
MOST_RATIO = 1.3
DRAINING_SECONDS = 60.0
"""In which engines must have let go of what was cancelled."""


class NothingMeasured(Exception):
    """Nothing can be told from a run; why, and what to do."""


class Load:
    """A tenant that keeps so many requests open, in so many sessions."""

    def __init__(self, service: Service, tenant: TenantId, *, tokens: int, sessions: int = 0) -> None:
        self.service, self.tenant, self.tokens = service, tenant, tokens
        self.latencies: list[float] = []
        self._sessions = [new_id("s") for _ in range(sessions)]
        self._sent = 0

    async def keep_open(self, count: int, *, until: float) -> None:
        """Until a moment of the monotonic clock; then what is open is cancelled."""
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

    async def run(self, bobs: int, *, anns: int | None = None, sessions: int = 0) -> tuple[float, float]:
        """Ann's median latency, and the tokens that she got for each one of Bob's."""
        loads = [
            Load(
                self.service,
                tenant,
                tokens=self.options.tokens,
                sessions=min(sessions, 1 if tenant == ANN else sessions),
            )
            for tenant in (ANN, BOB)
        ]
        before = self._tokens()
        until = time.monotonic() + self.options.seconds
        await asyncio.gather(
            loads[0].keep_open(anns or self.options.open, until=until), loads[1].keep_open(bobs, until=until)
        )
        await self._drain()
        used = self._tokens() - before
        for load in loads:
            if not load.latencies:
                raise NothingMeasured(
                    f"No request of {load.tenant} ended in {self.options.seconds:g} s, with "
                    f"{anns or self.options.open} of ann and {bobs} of bob open; tokens written: {dict(used)}. "
                    "Give more --seconds, or less --open."
                )
        return statistics.median(loads[0].latencies), used[ANN] / used[BOB]

    async def _drain(self) -> None:
        """Until the account of every request is closed: what was cancelled counts too, and runs until its step ends."""
        end = time.monotonic() + DRAINING_SECONDS
        while any(self.service.meter.ledger.held(one, now=time.monotonic())[1] for one in (ANN, BOB)):
            if time.monotonic() > end:
                raise NothingMeasured(f"Engines have not let go of cancelled requests in {DRAINING_SECONDS:g} s.")
            await asyncio.sleep(0.02)

    def _tokens(self) -> Counter[TenantId]:
        used: Counter[TenantId] = Counter()
        for row in self.service.usage(None):
            used[row.tenant] += row.output_tokens
        return used

    async def all(self) -> dict[str, Any]:
        """Every measurement."""
        few, many = self.options.open, TIMES * self.options.open
        await self.run(few)  # warms up
        pairs = [((await self.run(few))[0], (await self.run(many))[0]) for _ in range(self.options.pairs)]
        one, split = [(await self.run(many, anns=many, sessions=sessions))[1] for sessions in (1, SESSIONS)]
        self.store.set_limits(ANN, Limits(weight=3))
        return {
            "latency_seconds": pairs,
            "latency_ratio": statistics.median(loud / quiet for quiet, loud in pairs),
            "share_of_many_sessions": split / one,
            "share_of_weight_3": (await self.run(many, anns=many))[1],
        }


async def main(options: argparse.Namespace) -> dict[str, Any]:
    """A service, measured."""
    with tempfile.TemporaryDirectory() as folder, closing(TenantStore(Path(folder))) as store:
        for tenant in (ANN, BOB):
            store.create_tenant(tenant, Limits())
        with closing(TenantStore(Path(folder))) as own:
            config = ServiceConfig(models=(options.model,), data=Path(folder))
            service = await Service.start(config, directory=Directory(own))
            try:
                await service.wait_started()
                return await Bench(service, store, options).all()
            finally:
                await service.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--open", type=int, default=32, help="requests of Ann: half of what an engine runs")
    parser.add_argument("--tokens", type=int, default=16, help="of every output")
    parser.add_argument("--seconds", type=float, default=20.0, help="of every run")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    try:
        result = asyncio.run(main(options))
    except NothingMeasured as error:
        sys.exit(str(error))
    if options.json:
        options.json.write_text(json.dumps(result | {"circumstances": circumstances()}, indent=2, default=str))
    console = Console()
    console.print(
        f"Ann's median latency with {TIMES} times the load of Bob: {result['latency_ratio']:.2f} times as long"
    )
    console.print(f"A hundred sessions: {1 / result['share_of_many_sessions']:.3f} of the share of one")
    console.print(f"Weight 3: {result['share_of_weight_3']:.2f} times the tokens")
    met = (
        result["latency_ratio"] <= MOST_RATIO
        and 0.95 <= result["share_of_many_sessions"] <= 1.05
        and 2.7 <= result["share_of_weight_3"] <= 3.3
    )
    sys.exit(0 if met else 1)
