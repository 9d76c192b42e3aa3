"""What engines tell of the requests that they run."""

from parrotserve.errors import Cancelled, EngineFailed
from parrotserve.graph.causes import Cause
from parrotserve.graph.changes import Changes
from parrotserve.graph.decisions import ForgetRequest
from parrotserve.graph.events import OutputProduced, RequestEnded
from parrotserve.graph.flow import ahead_stopped, fail, fall, fill, finish
from parrotserve.graph.graph import Graph
from parrotserve.graph.objects import DEATHS_OF_A_SUSPECT, Request
from parrotserve.graph.placements import Placement
from parrotserve.graph.states import ProducerState
from parrotserve.ids import EngineId, RequestId
from parrotserve.sampling import Usage


def board(request: Request, placement: Placement, changes: Changes) -> None:
    """Note that a request is handed to the engine that the placement chose."""
    engine = placement.chosen.engine
    request.move(ProducerState.RUNNING, changes.now, f"placed on engine {engine}")
    request.placement, request.engine, request.aboard = placement, engine, True
    if request.times.started is None:
        request.times.started = changes.now


def output_produced(graph: Graph, event: OutputProduced, changes: Changes) -> None:
    """An output of a request is READY. Events that come late, or twice, are ignored."""
    request = _aboard(graph, event.request, event.epoch)
    if request is None:
        return
    for output in request.outputs:
        if output.id == event.variable and not output.settled:
            fill(graph, output, event.value, event.reason, changes, logprobs=event.logprobs)
            changes.wrote.append(request)


def request_ended(graph: Graph, event: RequestEnded, changes: Changes) -> None:
    """A sequence ended. Its request is DONE if all outputs are READY, whatever the engine says of the end; otherwise it
    FAILED or was CANCELLED. The end of a sequence that ran ahead only ends its running ahead."""
    known = graph.requests.get(event.request)
    if known is not None and known.ahead is not None and known.epoch == event.epoch:
        # Whatever was wrong will show again when the request itself runs.
        changes.freed.append((known.ahead, known.id, None))
        ahead_stopped(known)
        return
    request = _aboard(graph, event.request, event.epoch)
    if request is None or request.engine is None:
        if event.usage is not None:
            changes.late.append((event.request, event.epoch, event.usage))
            if known is not None and known.fallen and known.epoch == event.epoch:
                known.usage = known.usage.plus(event.usage)  # of what was cancelled while an engine ran it
        return
    request.aboard = False
    request.usage = request.usage.plus(event.usage or Usage())
    changes.freed.append((request.engine, request.id, event.usage))
    if all(output.ready for output in request.outputs):
        _done(request, event.usage, changes)
    elif event.error is not None:
        fail(graph, request, event.error, changes)
    elif event.cancelled:
        sentence = f"{request} was cancelled by engine {request.engine}"
        cause = Cause(error=Cancelled(sentence), sentence=sentence, origin=request.id, engine=request.engine)
        fall(graph, [request], cause, ProducerState.CANCELLED, changes)
    else:
        missing = ", ".join(str(output) for output in request.outputs if not output.ready)
        fail(graph, request, EngineFailed(f"the engine ended it without {missing}; see the engine's log."), changes)


def engine_died(graph: Graph, request: Request, engine: EngineId, reason: str, changes: Changes) -> None:
    """An engine died or hung under a request: queue it again, unless too many engines have died under it."""
    request.aboard = False
    request.epoch += 1
    request.deaths = (*request.deaths, (engine, reason))
    if all(output.ready for output in request.outputs):
        _done(request, None, changes)
    elif len(request.deaths) > DEATHS_OF_A_SUSPECT:
        told = "; ".join(f"{name}: {what}" for name, what in request.deaths)
        error = EngineFailed(
            f"{len(request.deaths)} engines died while they ran it, the last while it ran alone ({told}). "
            "It is not retried automatically. Change the request, or retry once the engines' fault is fixed."
        )
        fail(graph, request, error, changes)
    else:
        request.move(ProducerState.QUEUED, changes.now, f"engine {engine} was lost: {reason}")
        changes.queued.append(request)


def _aboard(graph: Graph, request: RequestId, epoch: int) -> Request | None:
    found = graph.requests.get(request)
    return found if found is not None and found.aboard and found.epoch == epoch else None


def _done(request: Request, usage: Usage | None, changes: Changes) -> None:
    finish(request, changes)
    changes.over.append((request, usage))
    changes.decisions.append(ForgetRequest(request.id))
