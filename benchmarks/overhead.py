"""What Parrot itself costs a request, with engines that cost nothing.

    python benchmarks/overhead.py --json docs/benchmarks/overhead.json

1. Requests a second through the machine alone, through the runtime, and over HTTP.
2. Time that a request takes over HTTP beside a bare FastAPI echo of the same body, at a steady rate of arrivals, in
   turns; what Parrot adds is the difference of the medians, and of the 99th percentiles.
3. What `Machine.handle` takes for one request that ends and the one that is placed instead, and for one that is
   submitted, by how many requests wait and how many engines there are; and what finding the engines that hold a
   request's prefix takes, where all of them do.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from parrotserve.bench.circumstances import circumstances
from parrotserve.config import ServiceConfig
from parrotserve.criteria import Criteria
from parrotserve.embedded import EmbeddedTransport
from parrotserve.engines.base import (
    Capability,
    Command,
    EndStatus,
    Engine,
    EngineDescription,
    Event,
    Generate,
    Heartbeat,
    Open,
    SegmentFinished,
    SequenceEnded,
)
from parrotserve.graph.decisions import OpenSequence
from parrotserve.graph.events import (
    EngineJoined,
    NewRequest,
    NewVariable,
    OutputProduced,
    RequestEnded,
    SessionEnded,
    Submitted,
    Wait,
)
from parrotserve.ids import LOCAL_TENANT, EngineId, RequestId, SessionId, VariableId, new_id
from parrotserve.machine import Machine
from parrotserve.protocol import OutputSegment, RequestSpec, Submit, TextSegment, VariableSpec, WaitSpec
from parrotserve.runtime.catalog import ServedModel, fake_model
from parrotserve.sampling import FinishReason, Sampling
from parrotserve.scheduler.pool import Pool
from parrotserve.sdk.transport import Transport
from parrotserve.segments import Output, Text
from parrotserve.switches import Switches

PROMPT = "Say this in other words: a parrot repeats what it hears. " * 8
GREEDY = Sampling(max_tokens=1, seed=1)
WAITING, ENGINES = (10, 100, 1_000, 10_000, 100_000), (1, 16, 256)
IN_FLIGHT = 64


class FreeEngine(Engine):
    """Answers every sequence at once with a constant, in the service's own process."""

    def __init__(self, id: EngineId) -> None:  # noqa: A002 - the contract's name
        self.id = id
        self._lists: asyncio.Queue[list[Event] | None] = asyncio.Queue()
        self._beating: asyncio.Task[None] | None = None

    async def start(self) -> EngineDescription:
        self._beating = asyncio.create_task(self._beat())
        return self.describe()

    def describe(self) -> EngineDescription:
        return EngineDescription(
            model="fake",
            context_length=8192,
            cache_tokens=1 << 30,
            page_tokens=1,
            credits=1024,
            capabilities=frozenset(Capability),
        )

    async def send(self, commands: Sequence[Command]) -> None:
        events: list[Event] = []
        for command in commands:
            if isinstance(command, Open):
                sequence, epoch = command.sequence, command.epoch
                events += [
                    SegmentFinished(
                        sequence=sequence,
                        epoch=epoch,
                        segment=index,
                        tokens=(65,),
                        text="A",
                        reason=FinishReason.LENGTH,
                    )
                    for index, segment in enumerate(command.segments)
                    if isinstance(segment, Generate)
                ]
                events.append(SequenceEnded(sequence=sequence, epoch=epoch, status=EndStatus.DONE))
        if events:
            self._lists.put_nowait(events)

    async def events(self) -> AsyncIterator[list[Event]]:
        while (events := await self._lists.get()) is not None:
            yield events

    async def close(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        self._lists.put_nowait(None)

    async def _beat(self) -> None:
        while True:
            self._lists.put_nowait([Heartbeat()])
            await asyncio.sleep(1.0)


def load_free(name: str, config: ServiceConfig, progress: object) -> ServedModel:
    """The model that engines without cost serve."""
    return fake_model(FreeEngine, name=name)


# --- The machine -----------------------------------------------------------------------------------------------


def joining(number: int) -> EngineJoined:
    """One more engine, for eight requests at once."""
    return EngineJoined(engine=EngineId(f"e{number}"), model="m", context_length=8192, cache_tokens=1 << 20, credits=8)


class Bench:
    """A machine with engines, requests that run and requests that wait."""

    def __init__(self, engines: int) -> None:
        self.machine = Machine()
        self.running: deque[OpenSequence] = deque()
        for number in range(engines):
            self.machine.handle(joining(number), 0.0)

    def submit(self, session: str, count: int = 1) -> float:
        """So many requests of one session in a batch, waited for; seconds of `handle`."""
        variables = [VariableId(new_id("v")) for _ in range(count)]
        event = Submitted(
            session=SessionId(session),
            tenant=LOCAL_TENANT,
            lease_seconds=1e9,
            variables=tuple(NewVariable(variable) for variable in variables),
            requests=tuple(
                NewRequest(
                    id=RequestId(new_id("r")),
                    function="f",
                    model="m",
                    segments=(Text(f"{PROMPT}{session}"), Output(variable, GREEDY)),
                )
                for variable in variables
            ),
            waits=tuple(Wait(variable, Criteria.LATENCY) for variable in variables),
        )
        return self._handle(event)

    def finish_one(self) -> float:
        """The request that has run longest ends; seconds of `handle`, its placing of the next one included."""
        opened = self.running.popleft()
        output = self.machine.request(opened.request).outputs[0].id
        produced = OutputProduced(
            request=opened.request, epoch=opened.epoch, variable=output, value="A", reason=FinishReason.LENGTH
        )
        return self._handle(produced) + self._handle(RequestEnded(request=opened.request, epoch=opened.epoch))

    def _handle(self, event: Any) -> float:
        began = time.perf_counter()
        decisions = self.machine.handle(event, 1.0)
        seconds = time.perf_counter() - began
        self.running += [decision for decision in decisions if isinstance(decision, OpenSequence)]
        return seconds


def machine_alone(count: int) -> float:
    """Requests a second: submitted, placed, produced, ended, and their sessions ended, on one engine."""
    bench = Bench(1)
    began = time.perf_counter()
    for number in range(count):
        bench.submit(f"s{number}")
        bench.finish_one()
        ended = SessionEnded(session=SessionId(f"s{number}"), tenant=LOCAL_TENANT, reason="done")
        bench.machine.handle(ended, 1.0)
    return count / (time.perf_counter() - began)


def handle_costs(waiting: int, engines: int, *, samples: int = 200) -> dict[str, float]:
    """Microseconds of `handle`, medians: with `waiting` requests in sessions of ten and every engine full."""
    bench = Bench(engines)
    for number in range((waiting + 8 * engines + samples) // 10 + 1):
        bench.submit(f"w{number}", 10)
    gc.collect()
    gc.freeze()
    ends = [bench.finish_one() for _ in range(samples)]
    submits = [bench.submit(f"n{number}") for number in range(samples)]
    gc.unfreeze()
    return {"end_and_place": statistics.median(ends) * 1e6, "submit": statistics.median(submits) * 1e6}


def lookup_cost(engines: int, *, samples: int = 2000) -> float:
    """Microseconds, median, of looking up which engines are candidates for a request by its prefix."""
    bench = Bench(1)
    bench.submit("s")
    pool = Pool(Switches())
    for number in range(engines):
        pool.join(joining(number))
    ticket = pool.tickets.measured(bench.machine.request(bench.running[0].request))
    for load in pool.loads.values():
        load.residents.hold(ticket.prefix.boundaries, 0.25)
    times: list[float] = []
    for _ in range(samples):
        began = time.perf_counter()
        found = pool.candidates(ticket)
        times.append(time.perf_counter() - began)
        assert found
    return statistics.median(times) * 1e6


# --- The runtime and HTTP --------------------------------------------------------------------------------------


def body() -> Submit:
    """One request, waited for."""
    output = new_id("v")
    segments = (TextSegment(text=PROMPT), OutputSegment(variable=output, sampling=GREEDY))
    return Submit(
        session=new_id("s"),
        variables=(VariableSpec(id=output),),
        requests=(RequestSpec(id=new_id("r"), chat=False, segments=segments),),
        wait=(WaitSpec(variable=output),),
    )


async def runtime_alone(count: int) -> float:
    """Requests a second through the service in this process, so many in flight."""
    transport: Transport = EmbeddedTransport(ServiceConfig(models=("fake",)), load=load_free)
    await transport.open()
    try:

        async def one() -> None:
            request = body()
            async for _ in transport.submit(request):
                pass
            await transport.end_session(SessionId(request.session))

        return await _rate(one, count)
    finally:
        await transport.close()


async def _rate(one: Any, count: int) -> float:
    """Calls a second, `IN_FLIGHT` at once."""
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            await one()

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return count / (time.perf_counter() - began)


class Wire:
    """One of the two servers, and how it is asked."""

    def __init__(self, url: str, path: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=30, limits=httpx.Limits(max_connections=512))
        self._path = path

    async def ask(self) -> float:
        """Seconds of one exchange, its whole answer read."""
        content = body().model_dump_json()
        began = time.perf_counter()
        headers = {"content-type": "application/json"}
        answer = await self._client.post(self._path, content=content, headers=headers)
        answer.raise_for_status()
        return time.perf_counter() - began

    async def at_rate(self, rate: float, seconds: float, seed: str) -> list[float]:
        """Exchanges that begin at random moments, whatever became of those before."""
        chance = random.Random(seed)
        loop = asyncio.get_running_loop()
        moment, began = 0.0, loop.time()
        tasks: list[asyncio.Task[float]] = []
        while (moment := moment + chance.expovariate(rate)) < seconds:
            await asyncio.sleep(began + moment - loop.time())
            tasks.append(asyncio.create_task(self.ask()))
        return list(await asyncio.gather(*tasks))

    async def rate(self, count: int) -> float:
        """Exchanges a second, `IN_FLIGHT` at once."""
        return await _rate(self.ask, count)

    async def close(self) -> None:
        await self._client.aclose()


@contextlib.contextmanager
def child(role: str) -> Iterator[str]:
    """This script as a server of its own; its URL."""
    with subprocess.Popen([sys.executable, __file__, "--role", role], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if match := re.search(r"(http://\S+)", line):
                    yield match[1]
                    return
            sys.exit(f"The {role} did not come up.")
        finally:
            process.terminate()


def serve(role: str) -> None:
    """What a child runs: Parrot over free engines, or an echo that validates the same body."""
    from parrotserve.server.run import open_socket, serve_until_stopped

    if role == "parrot":
        with tempfile.TemporaryDirectory() as folder:
            config = ServiceConfig(models=("fake",), port=0, keys="never", data=Path(folder))
            asyncio.run(serve_until_stopped(config, announce=lambda line: print(line, flush=True), load=load_free))
        return
    import uvicorn
    from fastapi import FastAPI

    app = FastAPI()

    @app.post("/echo")
    async def echo(body: Submit) -> Submit:
        return body

    with contextlib.closing(open_socket("127.0.0.1", 0)) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        asyncio.run(uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve(sockets=[listener]))


async def over_http(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """Parrot and the echo in turns."""
    with child("parrot") as parrot_url, child("echo") as echo_url:
        wires = {"parrot": Wire(parrot_url, "/v1/submit"), "echo": Wire(echo_url, "/echo")}
        rates: dict[str, list[float]] = {name: [] for name in wires}
        times: dict[str, list[list[float]]] = {name: [] for name in wires}
        for number in range(options.rounds):
            for name, wire in wires.items():
                rates[name].append(await wire.rate(options.count // 4))
                times[name].append(
                    sorted(await wire.at_rate(options.rate, options.seconds, f"{options.seed} {number}"))
                )
        for wire in wires.values():
            await wire.close()
    result["http_requests_a_second"] = {name: [round(each) for each in found] for name, found in rates.items()}
    result["latency_milliseconds"] = {
        name: {f"p{q}": [round(_quantile(each, q) * 1000, 3) for each in found] for q in (50, 99)}
        for name, found in times.items()
    }
    shown = result["latency_milliseconds"]
    result["added_milliseconds"] = {
        q: round(statistics.median(shown["parrot"][q]) - statistics.median(shown["echo"][q]), 3) for q in ("p50", "p99")
    }


def _quantile(ordered: Sequence[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All of it."""
    result: dict[str, Any] = {"benchmark": "overhead", **circumstances(seed=options.seed), "rate": options.rate}
    result["machine_requests_a_second"] = [round(machine_alone(options.count)) for _ in range(options.rounds)]
    result["runtime_requests_a_second"] = [
        round(asyncio.run(runtime_alone(options.count))) for _ in range(options.rounds)
    ]
    asyncio.run(over_http(options, result))
    result["handle_microseconds"] = [
        {"waiting": waiting, "engines": engines}
        | {name: round(each, 1) for name, each in handle_costs(waiting, engines).items()}
        for engines in ENGINES
        for waiting in WAITING
        if waiting <= options.most_waiting
    ]
    result["prefix_lookup_microseconds"] = {str(engines): round(lookup_cost(engines), 2) for engines in ENGINES}
    return result


def show(result: dict[str, Any]) -> None:
    """For people."""
    console = Console(width=110)
    table = Table(title="Requests a second", title_justify="left")
    for column in ("through", "median", "range"):
        table.add_column(column, justify="left" if column == "through" else "right")
    rows = {"the machine": result["machine_requests_a_second"], "the runtime": result["runtime_requests_a_second"]}
    rows |= {f"{name} over HTTP": rates for name, rates in result["http_requests_a_second"].items()}
    for name, rates in rows.items():
        table.add_row(name, f"{statistics.median(rates):,.0f}", f"{min(rates):,} - {max(rates):,}")
    console.print(table)
    table = Table(title=f"Milliseconds a request at {result['rate']:g} a second", title_justify="left")
    for column in ("server", "p50", "p99"):
        table.add_column(column, justify="left" if column == "server" else "right")
    for name, found in result["latency_milliseconds"].items():
        table.add_row(name, *(f"{statistics.median(found[q]):.2f} ({min(found[q])}-{max(found[q])})" for q in found))
    table.add_row("Parrot adds", *(f"{each:.2f}" for each in result["added_milliseconds"].values()))
    console.print(table)
    table = Table(title="Microseconds of Machine.handle", title_justify="left")
    for column in ("engines", "waiting", "end one, place the next", "submit one"):
        table.add_column(column, justify="right")
    for row in result["handle_microseconds"]:
        table.add_row(*(f"{row[name]:,}" for name in ("engines", "waiting", "end_and_place", "submit")))
    console.print(table)
    lookups = ", ".join(f"{each} with {engines}" for engines, each in result["prefix_lookup_microseconds"].items())
    console.print(f"Microseconds of looking a prefix up, by engines: {lookups}")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=4000, help="requests in each measurement of throughput (4000)")
    parser.add_argument("--rate", type=float, default=200.0, help="arrivals a second for latencies (200)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of arrivals in each round (5)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--most-waiting", type=int, default=max(WAITING), help="leave out cases with more")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the JSON there too")
    parser.add_argument("--role", choices=["parrot", "echo"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        serve(options.role)
        return
    result = measure(options)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
