"""A machine with a shorthand for what happens to it; its integrity is checked after every event.

`"write: task -> code"` is a request `write` that reads `task` and produces `code`; variables are declared as they are
first named. Everything else has its obvious default.
"""

import pickle
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import pytest

from parrotserve.bounds import Bounds
from parrotserve.criteria import Criteria
from parrotserve.errors import ParrotError, RequestRefused
from parrotserve.graph.decisions import CancelSequence, Decision
from parrotserve.graph.events import (
    CallReturned,
    EngineJoined,
    EngineLost,
    Event,
    NewCall,
    NewRequest,
    NewVariable,
    OutputProduced,
    RequestEnded,
    Retried,
    SessionEnded,
    SessionTouched,
    Submitted,
    Ticked,
    ValueSet,
    Wait,
    Waited,
    Withdrawn,
)
from parrotserve.graph.objects import Variable
from parrotserve.graph.states import ProducerState
from parrotserve.ids import CallId, EngineId, RequestId, SessionId, TenantId, VariableId
from parrotserve.machine import Machine
from parrotserve.native_calls import SandboxedCall
from parrotserve.sampling import FinishReason, Sampling, Usage
from parrotserve.scheduler.scheduler import AT_ONCE
from parrotserve.segments import Input, Output
from parrotserve.switches import Switches

D = TypeVar("D")


def parse(line: str) -> tuple[str, tuple[VariableId, ...], tuple[VariableId, ...]]:
    name, rest = line.split(":")
    inputs, outputs = rest.split("->")
    return name.strip(), tuple(map(VariableId, inputs.split())), tuple(map(VariableId, outputs.split()))


def request(line: str, *, model: str = "m", sampling: Sampling = Sampling(seed=0)) -> NewRequest:
    name, inputs, outputs = parse(line)
    segments = (*(Input(variable) for variable in inputs), *(Output(variable, sampling) for variable in outputs))
    return NewRequest(id=RequestId(name), function=name.title(), model=model, segments=segments)


def call(line: str, *, timeout: float | None = None, sandboxed: SandboxedCall | None = None) -> NewCall:
    name, inputs, (output,) = parse(line)
    return NewCall(
        id=CallId(name), function=name.title(), inputs=inputs, output=output, timeout=timeout, sandboxed=sandboxed
    )


