"""How values, failures and cancellations move through the graph.

All loops are iterative (a graph may be a chain of any length), and their cost is proportional to what they
change: sessions and producers that the event does not affect are never visited.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

from parrotserve.errors import Cancelled, NativeCallFailed, ParrotError
from parrotserve.graph.causes import Cause
from parrotserve.graph.changes import Changes
from parrotserve.graph.decisions import (
    CancelSequence,
    OfferCall,
    PublishFailure,
    PublishValue,
    RevokeCall,
    RunCall,
    SettleRequest,
)
from parrotserve.graph.graph import Graph
from parrotserve.graph.memory import size_of_value
from parrotserve.graph.objects import Call, Producer, Request, Variable
from parrotserve.graph.states import ProducerState, VariableState
from parrotserve.sampling import FinishReason
from parrotserve.texts import briefly

MOST_GIVEN = 1 << 24
"""Most characters that a native call is given in all, each input counted as often as it is passed."""
_MOST_READERS = 32
"""Most consumers of a producer's outputs that are considered for running ahead when it begins: hardly more than that
would find a place."""


def fill(
    graph: Graph, variable: Variable, value: str, reason: FinishReason | None, changes: Changes, *, logprobs: int = 0
) -> None:
    """Give a variable its value, with `logprobs` log-probabilities: it becomes READY, and consumers that waited only
    for it begin."""
    variable.value, variable.reason, variable.logprobs = value, reason, logprobs
    graph.held[variable.tenant] += size_of_value(variable)
    variable.move(VariableState.READY, changes.now, "its value is known")
    changes.decisions.append(PublishValue(variable=variable.id, value=value, reason=reason))
    consumers, variable.consumers, variable.fallen_consumers = variable.consumers, {}, {}
    for consumer in consumers:
        consumer.missing -= 1
        if consumer.missing == 0:
            begin(graph, consumer, changes)
        elif isinstance(consumer, Request):
            changes.informed[consumer] = None


def begin(graph: Graph, producer: Producer, changes: Changes) -> None:
    """All inputs are known: queue a request for an engine, hand a native call to the client or to the sandbox."""
    producer.times.ready = changes.now
    if isinstance(producer, Request):
        producer.move(ProducerState.QUEUED, changes.now, "its inputs are known")
        changes.queued.append(producer)
        return
    values = {variable.id: variable.value or "" for variable in producer.inputs}
    given = sum(len(values[variable]) for variable in producer.given)
    if given > MOST_GIVEN:
        why = f"it would be given {given:,} characters, and may be given {MOST_GIVEN:,}; read less, or read it once."
        fail(graph, producer, NativeCallFailed(why), changes)
        return
    producer.move(ProducerState.OFFERED, changes.now, "its inputs are known")
    producer.times.started = changes.now
    producer.aboard = True
    changes.informed.update(dict.fromkeys(first_readers(producer)))
    session, sandboxed = producer.session, producer.spec.sandboxed
    if sandboxed is not None:
        run = RunCall(session=session.id, tenant=session.tenant, call=producer.id, sandboxed=sandboxed, values=values)
        changes.decisions.append(run)
        return
    if producer.spec.timeout is not None:
        graph.deadlines.put(producer, changes.now + producer.spec.timeout)
    inputs = tuple(values[variable] for variable in producer.spec.inputs)
    offer = OfferCall(
        session=session.id, call=producer.id, function=producer.function, inputs=inputs, attempt=producer.attempt
    )
    changes.decisions.append(offer)


def first_readers(producer: Producer) -> Iterator[Request]:
    """Requests that wait for a producer's outputs and may run ahead now that it begins; at most `_MOST_READERS`."""
    readers = (one for output in producer.outputs for one in output.consumers if isinstance(one, Request))
    return islice(readers, _MOST_READERS)


def end_call(graph: Graph, call: Call, value: str | None, error: str | None, changes: Changes) -> None:
    """A native call returned a value, or failed with an error."""
    graph.deadlines.discard(call)
    call.aboard = False
    if value is None:
        fail(graph, call, NativeCallFailed(error or "no reason given"), changes)
    else:
        finish(call, changes)
        fill(graph, call.outputs[0], value, None, changes)


def finish(producer: Producer, changes: Changes) -> None:
    """A producer has made all of its outputs."""
    producer.move(ProducerState.DONE, changes.now, "all outputs are known")
    producer.times.ended = changes.now


def fail(graph: Graph, producer: Producer, error: ParrotError, changes: Changes) -> None:
    """A producer fails, and with it everything that needs its outputs."""
    where = f" on engine {producer.engine}" if isinstance(producer, Request) and producer.engine else ""
    cause = Cause(
        error=error,
        sentence=f"{producer} failed{where}: {briefly(error.message)}",
        origin=producer.id,
        engine=producer.engine if isinstance(producer, Request) else None,
    )
    fall(graph, [producer], cause, ProducerState.FAILED, changes)


