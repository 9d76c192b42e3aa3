"""What the scheduler wants of requests, done in the graph and said to the runtime."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

from parrotserve.criteria import NO_PRECEDENCE, Precedence
from parrotserve.graph.changes import Changes
from parrotserve.graph.decisions import (
    Beginning,
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
from parrotserve.graph.runs import ahead_stopped, board
from parrotserve.ids import EngineId
from parrotserve.scheduler.base import Outcome, Paused, Placed, ReadNoMore, Released, Retained

B = TypeVar("B", bound=Beginning)


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
        yield beginning(CompleteSequence if ahead == engine else OpenSequence, request, engine, outcome.precedence)
        return
    if isinstance(outcome, ReadNoMore):
        assert request.ahead is not None
        yield CancelSequence(request=request.id, engine=request.ahead, epoch=request.epoch)
        ahead_stopped(request)
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


def reading_ahead(request: Request, engine: EngineId) -> OpenSequence:
    """The engine is to read what is known of it."""
    return replace(beginning(OpenSequence, request, engine), ahead=True)


def beginning(kind: type[B], request: Request, engine: EngineId, precedence: Precedence = NO_PRECEDENCE) -> B:
    """The engine is to run it."""
    return kind(
        request=request.id,
        engine=engine,
        epoch=request.epoch,
        objective=request.objective,
        precedence=precedence,
        stream=frozenset(output.id for output in request.outputs if output.streamed and not output.ready),
    )