class World:
    def __init__(
        self,
        *engines: str,
        places: int = 100,
        check: bool = True,
        switches: Switches = Switches(),
        bounds: Bounds = Bounds(),
        at_once: int = AT_ONCE,
    ) -> None:
        self.machine = Machine(models=["m"], switches=switches, bounds=bounds, at_once=at_once)
        self._check = check
        self.now = 0.0
        for engine in engines:
            self.join(engine, places=places)

    def handle(self, event: Event) -> list[Decision]:
        decisions = self.machine.handle(event, self.now)
        if self._check:
            self.machine.check_integrity()
        return decisions

    def refuses(self, error: type[RequestRefused], event: Event, *, match: str | None = None) -> RequestRefused:
        """The event is refused, and leaves no trace."""
        before = pickle.dumps(self.machine)
        with pytest.raises(error, match=match) as caught:
            self.machine.handle(event, self.now)
        assert type(caught.value) is error
        assert pickle.dumps(self.machine) == before
        return caught.value

    # --- Clients ---------------------------------------------------------------------------------------------

    def batch(
        self,
        *requests: str | NewRequest,
        calls: Iterable[str | NewCall] = (),
        values: Mapping[str, str] | None = None,
        waits: Iterable[str | Wait] = (),
        variables: Iterable[NewVariable] | None = None,
        session: str = "s",
        tenant: str = "t",
        lease: float = 30.0,
    ) -> Submitted:
        specs = tuple(request(one) if isinstance(one, str) else one for one in requests)
        made = tuple(call(one) if isinstance(one, str) else one for one in calls)
        named: dict[VariableId, str | None] = {VariableId(name): text for name, text in (values or {}).items()}
        for spec in specs:
            named |= {one.variable: None for one in spec.segments if isinstance(one, (Input, Output)) and
                      one.variable not in named}  # fmt: skip
        for spec in made:
            named |= {variable: None for variable in (*spec.inputs, spec.output) if variable not in named}
        declared = tuple(
            NewVariable(name, value=value) for name, value in named.items() if name not in self.machine.graph.variables
        )
        return Submitted(
            session=SessionId(session),
            tenant=TenantId(tenant),
            lease_seconds=lease,
            variables=declared if variables is None else tuple(variables),
            requests=specs,
            calls=made,
            waits=tuple(wait if isinstance(wait, Wait) else asked(wait) for wait in waits),
        )

    def submit(self, *requests: str | NewRequest, **others: object) -> list[Decision]:
        return self.handle(self.batch(*requests, **others))  # type: ignore[arg-type]

    def wait(self, variable: str, criteria: Criteria = Criteria.LATENCY, *, stream: bool = False) -> list[Decision]:
        return self.handle(waited(variable, criteria, stream=stream))

    def set(self, variable: str, value: str = "text") -> list[Decision]:
        return self.handle(value_set(variable, value))

    def cancel(self, variable: str) -> list[Decision]:
        return self.handle(withdrawn(variable))

    def retry(self, variable: str) -> list[Decision]:
        return self.handle(retried(variable))

    def touch(self, attached: int, session: str = "s") -> list[Decision]:
        return self.handle(SessionTouched(session=SessionId(session), tenant=TenantId("t"), attached=attached))

    def end_session(self, session: str = "s") -> list[Decision]:
        return self.handle(session_ended(session))

    def answer(
        self, call: str, value: str | None = None, error: str | None = None, *, attempt: int | None = None
    ) -> list[Decision]:
        return self.handle(returned(call, value, error, attempt=attempt))

    # --- Engines and the clock -------------------------------------------------------------------------------

    def join(self, engine: str, *, model: str = "m", places: int = 100, **fields: Any) -> list[Decision]:
        room: dict[str, Any] = {"context_length": 4096, "cache_tokens": 1 << 20}
        return self.handle(EngineJoined(engine=EngineId(engine), model=model, credits=places, **room | fields))

    def lose(self, engine: str, reason: str = "killed") -> list[Decision]:
        return self.handle(EngineLost(engine=EngineId(engine), reason=reason))

    def produce(
        self, request: str, variable: str, value: str | None = None, *, epoch: int | None = None
    ) -> list[Decision]:
        return self.handle(
            OutputProduced(
                request=RequestId(request),
                epoch=self.epoch(request) if epoch is None else epoch,
                variable=VariableId(variable),
                value=f"<{variable}>" if value is None else value,
                reason=FinishReason.STOP,
            )
        )

    def end(
        self,
        request: str,
        error: ParrotError | None = None,
        *,
        epoch: int | None = None,
        cancelled: bool = False,
        usage: Usage = Usage(),
    ) -> list[Decision]:
        epoch = self.epoch(request) if epoch is None else epoch
        return self.handle(
            RequestEnded(request=RequestId(request), epoch=epoch, usage=usage, error=error, cancelled=cancelled)
        )

    def run(self, request: str) -> list[Decision]:
        """The engine produces all outputs of a request, and ends it."""
        found = self.machine.request(RequestId(request))
        produced = [one for output in found.outputs if not output.ready for one in self.produce(request, output.id)]
        return produced + self.end(request)

    def let_go(self, decisions: list[Decision]) -> list[Decision]:
        """Engines end what they are told to; the same decisions."""
        for one in only(decisions, CancelSequence):
            self.end(one.request, epoch=one.epoch, cancelled=True)
        return decisions

    def tick(self, now: float) -> list[Decision]:
        self.now = now
        return self.handle(Ticked())

    # --- What can be seen ------------------------------------------------------------------------------------

    def epoch(self, request: str) -> int:
        return self.machine.request(RequestId(request)).epoch

    def states(self, session: str = "s") -> dict[str, str]:
        view = self.machine.session_view(SessionId(session), TenantId("t"))
        return {one.id: one.state.value for one in (*view.variables, *view.requests, *view.calls)}

    def state(self, name: str, session: str = "s") -> str:
        return self.states(session)[name]

    def error(self, variable: str) -> ParrotError:
        error = self.variable(variable).error
        assert error is not None
        return error

    def variable(self, variable: str, session: str = "s", tenant: str = "t") -> Variable:
        """A variable that a session may use."""
        graph = self.machine.graph
        return graph.variable(graph.session(SessionId(session), TenantId(tenant)), VariableId(variable))

    def waiting(self) -> int:
        """How many requests wait for an engine."""
        return sum(one.state is ProducerState.QUEUED for one in self.machine.graph.requests.values())

    def running(self, engine: str = "e") -> frozenset[str]:
        """The requests that an engine runs."""
        requests = self.machine.graph.requests.values()
        return frozenset(one.id for one in requests if one.aboard and one.engine == engine)

    def objectives(self) -> dict[str, str]:
        return {one.id: one.objective.value for one in self.machine.graph.requests.values()}


def only(decisions: list[Decision], kind: type[D]) -> list[D]:
    """The decisions of one kind, in order."""
    return [decision for decision in decisions if isinstance(decision, kind)]


def asked(variable: str, criteria: Criteria = Criteria.LATENCY, *, stream: bool = False) -> Wait:
    return Wait(VariableId(variable), criteria, stream)


def waited(
    variable: str, criteria: Criteria = Criteria.LATENCY, *, stream: bool = False, session: str = "s", tenant: str = "t"
) -> Waited:
    return Waited(
        session=SessionId(session), tenant=TenantId(tenant), waits=(asked(variable, criteria, stream=stream),)
    )


def value_set(variable: str, value: str = "text", *, session: str = "s", tenant: str = "t") -> ValueSet:
    return ValueSet(session=SessionId(session), tenant=TenantId(tenant), variable=VariableId(variable), value=value)


def withdrawn(variable: str, *, session: str = "s", tenant: str = "t") -> Withdrawn:
    return Withdrawn(session=SessionId(session), tenant=TenantId(tenant), variable=VariableId(variable))


def retried(variable: str, *, session: str = "s", tenant: str = "t") -> Retried:
    return Retried(session=SessionId(session), tenant=TenantId(tenant), variable=VariableId(variable))


def session_ended(session: str = "s", tenant: str = "t") -> SessionEnded:
    return SessionEnded(session=SessionId(session), tenant=TenantId(tenant), reason="its client ended it")


def returned(
    call: str,
    value: str | None = None,
    error: str | None = None,
    *,
    attempt: int | None = None,
    session: str = "s",
    tenant: str = "t",
) -> CallReturned:
    return CallReturned(
        session=SessionId(session),
        tenant=TenantId(tenant),
        call=CallId(call),
        attempt=attempt,
        value=value,
        error=error,
    )
