"""A request that runs on an engine, as the scheduler counts it."""

from dataclasses import dataclass

from parrotserve.analysis.prefix import Boundary
from parrotserve.criteria import NO_PRECEDENCE, Objective, Precedence
from parrotserve.graph.objects import Request
from parrotserve.ids import TenantId
from parrotserve.scheduler.tickets import Ticket


@dataclass(slots=True, eq=False)
class Aboard:
    """A request that runs on an engine."""

    ticket: Ticket
    objective: Objective
    """By which it is counted."""
    tokens: float
    """Of prompt and outputs, together."""
    tail: float
    """Of these, those that are not in the prefix that others may share."""
    service: float
    """Seconds of the engine that it was charged."""
    prefill: float
    """Of these, for reading its prompt."""
    stretch: float
    """Seconds of work that it adds to a step: its service, spread over the steps that it is expected to write in."""
    precedence: Precedence = NO_PRECEDENCE
    """On this engine, among requests of one objective."""
    received: float = 0.0
    """Seconds of the engine that it is thought to have got so far."""
    paused: bool = False

    @property
    def request(self) -> Request:
        return self.ticket.request

    @property
    def tenant(self) -> TenantId:
        return self.ticket.request.session.tenant

    @property
    def boundaries(self) -> list[Boundary]:
        return self.ticket.prefix.boundaries

    @property
    def pressing(self) -> bool:
        """Whether somebody waits for it, or for its group."""
        return self.objective.pressing
