"""What one event changes: gathered while the graph takes the event in, then acted on."""

from parrotserve.graph.decisions import Decision
from parrotserve.graph.objects import Producer, Request, Variable
from parrotserve.ids import EngineId, RequestId, VariableId
from parrotserve.sampling import Usage


class Changes:
    """The decisions so far, and what the scheduler has to know.

    Not a dataclass: there is one for every event, and making ten fields' defaults takes as long as some events do.
    """

    __slots__ = (
        "asked", "decisions", "freed", "informed", "late", "now", "over", "queued", "rewired", "streams", "unqueued",
        "wrote",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.now = now
        self.decisions: list[Decision] = []
        self.queued: list[Request] = []
        """They wait for an engine now."""
        self.unqueued: list[Request] = []
        """They did, and no longer do."""
        self.freed: list[tuple[EngineId, RequestId, Usage | None]] = []
        """These engines no longer run these requests, and what they used, if that is known."""
        self.late: list[tuple[RequestId, int, Usage]] = []
        """Runs that engines have ended and nobody knows (any more), by request and epoch, and what they used: cancelled
        ones, and whatever is told late or twice."""
        self.informed: dict[Request, None] = {}
        """They came, or an input of theirs is known now, and others are not: they may run ahead."""
        self.wrote: list[Request] = []
        """An output of theirs is known."""
        self.over: list[tuple[Request, Usage | None]] = []
        """They ended; with the usage of the last run, if it made all outputs that were missing."""
        self.rewired: list[Producer] = []
        """New or revived, with all that is downstream of them: what they are scheduled for is to be deduced."""
        self.asked: list[Variable] = []
        """Somebody waits for them now who did not before."""
        self.streams: dict[Request, set[VariableId]] = {}
        """Outputs of running requests that somebody streams now."""
