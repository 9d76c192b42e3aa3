"""What the graph is made of: variables, their producers (requests and native calls), and sessions."""

from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar

from parrotserve.criteria import Criteria, Objective
from parrotserve.errors import ParrotError
from parrotserve.graph.causes import Cause
from parrotserve.graph.events import NewCall, NewRequest, NewVariable
from parrotserve.graph.placements import Placement
from parrotserve.graph.states import (
    CALL_TRANSITIONS,
    FALLEN,
    FINISHED,
    REQUEST_TRANSITIONS,
    SETTLED,
    VARIABLE_TRANSITIONS,
    ProducerState,
    Tracked,
    Transitions,
    VariableState,
)
from parrotserve.ids import CallId, EngineId, RequestId, SessionId, TenantId, VariableId, shown
from parrotserve.native_calls import slots_in
from parrotserve.sampling import FinishReason, Sampling, Usage
from parrotserve.segments import Input, Output

DEATHS_OF_A_SUSPECT = 2
"""Number of engine deaths under it after which a request runs alone; it fails at the next one."""


@dataclass(slots=True, eq=False, kw_only=True, repr=False)
class Variable(Tracked[VariableState]):
    """A semantic variable."""

    transitions: ClassVar[Transitions] = VARIABLE_TRANSITIONS

    declared: NewVariable
    tenant: TenantId
    state: VariableState = VariableState.EMPTY
    producer: "Producer | None" = None
    value: str | None = None
    digests: tuple[tuple[int, bytes], ...] = ()
    """(length, hash) of its value and of beginnings of it; computed when first needed."""
    logprobs: int = 0
    """Number of log-probabilities kept with its value."""
    reason: FinishReason | None = None
    cause: Cause | None = None
    error: ParrotError | None = None
    asked: bool = False
    """Whether somebody has waited for it."""
    criteria: Criteria | None = None
    """The first criteria other than THROUGHPUT that was asked of it."""
    streamed: bool = False
    followed: bool = False
    """Whether the engine that writes it was asked to report its text as it grows, for requests that run ahead."""
    stages: "dict[int, TaskGroup]" = field(default_factory=dict[int, "TaskGroup"])
    """The task groups upstream of it, by their distance from it in stages."""
    holders: int = 0
    """Number of sessions that hold it: one, or all that use it if its value was set."""
    consumers: "dict[Producer, None]" = field(default_factory=dict["Producer", None])
    """Unfinished requests and native calls that need its value; empty once it is READY."""
    fallen_consumers: "dict[Producer, None]" = field(default_factory=dict["Producer", None])
    """FAILED and CANCELLED consumers, which a retry may revive; empty once it is READY."""

    @property
    def id(self) -> VariableId:
        return self.declared.id

    @property
    def urgent(self) -> bool:
        """Somebody has waited for it with a criteria other than THROUGHPUT."""
        return self.criteria is not None

    @property
    def ready(self) -> bool:
        return self.state is VariableState.READY

    @property
    def fallen(self) -> bool:
        return self.state in FALLEN

    @property
    def settled(self) -> bool:
        return self.state in SETTLED

    @property
    def was_set(self) -> bool:
        """READY because a client set it: usable in every session of its tenant."""
        return self.ready and self.producer is None

    def __str__(self) -> str:
        identity = shown(self.id)
        return f"variable {self.declared.name!r} ({identity})" if self.declared.name else f"variable {identity}"


@dataclass(slots=True, kw_only=True)
class Times:
    """When a producer was submitted, had its inputs, started and ended, on the clock of `now`."""

    submitted: float
    ready: float | None = None
    started: float | None = None
    ended: float | None = None


@dataclass(slots=True, eq=False, kw_only=True, repr=False)
class _Node(Tracked[ProducerState]):
    """What requests and native calls have in common: they make outputs from inputs."""

    session: "Session"
    inputs: tuple[Variable, ...]
    """Distinct, in order of first use."""
    outputs: tuple[Variable, ...]
    times: Times
    state: ProducerState = ProducerState.WAITING
    missing: int = 0
    """Number of inputs that are not READY."""
    arrival: int = 0
    """Its number in order of submission."""
    submission: int = 0
    """The arrival number of the first producer of its batch."""
    position: int = 0
    """Its number in a topological order of the whole graph: above those of all producers that it depends on."""
    cause: Cause | None = None
    error: ParrotError | None = None
    fell_by_input: bool = False
    """Whether it FAILED or was CANCELLED only because an input did."""
    aboard: bool = False
    """Whether an engine, the client or the sandbox is running it, and must be told if it is no longer wanted."""

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    @property
    def fallen(self) -> bool:
        return self.state in FALLEN

    def move(self, state: ProducerState, now: float, why: str) -> None:
        """See `Tracked.move`; also updates the session's counts of states."""
        before = self.state
        Tracked.move(self, state, now, why)
        states = self.session.states_of(self)
        states[before] -= 1
        states[state] += 1


