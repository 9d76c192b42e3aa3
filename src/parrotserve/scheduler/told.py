"""What the scheduler wants of requests, done in the graph and said to the runtime."""

from collections.abc import Iterator

from parrotserve.criteria import NO_PRECEDENCE, Precedence
from parrotserve.graph.changes import Changes
from parrotserve.graph.decisions import (
    CancelSequence,
    CompleteSequence,
    Decision,
    OpenSequence,
    PauseSequence,
    ReleasePrefix,
    ResumeSequence,
    RetainPrefix,
)
from parrotserve.graph.objects import Request
from parrotserve.graph.runs import board
from parrotserve.ids import EngineId, VariableId
from parrotserve.scheduler.base import Outcome, Paused, Placed, Released, Retained


def decisions_of(outcome: Outcome, changes: Changes) -> Iterator[Decision]:
    """What the scheduler wants of a request, done in the graph and said to the runtime."""
    request = outcome.request
    if isinstance(outcome, Placed):
        engine, ahead = outcome.placement.chosen.engine, request.ahead
        request.ahead = None
        if ahead is not None and ahead != engine:
            yield CancelSequence(request=request.id, engine=ahead, epoch=request.epoch)
            request.epoch += 1
        board(request, outcome.placement, changes)
        for output in request.outputs:
            output.followed = False
        place = outcome.precedence
        yield opening(request, engine, place) if ahead != engine else _completion(request, engine, place)
        return
    if isinstance(outcome, Retained):
        yield RetainPrefix(engine=outcome.engine, key=outcome.key, request=request.id, segments=outcome.segments)
        return
    if isinstance(outcome, Released):
        yield ReleasePrefix(engine=outcome.engine, key=outcome.key, request=request.id)
        return
    assert request.engine is not None
    kind = PauseSequence if isinstance(outcome, Paused) else ResumeSequence
    yield kind(request=request.id, engine=request.engine, epoch=request.epoch)


def opening(
    request: Request, engine: EngineId, precedence: Precedence = NO_PRECEDENCE, *, ahead: bool = False
) -> OpenSequence:
    """The engine is to run it, or to read `ahead` what is known of it."""
    return OpenSequence(
        request=request.id,
        engine=engine,
        epoch=request.epoch,
        objective=request.objective,
        precedence=precedence,
        stream=_streamed(request),
        ahead=ahead,
    )


def _completion(request: Request, engine: EngineId, precedence: Precedence) -> CompleteSequence:
    return CompleteSequence(
        request=request.id,
        engine=engine,
        epoch=request.epoch,
        objective=request.objective,
        precedence=precedence,
        stream=_streamed(request),
    )


def _streamed(request: Request) -> frozenset[VariableId]:
    return frozenset(output.id for output in request.outputs if output.streamed and not output.ready)
