"""How a session comes back after the service was restarted: its graph as it was declared, with what was known of it.

Producers that were done are done again without running, those that had failed or been cancelled fall again with the
same error, and the others begin. One that had made a part of its outputs begins with these.
"""

from parrotserve.graph.changes import Changes
from parrotserve.graph.decisions import ForgetRequest
from parrotserve.graph.events import KnownFailure, KnownValue, Restored
from parrotserve.graph.flow import fall, fill, finish, give_up
from parrotserve.graph.graph import Graph
from parrotserve.graph.growth import add, start
from parrotserve.graph.objects import Producer, Request, Variable
from parrotserve.graph.states import ProducerState
from parrotserve.graph.validation import Plan


def restore(graph: Graph, plan: Plan, event: Restored, changes: Changes) -> None:
    """Add a session's graph, of which `plan` was made, and have producers begin that were not finished.

    Consumers are settled before what they consume: what is done or has fallen must not begin when its inputs are
    filled.
    """
    add(graph, plan, changes)
    new = set(plan.producers)
    for producer in reversed(plan.ordered):
        if producer in new:
            _settle(graph, producer, event, changes)
    for variable in plan.variables:
        if variable.producer is None and not variable.settled:
            _set(graph, variable, event, changes)
    start(graph, plan, changes)


def _settle(graph: Graph, producer: Producer, event: Restored, changes: Changes) -> None:
    known = [(output, event.outcomes.get(output.id)) for output in producer.outputs]
    values = [(output, outcome) for output, outcome in known if isinstance(outcome, KnownValue)]
    failures = [outcome for _, outcome in known if isinstance(outcome, KnownFailure)]
    if isinstance(producer, Request):
        producer.usage = event.usages.get(producer.id, producer.usage)
    else:
        producer.attempt = event.attempts.get(producer.id, producer.attempt)
    if len(values) == len(known):
        for variable in producer.inputs:
            variable.consumers.pop(producer, None)
        producer.missing = 0
        finish(producer, changes)
        if isinstance(producer, Request):
            changes.decisions.append(ForgetRequest(producer.id))
    for output, outcome in values:
        fill(graph, output, outcome.value, outcome.reason, changes, logprobs=outcome.logprobs)
    if failures and not producer.finished:
        state = ProducerState.CANCELLED if failures[0].cancelled else ProducerState.FAILED
        fall(graph, [producer], failures[0].cause, state, changes, by_input=failures[0].by_input)


def _set(graph: Graph, variable: Variable, event: Restored, changes: Changes) -> None:
    match event.outcomes.get(variable.id):
        case KnownValue() as known:
            fill(graph, variable, known.value, None, changes)
        case KnownFailure() as failure:
            give_up(graph, variable, failure.cause, changes)
        case None:
            pass
