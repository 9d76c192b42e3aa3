"""Tenants on a contended engine, on a virtual clock: who sends more, or in more sessions, takes nothing from others."""

import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from machine_world import World

from parrotserve.graph.decisions import Decision, OpenSequence, PauseSequence, ResumeSequence
from parrotserve.graph.events import NewRequest, TenantWeighed
from parrotserve.ids import RequestId, TenantId, VariableId
from parrotserve.sampling import Sampling, Usage
from parrotserve.segments import Output, Text

PLACES = 8
STEP_SECONDS = 0.01
ROW_SECONDS = 0.001
"""What a step takes, and what each sequence in it adds."""
TOKENS = 40
"""Of an output, on average: half as many to one and a half times."""
SECONDS = 20.0
"""Of each simulation."""
CAPACITY = PLACES / (TOKENS * (STEP_SECONDS + PLACES * ROW_SECONDS))
"""Requests a second of an engine that is always full."""


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    moment: float
    tenant: str
    session: str


def every(seconds: float, tenant: str, *, until: float, sessions: int = 1, start: float = 0.0) -> Iterator[Arrival]:
    """A request each so many seconds, in turn in so many sessions."""
    for number in range(int((until - start) / seconds)):
        yield Arrival(start + number * seconds, tenant, f"{tenant}{number % sessions}")


class Simulation:
    """One engine that runs up to `PLACES` sequences, a token a step for each."""

    def __init__(self, **weights: float) -> None:
        self.world = World("e", places=PLACES, check=False)
        for tenant, weight in weights.items():
            self.world.handle(TenantWeighed(TenantId(tenant), weight))
        self.left: dict[str, int] = {}
        self.paused: set[str] = set()
        self.arrived: dict[str, Arrival] = {}
        self.seconds: dict[str, float] = {}
        self.latencies: dict[str, list[float]] = {}
        self.service: Counter[str] = Counter()

    def run(self, arrivals: Iterator[Arrival], *, until: float) -> None:
        """All arrivals, up to a moment."""
        pending = sorted(arrivals, reverse=True)
        now = 0.0
        while now < until:
            while pending and pending[-1].moment <= now:
                self._arrive(pending.pop(), now)
            running = [name for name in self.left if name not in self.paused]
            if running:
                now += STEP_SECONDS + ROW_SECONDS * len(running)
                self._step(running, now)
            elif pending:
                now = pending[-1].moment
            else:
                return

    def _arrive(self, arrival: Arrival, now: float) -> None:
        self.world.now = now
        name = f"r{len(self.arrived)}"
        self.arrived[name] = arrival
        # No two begin alike: what requests share is another matter.
        segments = (Text(f"{name} tells of itself: "), Output(VariableId(f"v.{name}"), Sampling(seed=0)))
        spec = NewRequest(id=RequestId(name), function="Tell", model="m", segments=segments)
        waits = [f"v.{name}"]
        self._carry_out(self.world.submit(spec, waits=waits, tenant=arrival.tenant, session=arrival.session, lease=1e6))

    def _step(self, running: list[str], now: float) -> None:
        self.world.now = now
        share = (STEP_SECONDS + ROW_SECONDS * len(running)) / len(running)
        for name in running:
            self.left[name] -= 1
            self.seconds[name] = self.seconds.get(name, 0.0) + share
            tenant = self.arrived[name].tenant
            self.service[tenant] += share
            if self.left[name] == 0:
                del self.left[name]
                self.latencies.setdefault(tenant, []).append(now - self.arrived[name].moment)
                self._carry_out(self.world.produce(name, f"v.{name}"))
                self._carry_out(self.world.end(name, usage=Usage(0, 0, TOKENS, self.seconds.pop(name))))

    def _carry_out(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            match decision:
                case OpenSequence():
                    # Outputs differ in length, as they do: else all would end at once, for ever.
                    number = int(decision.request.removeprefix("r"))
                    self.left[decision.request] = TOKENS // 2 + number * 7919 % (TOKENS + 1)
                case PauseSequence():
                    self.paused.add(decision.request)
                case ResumeSequence():
                    self.paused.discard(decision.request)
                case _:
                    pass


def median_of_ann(rate: float, bobs: float, **sessions: int) -> float:
    """Ann's median latency while she sends so many requests a second, and Bob so many."""
    simulation = Simulation()
    load = [*every(1 / rate, "ann", until=SECONDS), *every(1 / bobs, "bob", until=SECONDS, start=0.003, **sessions)]
    simulation.run(iter(load), until=SECONDS)
    return statistics.median(simulation.latencies["ann"])


def test_fifty_times_the_load_of_one_tenant_hardly_slows_another():
    rate = 0.5 * CAPACITY
    assert median_of_ann(rate, 50 * rate) <= 1.3 * median_of_ann(rate, rate)


def test_who_asks_for_less_than_her_share_waits_for_little_more_than_a_place():
    """An engine that others fill is slower than one that they leave half empty; beyond that she loses little."""
    in_a_full_engine = PLACES / CAPACITY
    for share in (0.1, 0.3):
        assert median_of_ann(share * CAPACITY, 50 * CAPACITY) <= 1.3 * in_a_full_engine


def test_a_hundred_sessions_gain_nothing():
    simulation = Simulation()
    load = [
        *every(0.5 / CAPACITY, "ann", until=SECONDS),
        *every(0.5 / CAPACITY, "bob", until=SECONDS, sessions=100, start=0.003),
    ]
    simulation.run(iter(load), until=SECONDS)
    assert 0.95 <= simulation.service["bob"] / simulation.service["ann"] <= 1.05
    assert median_of_ann(0.45 * CAPACITY, 20 * CAPACITY, sessions=100) <= 1.05 * median_of_ann(
        0.45 * CAPACITY, 20 * CAPACITY
    )


def test_weights_of_three_to_one_give_service_of_three_to_one():
    simulation = Simulation(ann=3.0)
    load = [*every(0.5 / CAPACITY, "ann", until=SECONDS), *every(0.5 / CAPACITY, "bob", until=SECONDS, start=0.003)]
    simulation.run(iter(load), until=SECONDS)
    assert 2.7 <= simulation.service["ann"] / simulation.service["bob"] <= 3.3
