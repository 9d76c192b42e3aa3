"""What one event changes: gathered while the graph takes the event in, then acted on."""

from parrotserve.graph.decisions import Decision
from parrotserve.graph.objects import Producer, Request, Variable
from parrotserve.ids import EngineId, RequestId, VariableId
from parrotserve.sampling import Usage


class Changes:
    """The decisions so far, and what the scheduler has to be told.

    Not a dataclass: one is made for every event, and filling in ten default fields takes as long as handling some
    events.
    """

    __slots__ = (
        "asked", "decisions", "freed", "informed", "late", "now", "over", "queued", "rewired", "streams", "unqueued",
        "wrote",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.now = now
        self.decisions: list[Decision] = []
        self.queued: list[Request] = []
        """Requests that began to wait for an engine."""
        self.unqueued: list[Request] = []
        """Requests that waited for an engine and no longer do."""
        self.freed: list[tuple[EngineId, RequestId, Usage | None]] = []
        """Requests that engines no longer run, or run ahead, with the usage of that run if it is known."""
        self.late: list[tuple[RequestId, int, Usage]] = []
        """Usage reported for runs (request, epoch) that are no longer known here: cancelled ones, and what is reported
        late or twice."""
        self.informed: dict[Request, None] = {}
        """Requests that are new, or have one more input, but not all of them: they may run ahead."""
        self.wrote: list[Request] = []
        """Requests of which one more output is known."""
        self.over: list[tuple[Request, Usage | None]] = []
        """Requests that ended, with the usage of the last run if it completed all outputs."""
        self.rewired: list[Producer] = []
        """New and revived producers, and those downstream of new ones: objectives are to be deduced again for them."""
        self.asked: list[Variable] = []
        """Variables for which somebody now waits urgently (other than for THROUGHPUT), for the first time."""
        self.streams: dict[Request, set[VariableId]] = {}
        """Outputs of running requests that somebody now streams."""