def cancel(graph: Graph, variable: Variable, changes: Changes) -> None:
    """Cancel a variable's producer, everything downstream, and the producers upstream that nothing else needs."""
    producer = variable.producer
    if producer is None:
        sentence = f"{variable} was cancelled before anything produced it"
        cause = Cause(error=Cancelled(sentence), sentence=sentence)
        fallen = give_up(graph, variable, cause, changes)
    else:
        sentence = f"{producer} was cancelled"
        cause = Cause(error=Cancelled(sentence), sentence=sentence, origin=producer.id)
        fallen = fall(graph, [producer], cause, ProducerState.CANCELLED, changes)
    _cancel_unneeded(graph, fallen, cause, changes)


def give_up(graph: Graph, variable: Variable, cause: Cause, changes: Changes) -> list[Producer]:
    """Cancel a variable that nothing produces, and all that needs it; return the producers that ended."""
    _lose(variable, cause, type(cause.error)(cause.sentence), VariableState.CANCELLED, changes)
    return fall(graph, list(variable.consumers), cause, ProducerState.CANCELLED, changes, by_input=True)


def _cancel_unneeded(graph: Graph, fallen: Iterable[Producer], cause: Cause, changes: Changes) -> None:
    """Cancel those producers upstream of cancelled ones whose remaining outputs are no longer needed."""
    pending = list(fallen)
    while pending:
        for variable in pending.pop().inputs:
            producer = variable.producer
            if producer is None or producer.finished or _needed(producer):
                continue
            sentence = f"{producer} was cancelled, because nothing needs it any more: {cause.sentence}"
            own = Cause(error=cause.error, sentence=sentence, origin=producer.id)
            pending += fall(graph, [producer], own, ProducerState.CANCELLED, changes)


def _needed(producer: Producer) -> bool:
    """Whether an output that it has not made yet is needed. A running producer with all outputs READY counts too: it is
    over, only its end is still to be reported."""
    if producer.aboard and all(output.ready for output in producer.outputs):
        return True
    return any(not output.settled and (output.asked or output.consumers) for output in producer.outputs)


def fall(
    graph: Graph,
    producers: list[Producer],
    cause: Cause,
    state: ProducerState,
    changes: Changes,
    *,
    by_input: bool = False,
) -> list[Producer]:
    """End producers that have not made their outputs, and everything downstream; return all that ended.

    `by_input`: the given producers themselves end only because an input did.
    """
    fallen: list[Producer] = []
    pending = [(producer, by_input) for producer in reversed(producers)]
    while pending:
        producer, by_input = pending.pop()
        if producer.finished:
            continue
        _stop(graph, producer, changes)
        producer.move(state, changes.now, cause.sentence)
        producer.times.ended = changes.now
        producer.cause, producer.fell_by_input = cause, by_input
        error = cause.error_of(producer=producer.id, function=producer.function, label=str(producer))
        producer.error = error
        fallen.append(producer)
        if isinstance(producer, Request):
            changes.over.append((producer, None))
            changes.decisions.append(SettleRequest(producer.id))
        for variable in producer.inputs:
            if not variable.ready:
                del variable.consumers[producer]
                variable.fallen_consumers[producer] = None
        for output in producer.outputs:
            if not output.ready:
                _lose(output, cause, error, VariableState(state.value), changes)
                pending += [(consumer, True) for consumer in reversed(output.consumers)]
    return fallen


def _lose(variable: Variable, cause: Cause, error: ParrotError, state: VariableState, changes: Changes) -> None:
    variable.move(state, changes.now, cause.sentence)
    variable.cause, variable.error = cause, error
    changes.decisions.append(PublishFailure(variable=variable.id, error=error))


def _stop(graph: Graph, producer: Producer, changes: Changes) -> None:
    """Take a producer back from whoever has it: the queue, an engine or the client."""
    if isinstance(producer, Call):
        graph.deadlines.discard(producer)
        if producer.aboard:
            changes.decisions.append(RevokeCall(session=producer.session.id, call=producer.id))
    elif producer.state is ProducerState.QUEUED:
        changes.unqueued.append(producer)
        stop_ahead(producer, changes)
    elif producer.state is ProducerState.WAITING:
        stop_ahead(producer, changes)
    elif producer.aboard and producer.engine is not None:
        changes.freed.append((producer.engine, producer.id, None))
        changes.decisions.append(CancelSequence(request=producer.id, engine=producer.engine, epoch=producer.epoch))
    producer.aboard = False


def stop_ahead(request: Request, changes: Changes) -> None:
    """Recall a request that runs ahead; does nothing for others."""
    if request.ahead is not None:
        changes.freed.append((request.ahead, request.id, None))
        changes.decisions.append(recall(request))


def recall(request: Request) -> CancelSequence:
    """Take a request back from the engine where it runs ahead."""
    assert request.ahead is not None
    order = CancelSequence(request=request.id, engine=request.ahead, epoch=request.epoch)
    ahead_stopped(request)
    return order


def ahead_stopped(request: Request) -> None:
    """A request no longer runs ahead: it was recalled, or its engine ended it or died (not counted as a death under the
    request). What it does next is a new run, so its epoch rises."""
    request.ahead = None
    request.epoch += 1


def time_out(graph: Graph, call: Call, changes: Changes) -> None:
    """A native call's client did not answer in time."""
    message = (
        f"no result came within its timeout of {call.spec.timeout:g} s. Raise the timeout, or see whether the "
        "client that runs native functions is still connected."
    )
    fail(graph, call, NativeCallFailed(message), changes)
