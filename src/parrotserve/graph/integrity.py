"""The graph's invariants, executable: whatever is kept incrementally is counted anew."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeVar

from parrotserve.criteria import Objective
from parrotserve.graph.graph import Graph
from parrotserve.graph.memory import SESSION, size_of_producer, size_of_variable
from parrotserve.graph.objects import Producer, Request, Session, Variable
from parrotserve.graph.states import ProducerState, VariableState
from parrotserve.ids import TenantId

K = TypeVar("K")
V = TypeVar("V")


def check_graph(graph: Graph) -> None:
    """Raises `AssertionError` naming the object that breaks an invariant."""
    holders = dict.fromkeys(graph.variables.values(), 0)
    for session in graph.sessions.values():
        for variable in session.variables.values():
            assert graph.variables[variable.id] is variable, f"{variable} cannot be found by its id"
            holders[variable] += 1
        assert (session in graph.deadlines) == (session.attached == 0), f"session {session.id}: its lease"
        for producers, states in ((session.requests, session.request_states), (session.calls, session.call_states)):
            counted = Counter(one.state for one in producers.values())
            assert +states == counted, f"session {session.id} counts {states}, not {counted}"
    for variable, count in holders.items():
        assert variable.holders == count > 0, f"{variable} has {count} holders, not {variable.holders}"
        _check_variable(variable)
    _check_index("requests", graph.requests, [session.requests for session in graph.sessions.values()])
    _check_index("native calls", graph.calls, [session.calls for session in graph.sessions.values()])
    for producer in (*graph.requests.values(), *graph.calls.values()):
        _check_producer(graph, producer)
    taken: Counter[TenantId] = Counter()
    for variable in graph.variables.values():
        taken[variable.tenant] += size_of_variable(variable)
    for session in graph.sessions.values():
        own = SESSION + sum(size_of_producer(one.spec) for one in session.producers)
        assert session.held == own, f"session {session.id} holds {own}, not {session.held}"
        taken[session.tenant] += own
    assert graph.held == taken, f"tenants hold {taken}, not {graph.held}"
    for overdue in graph.deadlines:
        known = graph.sessions if isinstance(overdue, Session) else graph.calls
        assert overdue.id in known, f"{overdue.id} has a deadline but is gone"


def _check_index(what: str, index: Mapping[K, V], parts: Iterable[Mapping[K, V]]) -> None:
    assert index == {name: item for part in parts for name, item in part.items()}, f"the index of {what}"


def _check_variable(variable: Variable) -> None:
    state, producer = variable.state, variable.producer
    assert (variable.value is not None) == variable.ready, f"{variable} is {state} with value {variable.value!r}"
    assert (variable.error is not None) == variable.fallen == (variable.cause is not None), f"{variable}: its error"
    if producer is None:
        assert state in {VariableState.EMPTY, VariableState.READY, VariableState.CANCELLED}, f"{variable} is {state}"
    else:
        assert variable in producer.outputs, f"{variable} is no output of its producer"
        assert state is not VariableState.EMPTY, f"{variable} has a producer and is {state}"
        assert variable.ready or variable.fallen == producer.fallen, f"{variable} is {state}, {producer.state} makes it"
    for consumer in variable.consumers:
        assert not consumer.finished, f"{consumer} is {consumer.state} and still consumes {variable}"
    for consumer in variable.fallen_consumers:
        assert consumer.fallen, f"{consumer} is {consumer.state} and not fallen"
    assert not variable.ready or not (variable.consumers or variable.fallen_consumers), f"{variable}: consumers"
    assert not variable.fallen or not variable.consumers, f"{variable} is {state} and something waits for it"


def _check_producer(graph: Graph, producer: Producer) -> None:
    state = producer.state
    unknown = [variable for variable in producer.inputs if not variable.ready]
    assert (producer.error is not None) == producer.fallen, f"{producer}: its error"
    for variable in unknown:
        where = variable.fallen_consumers if producer.fallen else variable.consumers
        assert producer in where, f"{variable} does not know {producer}"
    if not producer.fallen:
        assert producer.missing == len(unknown), f"{producer} misses {len(unknown)}, not {producer.missing}"
        assert (state is ProducerState.WAITING) == bool(unknown), (
            f"{producer} is {state}, {len(unknown)} inputs unknown"
        )
    if state is ProducerState.DONE:
        assert all(output.ready for output in producer.outputs), f"{producer} is done without its outputs"
    for variable in producer.inputs:
        above = variable.producer
        assert above is None or above.position < producer.position, f"{producer} is not behind {above}"
    held = state in {ProducerState.RUNNING, ProducerState.OFFERED}
    assert producer.aboard == held, f"{producer} is {state} and aboard: {producer.aboard}"
    if isinstance(producer, Request):
        _check_objective(producer)
        early = state in {ProducerState.WAITING, ProducerState.QUEUED}
        assert producer.ahead is None or early, f"{producer} is {state} and runs ahead"
    else:
        timed = state is ProducerState.OFFERED and producer.spec.timeout is not None
        assert (producer in graph.deadlines) == timed, f"{producer}: its deadline"


def _check_objective(request: Request) -> None:
    deduced = request.deduced
    assert request.objective is (deduced.objective if deduced else Objective.THROUGHPUT), f"{request}: its objective"
    assert (request.group is not None) == (request.objective is Objective.GROUP), f"{request}: its task group"
    if request.group is not None:
        assert request in request.group.members, f"{request}: its task group"
        assert request.group.result.stages[request.group.level] is request.group, f"{request}: its group's stage"
