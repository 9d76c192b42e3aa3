"""Pictures of the graph for people and APIs: they do not change when it does."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from parrotserve.criteria import Criteria, Objective
from parrotserve.errors import ParrotError
from parrotserve.graph.objects import Call, Producer, Request, Session, Variable
from parrotserve.graph.placements import Placement
from parrotserve.graph.states import ProducerState, VariableState
from parrotserve.ids import CallId, EngineId, RequestId, SessionId, TenantId, VariableId
from parrotserve.sampling import FinishReason, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Seconds since the session began; None: not yet."""

    submitted: float
    ready: float | None
    """When all inputs were known."""
    started: float | None
    """When it was first handed to an engine, to the client or to the sandbox."""
    ended: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableSnapshot:
    """A semantic variable."""

    id: VariableId
    name: str | None
    state: VariableState
    producer: RequestId | CallId | None
    value: str | None
    reason: FinishReason | None
    error: ParrotError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Because:
    """Why a request has its objective: somebody waits for `result`, which depends on it."""

    result: VariableId
    criteria: Criteria
    stages: int
    """How many stages of requests it is upstream of the result's producer; 0: it is in the last stage."""
    group: int | None
    """Size of the task group that it is a member of; None: it is alone in its stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSnapshot:
    """A request."""

    id: RequestId
    function: str
    model: str
    state: ProducerState
    inputs: tuple[VariableId, ...]
    outputs: tuple[VariableId, ...]
    objective: Objective
    engine: EngineId | None
    """The engine that runs it, or ran it last."""
    epoch: int
    timings: Timings
    usage: Usage
    """Summed over its runs that ended; what an engine did before it died is unknown."""
    error: ParrotError | None
    because: Because | None
    """Why it has its objective; None: nobody waits for anything downstream of it."""
    placement: Placement | None
    """Why the engine of its current or last run was chosen; None: it has not run yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSnapshot:
    """A native call."""

    id: CallId
    function: str
    state: ProducerState
    inputs: tuple[VariableId, ...]
    output: VariableId
    timings: Timings
    error: ParrotError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSnapshot:
    """A session's graph."""

    id: SessionId
    tenant: TenantId
    lease_seconds: float
    began: float
    """On the clock of `now`."""
    attached: int
    variables: tuple[VariableSnapshot, ...]
    requests: tuple[RequestSnapshot, ...]
    calls: tuple[CallSnapshot, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSummary:
    """A session without its graph."""

    id: SessionId
    tenant: TenantId
    number: int
    """Its number in the order in which sessions were opened."""
    lease_seconds: float
    began: float
    """This and `used` are on the clock of `now`."""
    used: float
    """When its client was last in touch; not kept up to date while exchanges are open."""
    attached: int
    variables: int
    requests: dict[ProducerState, int]
    """Number of its requests in each state; states without any are left out."""
    calls: dict[ProducerState, int]


def picture_sessions(sessions: Iterable[Session], tenant: TenantId | None, after: int) -> Iterator[SessionSummary]:
    """Sessions of a tenant (None: of all tenants) with numbers above `after`, in the order given. The cost does not
    depend on what the sessions hold."""
    for session in sessions:
        if session.number > after and tenant in (None, session.tenant):
            yield SessionSummary(
                id=session.id,
                tenant=session.tenant,
                number=session.number,
                lease_seconds=session.lease_seconds,
                began=session.began,
                used=session.used,
                attached=session.attached,
                variables=len(session.variables),
                requests=dict(+session.request_states),
                calls=dict(+session.call_states),
            )


def picture_session(session: Session) -> SessionSnapshot:
    """The session as it is now, in order of declaration."""
    return SessionSnapshot(
        id=session.id,
        tenant=session.tenant,
        lease_seconds=session.lease_seconds,
        began=session.began,
        attached=session.attached,
        variables=tuple(picture_variable(variable) for variable in session.variables.values()),
        requests=tuple(_request(request) for request in session.requests.values()),
        calls=tuple(_call(call) for call in session.calls.values()),
    )


def picture_variable(variable: Variable) -> VariableSnapshot:
    """The variable as it is now."""
    return VariableSnapshot(
        id=variable.id,
        name=variable.declared.name,
        state=variable.state,
        producer=variable.producer.id if variable.producer is not None else None,
        value=variable.value,
        reason=variable.reason,
        error=variable.error,
    )


def _request(request: Request) -> RequestSnapshot:
    return RequestSnapshot(
        id=request.id,
        function=request.function,
        model=request.spec.model,
        state=request.state,
        inputs=tuple(variable.id for variable in request.inputs),
        outputs=tuple(variable.id for variable in request.outputs),
        objective=request.objective,
        engine=request.engine,
        epoch=request.epoch,
        timings=_timings(request),
        usage=request.usage,
        error=request.error,
        because=_because(request),
        placement=request.placement,
    )


def _because(request: Request) -> Because | None:
    deduced = request.deduced
    if deduced is None or deduced.result.criteria is None:
        return None
    group = len(deduced.group.members) if deduced.group is not None else None
    return Because(result=deduced.result.id, criteria=deduced.result.criteria, stages=deduced.level, group=group)


def _call(call: Call) -> CallSnapshot:
    return CallSnapshot(
        id=call.id,
        function=call.function,
        state=call.state,
        inputs=call.spec.inputs,
        output=call.spec.output,
        timings=_timings(call),
        error=call.error,
    )


def _timings(producer: Producer) -> Timings:
    began, times = producer.session.began, producer.times

    def since(when: float | None) -> float | None:
        return None if when is None else when - began

    return Timings(
        submitted=times.submitted - began,
        ready=since(times.ready),
        started=since(times.started),
        ended=since(times.ended),
    )
