"""How the graph grows by a batch, and shrinks by a session."""

from collections.abc import Sequence

from parrotserve.criteria import Criteria
from parrotserve.errors import Cancelled
from parrotserve.graph.causes import Cause
from parrotserve.graph.changes import Changes
from parrotserve.graph.decisions import ForgetRequest, ForgetSession
from parrotserve.graph.events import Wait
from parrotserve.graph.flow import begin, fall, fill
from parrotserve.graph.graph import Graph
from parrotserve.graph.memory import SESSION, hold, size_of_variable
from parrotserve.graph.objects import Producer, Request, Session, Variable
from parrotserve.graph.states import ProducerState, VariableState
from parrotserve.graph.validation import Plan


def grow(graph: Graph, plan: Plan, changes: Changes) -> None:
    """Add a batch to the graph; producers that have all their inputs begin."""
    add(graph, plan, changes)
    start(graph, plan, changes)


def add(graph: Graph, plan: Plan, changes: Changes) -> None:
    """Add a batch to the graph, all of whose producers wait."""
    session = plan.session
    if session.id not in graph.sessions:
        graph.openings += 1
        session.number = graph.openings
        graph.sessions[session.id] = session
        session.held = SESSION
        graph.held[session.tenant] += SESSION
    for variable in plan.variables:
        graph.variables[variable.id] = variable
        graph.held[session.tenant] += size_of_variable(variable)
        _hold(session, variable)
        if variable.declared.value is not None:
            fill(graph, variable, variable.declared.value, None, changes)
    for variable in plan.adopted:
        _hold(session, variable)
    submission = graph.arrivals + 1
    for producer in plan.producers:
        _attach(graph, producer, submission, changes)
    _number(graph, plan.ordered)
    changes.rewired += plan.ordered


def start(graph: Graph, plan: Plan, changes: Changes) -> None:
    """Note who waits for what of a batch, and begin its producers that have all their inputs."""
    for variable, wait in plan.waits:
        ask(variable, wait, changes)
    for producer in plan.producers:
        _start(graph, producer, changes)


def ask(variable: Variable, wait: Wait, changes: Changes) -> None:
    """Somebody waits for a variable from now on."""
    if variable.settled:
        return
    variable.asked = True
    if wait.criteria is not Criteria.THROUGHPUT and not variable.urgent:
        variable.criteria = wait.criteria
        changes.asked.append(variable)
    if wait.stream and not variable.streamed:
        variable.streamed = True
        if isinstance(variable.producer, Request) and variable.producer.aboard:
            changes.streams.setdefault(variable.producer, set()).add(variable.id)


def end_session(graph: Graph, session: Session, reason: str, changes: Changes) -> None:
    """Cancel what is unfinished in a session, and forget the session. EMPTY variables get no decision of their own, as
    there may be far more of them than of everything else: `ForgetSession` names them."""
    why = f"its session ended ({reason})"
    cause = Cause(error=Cancelled(why), sentence=why, became="was cancelled")
    fall(graph, list(session.producers), cause, ProducerState.CANCELLED, changes)
    graph.deadlines.discard(session)
    for request in session.requests.values():
        del graph.requests[request.id]
        if request.epoch or request.times.started is not None:
            # An engine remembers sequences that have ended there, and runs the same id again only at a later epoch.
            graph.first_epoch = max(graph.first_epoch, request.epoch + 1)
        if request.state is not ProducerState.DONE:
            changes.decisions.append(ForgetRequest(request.id))
    for call in session.calls.values():
        del graph.calls[call.id]
    gone = [variable for variable in session.variables.values() if _release(graph, variable)]
    graph.held[session.tenant] -= session.held + sum(map(size_of_variable, gone))
    if not graph.held[session.tenant]:
        del graph.held[session.tenant]
    del graph.sessions[session.id]
    changes.decisions.append(ForgetSession(session.id, tuple(variable.id for variable in gone)))
    _untie(session, gone)


def _untie(session: Session, gone: list[Variable]) -> None:
    """Break the reference cycles among its objects, so that they are freed at once: else they would stay until a full
    garbage collection, which pauses the whole process."""
    for variable in gone:
        variable.producer = None
        for group in variable.stages.values():
            group.members.clear()
        variable.stages.clear()
        variable.consumers.clear()
        variable.fallen_consumers.clear()
    session.variables.clear()
    session.requests.clear()
    session.calls.clear()


def _hold(session: Session, variable: Variable) -> None:
    session.variables[variable.id] = variable
    variable.holders += 1


def _release(graph: Graph, variable: Variable) -> bool:
    """One session fewer holds the variable; returns whether that was the last, and then forgets it."""
    variable.holders -= 1
    if variable.holders == 0:
        del graph.variables[variable.id]
    return variable.holders == 0


def _number(graph: Graph, ordered: Sequence[Producer]) -> None:
    """Give new producers, and everything downstream of them, new positions: above all others, and among themselves by
    falling distance from the end of the graph (longest path), so that each is close to its consumers."""
    ahead = dict.fromkeys(ordered, 0)
    for producer in reversed(ordered):
        for variable in producer.inputs:
            above = variable.producer
            if above in ahead:
                ahead[above] = max(ahead[above], ahead[producer] + 1)
    for producer in sorted(ordered, key=lambda one: (-ahead[one], one.arrival)):
        graph.positions += 1
        producer.position = graph.positions


def _attach(graph: Graph, producer: Producer, submission: int, changes: Changes) -> None:
    graph.arrivals += 1
    producer.arrival, producer.submission = graph.arrivals, submission
    if isinstance(producer, Request):
        graph.requests[producer.id] = producer.session.requests[producer.id] = producer
    else:
        graph.calls[producer.id] = producer.session.calls[producer.id] = producer
    producer.session.states_of(producer)[producer.state] += 1
    hold(graph, producer)
    for variable in producer.inputs:
        if not variable.ready:
            variable.consumers[producer] = None
            producer.missing += 1
    for output in producer.outputs:
        output.producer = producer
        output.move(VariableState.PRODUCING, changes.now, f"{producer} produces it")


def _start(graph: Graph, producer: Producer, changes: Changes) -> None:
    """Begin a new producer if it has all its inputs; end it at once if an input FAILED or was CANCELLED before."""
    if producer.state is not ProducerState.WAITING:
        return
    for variable in producer.inputs:
        if variable.cause is not None:
            fall(graph, [producer], variable.cause, ProducerState(variable.state.value), changes, by_input=True)
            return
    if producer.missing == 0:
        begin(graph, producer, changes)
    elif isinstance(producer, Request):
        changes.informed[producer] = None
