"""One engine that tenants share, on a virtual clock: a step takes longer for every row and every prompt in it."""

import math
from dataclasses import dataclass, field

from machine_world import World

from parrotserve.criteria import Criteria
from parrotserve.graph.decisions import Decision, OpenSequence, PauseSequence, ResumeSequence
from parrotserve.graph.events import NewRequest, StepsRun, TenantWeighed
from parrotserve.ids import EngineId, RequestId, TenantId, VariableId
from parrotserve.sampling import Sampling, Usage
from parrotserve.segments import Output, Text
from parrotserve.switches import Switches


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds of reading in a step, and of computing for a row and a prompt in it."""

    step: float
    row: float
    prompt: float = 0.0
    prompt_tokens: int = 40


@dataclass(slots=True, eq=False)
class Run:
    """A request, from its arrival on."""

    tenant: str
    arrived: float
    left: int
    """Tokens that it has not written."""
    read: bool = False
    paused: bool = False
    seconds: float = 0.0
    """Of the engine."""


@dataclass(slots=True)
class Tenant:
    """Who keeps so many requests open, and asks anew `gap` seconds after an answer; or sends one `every` so many."""

    name: str
    open: int = 0
    gap: float = 0.002
    every: float | None = None
    sessions: int = 1
    weight: float = 1.0
    tokens: int = 16
    criteria: Criteria | None = Criteria.LATENCY
    """None: nobody waits."""
    until: float = 100.0
    """When it stops asking."""
    start: float = 0.0
    sent: int = 0
    latencies: list[float] = field(default_factory=list[float])
    due: list[float] = field(init=False)
    """When its next requests arrive."""

    def __post_init__(self) -> None:
        if self.every is None:
            self.due = [self.start] * self.open
        else:
            self.due = [
                self.start + number * self.every for number in range(int((self.until - self.start) / self.every))
            ]


class SharedEngine:
    """Runs up to `places` requests a step, a token for each; the scheduler is told what steps took."""

    def __init__(
        self, cost: Cost, *tenants: Tenant, places: int = 64, switches: Switches = Switches(), pauses: bool = True
    ) -> None:
        self.cost = cost
        self.tenants = {tenant.name: tenant for tenant in tenants}
        self.world = World(check=False, switches=switches)
        self.world.join("e", places=1024, batch=places, pauses=pauses)
        for tenant in tenants:
            self.world.handle(TenantWeighed(TenantId(tenant.name), tenant.weight))
        self.runs: dict[str, Run] = {}
        self.aboard: dict[str, Run] = {}
        self.service: dict[str, float] = dict.fromkeys(self.tenants, 0.0)
        self.pauses = 0
        self._sent = 0

    def run(self, until: float) -> "SharedEngine":
        """Up to a moment."""
        now = self.world.now
        while now < until:
            self._arrive(now)
            running = {name: run for name, run in self.aboard.items() if not run.paused}
            if running:
                now += self._seconds(list(running.values()))
                self._step(running, now)
            else:
                now = min((due for one in self.tenants.values() for due in one.due), default=until)
        return self

    def rows(self, tenant: str) -> int:
        """Of a tenant in the next step."""
        return sum(run.tenant == tenant and not run.paused for run in self.aboard.values())

    def _seconds(self, running: list[Run]) -> float:
        decoding = sum(run.read for run in running)
        return math.hypot(self.cost.step, self.cost.row * decoding + self.cost.prompt * (len(running) - decoding))

    def _arrive(self, now: float) -> None:
        for tenant in self.tenants.values():
            arrived = [due for due in tenant.due if due <= now]
            tenant.due = [due for due in tenant.due if due > now]
            for due in arrived if now < tenant.until else ():
                self._ask(tenant, due, now)

    def _ask(self, tenant: Tenant, due: float, now: float) -> None:
        self.world.now = now
        self._sent += 1
        name, variable = f"r{self._sent}", f"v{self._sent}"
        # No two begin alike, and outputs differ in length, as they do: else all would end at once, for ever.
        tenant.sent += 1
        length = tenant.tokens // 2 + tenant.sent * 7919 % (tenant.tokens + 1)
        self.runs[name] = Run(tenant.name, due, length)
        text = f"{name} tells of itself: ".ljust(self.cost.prompt_tokens * 4)
        sampling = Sampling(seed=0, max_tokens=tenant.tokens, ignore_eos=True)
        segments = (Text(text), Output(VariableId(variable), sampling))
        spec = NewRequest(id=RequestId(name), function="Tell", model="m", segments=segments)
        self._carry_out(
            self.world.submit(
                spec,
                waits=[variable] if tenant.criteria is not None else [],
                tenant=tenant.name,
                session=f"{tenant.name}{self._sent % tenant.sessions}",
                lease=1e9,
            )
        )

    def _step(self, running: dict[str, Run], now: float) -> None:
        self.world.now = now
        decoding = sum(run.read for run in running.values())
        reading, took = len(running) - decoding, self._seconds(list(running.values()))
        self._carry_out(
            self.world.handle(
                StepsRun(
                    engine=EngineId("e"),
                    steps=1,
                    prefill_tokens=reading * self.cost.prompt_tokens,
                    decode_rows=decoding,
                    kv_tokens=0,
                    attended=0,
                    seconds=took,
                )
            )
        )
        fixed = self.cost.step / len(running)
        shares = {name: fixed + (self.cost.row if run.read else self.cost.prompt) for name, run in running.items()}
        whole = sum(shares.values())
        for name, run in running.items():
            seconds = took * shares[name] / whole
            run.seconds += seconds
            self.service[run.tenant] += seconds
            run.read, run.left = True, run.left - 1
            if run.left <= 0:
                self._end(name, run, now)

    def _end(self, name: str, run: Run, now: float) -> None:
        del self.aboard[name], self.runs[name]
        tenant = self.tenants[run.tenant]
        tenant.latencies.append(now - run.arrived)
        if tenant.every is None:
            tenant.due.append(now + tenant.gap)
        self._carry_out(self.world.produce(name, f"v{name[1:]}"))
        usage = Usage(self.cost.prompt_tokens, 0, tenant.tokens, run.seconds)
        self._carry_out(self.world.end(name, usage=usage))

    def _carry_out(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            match decision:
                case OpenSequence():
                    self.aboard[decision.request] = self.runs[decision.request]
                case PauseSequence():
                    self.aboard[decision.request].paused = True
                    self.pauses += 1
                case ResumeSequence():
                    self.aboard[decision.request].paused = False
                case _:
                    pass
