"""What one event changes: gathered while the graph takes the event in, then acted on."""

from dataclasses import dataclass, field

from parrotserve.graph.decisions import Decision
from parrotserve.graph.objects import Producer, Request, Variable
from parrotserve.ids import EngineId, RequestId, VariableId
from parrotserve.sampling import Usage


@dataclass(slots=True, eq=False)
class Changes:
    """The decisions so far, and what the scheduler has to know."""

    now: float
    decisions: list[Decision] = field(default_factory=list[Decision])
    queued: list[Request] = field(default_factory=list[Request])
    """They wait for an engine now."""
    unqueued: list[Request] = field(default_factory=list[Request])
    """They did, and no longer do."""
    freed: list[tuple[EngineId, RequestId, Usage | None]] = field(
        default_factory=list[tuple[EngineId, RequestId, Usage | None]]
    )
    """These engines no longer run these requests, and what they used, if that is known."""
    informed: dict[Request, None] = field(default_factory=dict[Request, None])
    """They came, or an input of theirs is known now, and others are not: they may run ahead."""
    wrote: list[Request] = field(default_factory=list[Request])
    """An output of theirs is known."""
    over: list[tuple[Request, Usage | None]] = field(default_factory=list[tuple[Request, Usage | None]])
    """They ended; with the usage of the last run, if it made all outputs that were missing."""
    rewired: list[Producer] = field(default_factory=list[Producer])
    """New or revived, with all that is downstream of them: what they are scheduled for is to be deduced."""
    asked: list[Variable] = field(default_factory=list[Variable])
    """Somebody waits for them now who did not before."""
    streams: dict[Request, set[VariableId]] = field(default_factory=dict[Request, set[VariableId]])
    """Outputs of running requests that somebody streams now."""