@dataclass(slots=True, eq=False, kw_only=True, repr=False)
class Request(_Node):
    """One call of a semantic function."""

    transitions: ClassVar[Transitions] = REQUEST_TRANSITIONS

    spec: NewRequest
    objective: Objective = Objective.THROUGHPUT
    deduced: "Deduction | None" = None
    """Why it has its objective; None: nobody waits for anything downstream of it."""
    engine: EngineId | None = None
    """The engine that runs it, or ran it last."""
    epoch: int = 0
    """Number of the current run, by which late events of earlier runs are recognised."""
    deaths: tuple[tuple[EngineId, str], ...] = ()
    """The engines that died while they ran it, each with the reason."""
    placement: Placement | None = None
    """Why the engine of its current or last run was chosen."""
    ahead: EngineId | None = None
    """The engine that prefills it ahead, while inputs of it are still being written."""
    usage: Usage = Usage()
    samplings: dict[VariableId, Sampling] = field(init=False)
    """The sampling of each output, by variable."""
    keeps_space: bool = field(init=False)
    """Whether an output keeps its leading space. That depends on how the prompt before it ends, so all of the prompt
    must be known before the request runs."""
    _awaited: int = 0
    """At least this many of its first inputs are READY (and stay so)."""
    _reads: int = 0
    """At least this many of its first segments read none of the other inputs."""

    def __post_init__(self) -> None:
        self.samplings = {part.variable: part.sampling for part in self.spec.segments if isinstance(part, Output)}
        self.keeps_space = any(sampling.keep_space for sampling in self.samplings.values())

    @property
    def awaited(self) -> Variable:
        """The first input that is not READY; there must be one. Amortised: each input is passed once."""
        while self.inputs[self._awaited].ready:
            self._awaited += 1
        return self.inputs[self._awaited]

    @property
    def idle(self) -> bool:
        """Whether it waits for inputs, and no engine is writing the first one that is not READY."""
        if self.state is not ProducerState.WAITING:
            return False
        writer = self.awaited.producer
        return not (isinstance(writer, Request) and writer.aboard)

    @property
    def reads(self) -> Input:
        """The first segment that reads `awaited`. Amortised: each segment is passed once, as inputs are in order of
        first use."""
        awaited, parts = self.awaited.id, self.spec.segments
        while not (isinstance(part := parts[self._reads], Input) and part.variable == awaited):
            self._reads += 1
        return part

    @property
    def id(self) -> RequestId:
        return self.spec.id

    @property
    def function(self) -> str:
        return self.spec.function

    @property
    def group(self) -> "TaskGroup | None":
        """The task group that it is a member of, if any."""
        return self.deduced.group if self.deduced is not None else None

    @property
    def suspect(self) -> bool:
        return len(self.deaths) >= DEATHS_OF_A_SUSPECT

    def __str__(self) -> str:
        return f"{self.function!r} ({shown(self.id)})" if self.function else f"request {shown(self.id)}"


@dataclass(slots=True, eq=False, repr=False)
class TaskGroup:
    """Parallel requests of one stage: only the end of the last one counts."""

    result: Variable
    """The variable that somebody waits for."""
    level: int
    """How many stages upstream of the result's producer it is."""
    members: dict[Request, None] = field(default_factory=dict[Request, None])
    """Its requests, except those that have a stricter objective for another reason."""
    first: int = 0
    """The lowest arrival number of its members."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Deduction:
    """Why a request has an objective: somebody waits for `result`, `level` stages downstream of its outputs."""

    objective: Objective
    result: Variable
    level: int
    group: TaskGroup | None = None


@dataclass(slots=True, eq=False, kw_only=True, repr=False)
class Call(_Node):
    """One native call."""

    transitions: ClassVar[Transitions] = CALL_TRANSITIONS

    spec: NewCall
    attempt: int = 1
    """Number of the current attempt (retries add one), by which late results of earlier ones are recognised."""

    @property
    def id(self) -> CallId:
        return self.spec.id

    @property
    def function(self) -> str:
        return self.spec.function

    @property
    def given(self) -> tuple[VariableId, ...]:
        """Its inputs, each as often as it is passed to the function."""
        sandboxed = self.spec.sandboxed
        return self.spec.inputs if sandboxed is None else tuple(slots_in(sandboxed.arguments))

    def __str__(self) -> str:
        return f"native call {self.function!r} ({shown(self.id)})"


Producer = Request | Call
"""What can produce a variable's value."""


@dataclass(slots=True, eq=False, kw_only=True, repr=False)
class Session:
    """The life of one application run."""

    id: SessionId
    tenant: TenantId
    lease_seconds: float
    began: float
    used: float = 0.0
    """When its client was last in touch."""
    number: int = 0
    """Its number in the order in which sessions were opened."""
    held: int = 0
    """Approximate memory of the session, its requests and native calls, in bytes; variables are not included."""
    attached: int = 0
    variables: dict[VariableId, Variable] = field(default_factory=dict[VariableId, Variable])
    requests: dict[RequestId, Request] = field(default_factory=dict[RequestId, Request])
    calls: dict[CallId, Call] = field(default_factory=dict[CallId, Call])

    request_states: Counter[ProducerState] = field(default_factory=Counter[ProducerState])
    """Number of its requests in each state."""
    call_states: Counter[ProducerState] = field(default_factory=Counter[ProducerState])

    @property
    def producers(self) -> list[Producer]:
        return [*self.requests.values(), *self.calls.values()]

    def states_of(self, producer: _Node) -> Counter[ProducerState]:
        """The counts by state of the session's producers of the same kind."""
        return self.request_states if isinstance(producer, Request) else self.call_states
