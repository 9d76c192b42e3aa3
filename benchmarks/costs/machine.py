"""The machine alone: what `Machine.handle` takes, by how many requests wait and how many engines there are."""

import gc
import statistics
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from costs.free import GREEDY, PROMPT
from parrotserve.bounds import Bounds
from parrotserve.criteria import Criteria
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
from parrotserve.sampling import FinishReason
from parrotserve.scheduler.pool import Pool
from parrotserve.segments import Output, Text
from parrotserve.switches import Switches

WAITING, ENGINES = (10, 100, 1_000, 10_000, 100_000), (1, 16, 256)


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


def handle_costs(engines: int, waiting: Sequence[int], rounds: int, *, samples: int = 100) -> dict[str, Any]:
    """Microseconds of `handle`, a median for each round: with so many `waiting`, in sessions of ten, every engine full.

    The machines take turns. `longest` is the longest call of all, whatever happened in it.
    """
    benches = {number: _full(engines, number) for number in waiting}
    taken: dict[int, dict[str, list[float]]] = {number: {"end_and_place": [], "submit": []} for number in waiting}
    longest = dict.fromkeys(waiting, 0.0)
    for turn in range(rounds):
        for number, bench in benches.items():
            # One comes for each that ends, so that there are always as many.
            pairs = [(bench.finish_one(), bench.submit(f"n{turn}.{one}")) for one in range(samples)]
            ends, submits = [end for end, _ in pairs], [submit for _, submit in pairs]
            taken[number]["end_and_place"].append(_microseconds(ends))
            taken[number]["submit"].append(_microseconds(submits))
            longest[number] = max(longest[number], *ends, *submits)
    return {
        "engines": engines,
        "microseconds": {
            str(number): {**taken[number], "longest": round(longest[number] * 1e6, 1)} for number in waiting
        },
    }


def _full(engines: int, waiting: int) -> Bench:
    bench = Bench(engines)
    for number in range((waiting + 8 * engines) // 10 + 1):
        bench.submit(f"w{number}", 10)
    # They stay: looking through them for garbage again and again would be measured instead.
    gc.freeze()
    return bench


def _microseconds(seconds: Sequence[float]) -> float:
    return round(statistics.median(seconds) * 1e6, 2)


def lookup_costs(rounds: int, *, samples: int = 1000) -> dict[str, list[float]]:
    """Microseconds of looking up which engines are candidates for a request by its prefix, medians, by engines."""
    return {str(engines): [_lookup_cost(engines, samples) for _ in range(rounds)] for engines in ENGINES}


def _lookup_cost(engines: int, samples: int) -> float:
    bench = Bench(1)
    bench.submit("s")
    pool = Pool(Switches(), Bounds())
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
    return _microseconds(times)
