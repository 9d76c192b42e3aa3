"""What a retry brings back: found without changing anything, so that it can be claimed for, then done."""

from dataclasses import dataclass

from parrotserve.graph.changes import Changes
from parrotserve.graph.flow import begin
from parrotserve.graph.graph import Graph
from parrotserve.graph.objects import Producer, Request, Variable
from parrotserve.graph.states import ProducerState, VariableState


@dataclass(frozen=True, slots=True)
class Revival:
    """FAILED and CANCELLED variables and producers that a retry brings back together."""

    variables: tuple[Variable, ...]
    producers: tuple[Producer, ...]
    """Those that the retried variable depends on, then those that fell because of them."""

    @property
    def requests(self) -> list[Request]:
        """The producers that are requests."""
        return [producer for producer in self.producers if isinstance(producer, Request)]


def revival(variable: Variable) -> Revival:
    """What has failed upstream of a FAILED or CANCELLED variable, and downstream as a consequence; nothing for others.

    The cost is proportional to what comes back and its consumers, not to the session.
    """
    upstream = _fallen_upstream(variable) if variable.fallen else []
    producers = dict.fromkeys(found.producer for found in upstream if found.producer is not None)
    variables = dict.fromkeys(upstream)
    pending = list(upstream)
    for producer in producers:
        variables |= dict.fromkeys(output for output in producer.outputs if output.fallen)
        pending += producer.outputs
    while pending:
        for consumer in pending.pop().fallen_consumers:
            if consumer in producers or not consumer.fell_by_input:
                continue
            if any(needed.fallen and needed not in variables for needed in consumer.inputs):
                continue
            producers[consumer] = None
            variables |= dict.fromkeys(output for output in consumer.outputs if output.fallen)
            pending += consumer.outputs
    return Revival(tuple(variables), tuple(producers))


def revive(graph: Graph, back: Revival, changes: Changes) -> None:
    """Bring a revival's variables and producers back; producers that have all their inputs begin."""
    for variable in back.variables:
        variable.cause = variable.error = None
        state = VariableState.EMPTY if variable.producer is None else VariableState.PRODUCING
        variable.move(state, changes.now, "retried")
    for producer in back.producers:
        _rewire(producer, changes)
    for producer in back.producers:
        if producer.missing == 0:
            begin(graph, producer, changes)
        elif isinstance(producer, Request):
            changes.informed[producer] = None


def _fallen_upstream(variable: Variable) -> list[Variable]:
    """The variable, and all FAILED or CANCELLED variables that it depends on through such variables."""
    found = {variable: None}
    pending = [variable]
    while pending:
        producer = pending.pop().producer
        for needed in producer.inputs if producer is not None else ():
            if needed.fallen and needed not in found:
                found[needed] = None
                pending.append(needed)
    return list(found)


def _rewire(producer: Producer, changes: Changes) -> None:
    """Let a fallen producer wait for its inputs again."""
    producer.move(ProducerState.WAITING, changes.now, "retried")
    producer.cause = producer.error = None
    producer.fell_by_input = False
    producer.times.ready = producer.times.started = producer.times.ended = None
    unknown = [variable for variable in producer.inputs if not variable.ready]
    producer.missing = len(unknown)
    for variable in unknown:
        del variable.fallen_consumers[producer]
        variable.consumers[producer] = None
    if isinstance(producer, Request):
        producer.epoch += 1
        producer.engine = None
    else:
        producer.attempt += 1
    changes.rewired.append(producer)
