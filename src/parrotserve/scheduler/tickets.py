"""What the scheduler keeps of every request that has not ended: its beginning, its size, who begins alike."""

from collections.abc import Iterator
from dataclasses import dataclass

from parrotserve.analysis.prefix import Prefix, prefix_of, prompt_chars, rekey
from parrotserve.criteria import Objective
from parrotserve.graph.objects import Request
from parrotserve.scheduler.estimates import Estimates, Ratio


@dataclass(slots=True, eq=False)
class Ticket:
    """One request."""

    request: Request
    ratio: Ratio
    """Of its tenant."""
    prefix: Prefix
    chars: float
    """Of its prompt; expected ones, where values are unknown."""
    output_tokens: float
    """Expected, of all its outputs."""
    queued: Objective | None = None
    """By which it is listed among those that begin alike."""

    @property
    def prompt_tokens(self) -> float:
        """Expected."""
        return self.ratio.tokens(self.chars)


class Sharers:
    """Hash -> queued requests that begin so, apart by objective, in the order they were queued."""

    def __init__(self) -> None:
        self._queued: dict[Objective, dict[bytes, dict[Ticket, None]]] = {objective: {} for objective in Objective}
        self.watched: set[bytes] = set()
        """Beginnings of which it matters when no queued request has them any more."""
        self.gone: list[tuple[bytes, Request]] = []
        """Those of which that is so since this was last emptied, and who was the last."""

    def put(self, ticket: Ticket) -> None:
        """A request is queued."""
        ticket.queued = ticket.request.objective
        table = self._queued[ticket.queued]
        for boundary in ticket.prefix.boundaries:
            table.setdefault(boundary.hash, {})[ticket] = None

    def discard(self, ticket: Ticket) -> None:
        """A request is queued no more."""
        if ticket.queued is None:
            return
        table = self._queued[ticket.queued]
        for boundary in ticket.prefix.boundaries:
            sharers = table[boundary.hash]
            del sharers[ticket]
            if not sharers:
                del table[boundary.hash]
                if boundary.hash in self.watched:
                    self.gone.append((boundary.hash, ticket.request))
        ticket.queued = None

    def first(self, key: bytes) -> Ticket | None:
        """A queued request that begins so."""
        for table in self._queued.values():
            if sharers := table.get(key):
                return next(iter(sharers))
        return None

    def of(self, ticket: Ticket) -> Iterator[Ticket]:
        """Queued requests of the same objective that begin like this one (which is queued no more), as far as any
        do. The caller may take each from the queue before it asks for the next."""
        table = self._queued[ticket.request.objective]
        for boundary in reversed(ticket.prefix.boundaries):
            while sharers := table.get(boundary.hash):
                yield next(iter(sharers))

    def check_integrity(self, tickets: dict[Request, Ticket], queued: set[Request]) -> None:
        """Compare with these tickets, all there are. Raises `AssertionError`."""
        listed = {
            (objective, key, ticket)
            for objective, table in self._queued.items()
            for key, sharers in table.items()
            for ticket in sharers
        }
        wanted = {
            (request.objective, boundary.hash, ticket)
            for request, ticket in tickets.items()
            if request in queued
            for boundary in ticket.prefix.boundaries
        }
        assert listed == wanted, "requests that begin alike are not those that are queued"


class Tickets:
    """The tickets of one model's requests."""

    def __init__(self, estimates: Estimates, *, prefix: bool = True) -> None:
        """Without `prefix`, no request is known to begin like another one."""
        self._estimates = estimates
        self._prefix = prefix
        self._tickets: dict[Request, Ticket] = {}
        self.sharers = Sharers()

    def __len__(self) -> int:
        return len(self._tickets)

    def of(self, request: Request) -> Ticket:
        """A request's ticket, made when it is first asked for."""
        ticket = self._tickets.get(request)
        if ticket is None:
            expected = self._estimates.output_chars
            ticket = self._tickets[request] = Ticket(
                request,
                self._estimates.ratio(request.session.tenant),
                prefix_of(request, expected) if self._prefix else Prefix(request),
                prompt_chars(request, expected),
                self._estimates.output_tokens(request),
            )
        return ticket

    def rekey(self, ticket: Ticket) -> bool:
        """Values have come that it reads or wrote; whether its beginning changed."""
        queued = ticket.queued
        self.sharers.discard(ticket)
        changed = rekey(ticket.prefix, self._estimates.output_chars)
        if queued is not None:
            self.sharers.put(ticket)
        return changed

    def measured(self, request: Request) -> Ticket:
        """The ticket of a request of which all that it reads is known now."""
        if request not in self._tickets:
            return self.of(request)
        ticket = self._tickets[request]
        self.rekey(ticket)
        ticket.chars = prompt_chars(request, self._estimates.output_chars)
        ticket.output_tokens = self._estimates.output_tokens(request)
        return ticket

    def forget(self, request: Request) -> None:
        """It is over."""
        ticket = self._tickets.pop(request, None)
        if ticket is not None:
            self.sharers.discard(ticket)

    def check_integrity(self, unfinished: set[Request], queued: set[Request]) -> None:
        """Raises `AssertionError`."""
        assert self._tickets.keys() <= unfinished, "a request that is over still has a ticket"
        assert queued <= self._tickets.keys(), "a queued request has no ticket"
        self.sharers.check_integrity(self._tickets, queued)
