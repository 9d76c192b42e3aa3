"""A request on an engine, as the scheduler accounts for it."""

from dataclasses import dataclass

from parrotserve.analysis.prefix import Boundary
from parrotserve.criteria import NO_PRECEDENCE, Objective, Precedence
from parrotserve.graph.objects import Request
from parrotserve.ids import TenantId
from parrotserve.scheduler.tickets import Ticket


@dataclass(slots=True, eq=False)
class Aboard:
    """A request that is running or paused on an engine."""

    ticket: Ticket
    objective: Objective
    """The objective under which it is counted."""
    tokens: float
    """Tokens of prompt and outputs together."""
    tail: float
    """Those of its tokens that lie behind the prefix that others may share."""
    service: float
    """Seconds of engine time that its tenant was charged for it."""
    prefill: float
    """Those of its `service` that are prefill."""
    stretch: float
    """Seconds of work that it adds to a step: its service, spread over its expected decode steps."""
    precedence: Precedence = NO_PRECEDENCE
    """Its precedence on this engine among requests of the same objective."""
    received: float = 0.0
    """Estimated seconds of engine time that it has received so far."""
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
        """Whether somebody waits for it or for its task group."""
        return self.objective.pressing
