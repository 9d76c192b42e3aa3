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
"""A request that was aboard so many engines' deaths runs alone from then on, and fails at the next."""


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
    """Of its value and of beginnings of it, by length; made when they are first needed."""
    logprobs: int = 0
    """Log-probabilities that are kept with its value."""
    reason: FinishReason | None = None
    cause: Cause | None = None
    error: ParrotError | None = None
    asked: bool = False
    """Somebody has waited for it."""
    criteria: Criteria | None = None
    """What was asked of it first that is not THROUGHPUT."""
    streamed: bool = False
    followed: bool = False
    """The engine that writes it now tells what it has written to those that read ahead."""
    stages: "dict[int, TaskGroup]" = field(default_factory=dict[int, "TaskGroup"])
    """The task groups upstream of it, by their distance in stages."""
    holders: int = 0
    """Sessions that have it: one, or for a set value all that use it."""
    consumers: "dict[Producer, None]" = field(default_factory=dict["Producer", None])
    """Unfinished requests and native calls that need its value; nobody once it is READY."""
    fallen_consumers: "dict[Producer, None]" = field(default_factory=dict["Producer", None])
    """FAILED and CANCELLED ones, which a retry brings back."""

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
    """When things happened to a producer, on the clock of `now`."""

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
    """How many inputs are not READY."""
    arrival: int = 0
    """Its number in order of submission."""
    submission: int = 0
    """The number of the first one that was submitted with it."""
    position: int = 0
    """Its number in an order of the whole graph in which each comes after all that it needs."""
    cause: Cause | None = None
    error: ParrotError | None = None
    fell_by_input: bool = False
    """FAILED or CANCELLED only because an input did."""
    aboard: bool = False
    """An engine, the client or the sandbox has it and must be told if it is no longer wanted."""

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    @property
    def fallen(self) -> bool:
        return self.state in FALLEN

    def move(self, state: ProducerState, now: float, why: str) -> None:
        """See `Tracked`; the session keeps count."""
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
    """Why it has its objective; None: nobody waits for what it leads to."""
    engine: EngineId | None = None
    """Where it runs, or ran last."""
    epoch: int = 0
    """Counts its runs, so that late events of an earlier one are recognised."""
    deaths: tuple[tuple[EngineId, str], ...] = ()
    """The engines that died under it, and of what."""
    placement: Placement | None = None
    """Why it runs, or ran last, where it did."""
    ahead: EngineId | None = None
    """Where it is read while inputs of it are still being written."""
    usage: Usage = Usage()
    samplings: dict[VariableId, Sampling] = field(init=False)
    """How each output is written, by its id."""
    keeps_space: bool = field(init=False)
    """How an output begins depends on how the prompt before it ends: then all of it has to be known."""
    _awaited: int = 0
    """So many of its first inputs are READY, which they stay; there may be more."""
    _reads: int = 0
    """So many of its first segments read none of the others."""

    def __post_init__(self) -> None:
        self.samplings = {part.variable: part.sampling for part in self.spec.segments if isinstance(part, Output)}
        self.keeps_space = any(sampling.keep_space for sampling in self.samplings.values())

    @property
    def awaited(self) -> Variable:
        """The first input that is not READY, of one that has such. Looks at each input once, however often asked."""
        while self.inputs[self._awaited].ready:
            self._awaited += 1
        return self.inputs[self._awaited]

    @property
    def idle(self) -> bool:
        """It waits for inputs, and no engine writes the first that is not READY."""
        if self.state is not ProducerState.WAITING:
            return False
        writer = self.awaited.producer
        return not (isinstance(writer, Request) and writer.aboard)

    @property
    def reads(self) -> Input:
        """Where its prompt reads `awaited` first. Looks at each segment once, for inputs come in order of first use."""
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
        """The task group that it is a member of."""
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
    """What somebody waits for."""
    level: int
    """Stages between it and the result's producer."""
    members: dict[Request, None] = field(default_factory=dict[Request, None])
    """Without those that something stricter was found for."""
    first: int = 0
    """Arrival of the member that came first."""


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
    """Counts its retries, so that late results of an earlier one are recognised."""

    @property
    def id(self) -> CallId:
        return self.spec.id

    @property
    def function(self) -> str:
        return self.spec.function

    @property
    def given(self) -> tuple[VariableId, ...]:
        """Inputs, as often as it is given them."""
        sandboxed = self.spec.sandboxed
        return self.spec.inputs if sandboxed is None else tuple(slots_in(sandboxed.arguments))

    def __str__(self) -> str:
        return f"native call {self.function!r} ({shown(self.id)})"


Producer = Request | Call
"""What makes a variable's value."""


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
    """In the order in which sessions were opened."""
    held: int = 0
    """Bytes of memory that it takes with its requests and native calls, about."""
    attached: int = 0
    variables: dict[VariableId, Variable] = field(default_factory=dict[VariableId, Variable])
    requests: dict[RequestId, Request] = field(default_factory=dict[RequestId, Request])
    calls: dict[CallId, Call] = field(default_factory=dict[CallId, Call])

    request_states: Counter[ProducerState] = field(default_factory=Counter[ProducerState])
    """How many of its requests are in each state."""
    call_states: Counter[ProducerState] = field(default_factory=Counter[ProducerState])

    @property
    def producers(self) -> list[Producer]:
        return [*self.requests.values(), *self.calls.values()]

    def states_of(self, producer: _Node) -> Counter[ProducerState]:
        """How many producers of its kind are in each state."""
        return self.request_states if isinstance(producer, Request) else self.call_states
