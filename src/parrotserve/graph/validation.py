"""What a submitted batch means, found without changing anything, so that refusing it leaves no trace.

The result is a `Plan`: new objects that refer to what they use, while nothing in the graph refers to them yet.
"""

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from parrotserve.errors import AlreadyProduced, InvalidGraph, UnknownObject
from parrotserve.graph.cycles import in_dataflow_order
from parrotserve.graph.events import NewCall, NewRequest, NewVariable, Submitted, Wait
from parrotserve.graph.graph import Graph
from parrotserve.graph.objects import Call, Producer, Request, Session, Times, Variable
from parrotserve.ids import CallId, RequestId, VariableId, shown
from parrotserve.segments import Input, Output, Text


@dataclass(slots=True, eq=False)
class Plan:
    """A batch that was found valid and can be added to the graph as it is."""

    session: Session
    variables: list[Variable] = field(default_factory=list[Variable])
    adopted: list[Variable] = field(default_factory=list[Variable])
    """Variables with set values from the tenant's other sessions, which this session will hold too."""
    producers: list[Producer] = field(default_factory=list[Producer])
    """New producers, in the order of the batch."""
    ordered: list[Producer] = field(default_factory=list[Producer])
    """The new producers and everything downstream of them, in topological order."""
    waits: list[tuple[Variable, Wait]] = field(default_factory=list[tuple[Variable, Wait]])


def plan_submit(graph: Graph, event: Submitted, models: AbstractSet[str], now: float) -> Plan:
    """The plan for a batch. Raises the `RequestRefused` that says what is wrong with it."""
    return _Planner(graph, event, models, now).plan()


class _Planner:
    def __init__(self, graph: Graph, event: Submitted, models: AbstractSet[str], now: float) -> None:
        self._graph, self._event, self._models, self._now = graph, event, models, now
        if event.session in graph.sessions:
            session = graph.session(event.session, event.tenant)
        else:
            session = Session(id=event.session, tenant=event.tenant, lease_seconds=event.lease_seconds, began=now)
        self._plan = Plan(session)
        self._variables: dict[VariableId, Variable] = {}
        """Variables that the batch declares or adopts, by id."""
        self._producers: dict[Variable, Producer] = {}
        self._consumers: dict[Variable, list[Producer]] = {}

    def plan(self) -> Plan:
        plan = self._plan
        for spec in self._event.variables:
            self._declare(spec)
        for spec in self._new_requests():
            self._add_request(spec)
        for spec in self._new_calls():
            self._add_call(spec)
        plan.ordered = in_dataflow_order(plan.producers, self._consumers)
        plan.waits = [(self._find(wait.variable), wait) for wait in self._event.waits]
        return plan

    def _declare(self, spec: NewVariable) -> None:
        known = self._variables.get(spec.id) or self._graph.variables.get(spec.id)
        if known is None:
            variable = Variable(declared=spec, tenant=self._plan.session.tenant)
            self._variables[spec.id] = variable
            self._plan.variables.append(variable)
            return
        own = spec.id in self._variables or spec.id in self._plan.session.variables
        shared = known.was_set and known.tenant == self._plan.session.tenant
        if known.declared != spec or not (own or shared):
            raise _taken("variable", spec.id)
        self._find(spec.id)

    def _find(self, variable: VariableId) -> Variable:
        """A variable of this batch or session; a set value of another session is adopted."""
        found = self._variables.get(variable)
        if found is None:
            found = self._graph.variable(self._plan.session, variable)
            if variable not in self._plan.session.variables:
                self._variables[variable] = found
                self._plan.adopted.append(found)
        return found

    def _new_requests(self) -> Iterator[NewRequest]:
        """The requests of the batch that are not known yet. Raises `InvalidGraph` for one id with two contents."""
        seen: dict[RequestId, NewRequest] = {}
        for spec in self._event.requests:
            known = self._graph.requests.get(spec.id)
            before = known.spec if known is not None else seen.get(spec.id)
            if before is None:
                seen[spec.id] = spec
                yield spec
            elif not _same(before, spec) or (known is not None and known.session is not self._plan.session):
                raise _taken("request", spec.id)

    def _new_calls(self) -> Iterator[NewCall]:
        seen: dict[CallId, NewCall] = {}
        for spec in self._event.calls:
            known = self._graph.calls.get(spec.id)
            before = known.spec if known is not None else seen.get(spec.id)
            if before is None:
                seen[spec.id] = spec
                yield spec
            elif before != spec or (known is not None and known.session is not self._plan.session):
                raise _taken("native call", spec.id)

    def _add_request(self, spec: NewRequest) -> None:
        if spec.model not in self._models:
            known = ", ".join(sorted(self._models)) or "none yet"
            raise UnknownObject(f"No engine serves model {spec.model!r}; there are: {known}.", model=spec.model)
        outputs = [segment.variable for segment in spec.segments if isinstance(segment, Output)]
        if not outputs:
            raise InvalidGraph(
                f"Request {shown(spec.id)!r} has no output; give its template an {{{{output:...}}}}.",
                request=shown(spec.id),
            )
        if len(set(outputs)) < len(outputs):
            twice = next(variable for variable in outputs if outputs.count(variable) > 1)
            raise InvalidGraph(
                f"Request {shown(spec.id)!r} has the output {shown(twice)!r} twice; use a variable for each.",
                request=shown(spec.id),
                variable=shown(twice),
            )
        inputs = [segment.variable for segment in spec.segments if isinstance(segment, Input)]
        request = Request(
            spec=spec,
            session=self._plan.session,
            inputs=self._distinct(inputs),
            outputs=self._distinct(outputs),
            times=Times(submitted=self._now),
            epoch=self._graph.first_epoch,
        )
        self._add(request)

    def _add_call(self, spec: NewCall) -> None:
        call = Call(
            spec=spec,
            session=self._plan.session,
            inputs=self._distinct(spec.inputs),
            outputs=self._distinct([spec.output]),
            times=Times(submitted=self._now),
        )
        self._add(call)

    def _distinct(self, variables: Iterable[VariableId]) -> tuple[Variable, ...]:
        return tuple(self._find(variable) for variable in dict.fromkeys(variables))

    def _add(self, producer: Producer) -> None:
        for output in producer.outputs:
            other = output.producer or self._producers.get(output)
            if other is not None:
                raise InvalidGraph(
                    f"Both {other} and {producer} produce the {output}; a variable has one producer.",
                    variable=shown(output.id),
                )
            if output.declared.value is not None or output.settled:
                raise AlreadyProduced(
                    f"{producer} cannot produce the {output}: it {'was cancelled' if output.fallen else 'has a value'}."
                    " Give the output a variable of its own.",
                    variable=shown(output.id),
                )
            self._producers[output] = producer
        for variable in producer.inputs:
            self._consumers.setdefault(variable, []).append(producer)
        self._plan.producers.append(producer)


def _taken(kind: str, identity: str) -> InvalidGraph:
    name = shown(identity)
    return InvalidGraph(f"The {kind} id {name!r} stands for something else already; make a fresh one.", id=name)


def _same(one: NewRequest, other: NewRequest) -> bool:
    """Whether they are one request sent twice. Seeds are ignored: the service may have chosen them, anew each time."""
    if one == other:
        return True
    return replace(one, segments=_without_seeds(one)) == replace(other, segments=_without_seeds(other))


def _without_seeds(spec: NewRequest) -> tuple[Text | Input | Output, ...]:
    return tuple(
        replace(segment, sampling=replace(segment.sampling, seed=None)) if isinstance(segment, Output) else segment
        for segment in spec.segments
    )
