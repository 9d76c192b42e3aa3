"""Carries out the outcomes of scheduling, in the graph and as decisions for the runtime. Part of the machine."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

from parrotserve.criteria import NO_PRECEDENCE, Precedence
from parrotserve.graph.changes import Changes
from parrotserve.graph.decisions import (
    Beginning,
    CompleteSequence,
    Decision,
    OpenSequence,
    PauseSequence,
    ReleasePrefix,
    ResumeSequence,
    RetainPrefix,
)
from parrotserve.graph.flow import recall
from parrotserve.graph.objects import Request
from parrotserve.graph.runs import board
from parrotserve.ids import EngineId
from parrotserve.scheduler.base import Outcome, Paused, Placed, ReadNoMore, Released, Retained

B = TypeVar("B", bound=Beginning)


def decisions_of(outcome: Outcome, changes: Changes) -> Iterator[Decision]:
    """Carry out one outcome in the graph, and yield the decisions that tell the runtime of it."""
    request = outcome.request
    if isinstance(outcome, Placed):
        engine = outcome.placement.chosen.engine
        kind = CompleteSequence if request.ahead == engine else OpenSequence
        if request.ahead not in (None, engine):
            yield recall(request)
        request.ahead = None
        board(request, outcome.placement, changes)
        for output in request.outputs:
            output.followed = False
        yield beginning(kind, request, engine, outcome.precedence)
        return
    if isinstance(outcome, ReadNoMore):
        yield recall(request)
        return
    if isinstance(outcome, Retained):
        yield RetainPrefix(engine=outcome.engine, key=outcome.key, request=request.id, segments=outcome.segments)
        return
    if isinstance(outcome, Released):
        yield ReleasePrefix(engine=outcome.engine, key=outcome.key, request=request.id)
        return
    assert request.engine is not None
    change = PauseSequence if isinstance(outcome, Paused) else ResumeSequence
    yield change(request=request.id, engine=request.engine, epoch=request.epoch)


def reading_ahead(request: Request, engine: EngineId) -> OpenSequence:
    """The decision by which an engine reads ahead what is known of a request."""
    return replace(beginning(OpenSequence, request, engine), ahead=True)


def beginning(kind: type[B], request: Request, engine: EngineId, precedence: Precedence = NO_PRECEDENCE) -> B:
    """The decision, of the given kind, by which an engine runs a request."""
    return kind(
        request=request.id,
        engine=engine,
        epoch=request.epoch,
        objective=request.objective,
        precedence=precedence,
        stream=frozenset(output.id for output in request.outputs if output.streamed and not output.ready),
    )
