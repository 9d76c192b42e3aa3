"""What the scheduler keeps of every request that has not ended: its beginning, its size, who begins alike."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from parrotserve.analysis.prefix import Prefix, lasting, prefix_of, prompt_chars, rekey
from parrotserve.criteria import Objective
from parrotserve.graph.objects import Request
from parrotserve.graph.states import ProducerState
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
    listed: "Alike | None" = None
    """Where it is listed among those that begin alike."""

    @property
    def prompt_tokens(self) -> float:
        """Expected."""
        return self.ratio.tokens(self.chars)


Alike = dict[bytes, dict[Ticket, None]]
"""Hash -> requests that begin so, in the order they came."""


class Sharers:
    """Requests that begin alike: those that are queued, apart by objective, and those that still wait for values."""

    def __init__(self) -> None:
        self._queued: dict[Objective, Alike] = {objective: {} for objective in Objective}
        self._waiting: Alike = {}
        self.watched: set[bytes] = set()
        """Beginnings of which it matters when no request that is still to run has them any more."""
        self.gone: list[tuple[bytes, Request]] = []
        """Those of which that is so since this was last emptied, and who was the last."""

    def put(self, ticket: Ticket) -> None:
        """A request is queued."""
        self.discard(ticket)
        self._list(ticket, self._queued[ticket.request.objective])

    def put_waiting(self, ticket: Ticket) -> None:
        """A request waits for values."""
        self.discard(ticket)
        self._list(ticket, self._waiting)

    def discard(self, ticket: Ticket) -> None:
        """A request neither is queued nor waits any more."""
        self._unlist(ticket)
        ticket.listed = None

    def change(self, ticket: Ticket, change: Callable[[], object], *, lasting: int) -> None:
        """`change` how a request begins, but for its first boundaries, so many."""
        table = ticket.listed
        self._unlist(ticket, lasting)
        change()
        if table is not None:
            self._list(ticket, table, lasting)

    def _list(self, ticket: Ticket, table: Alike, since: int = 0) -> None:
        ticket.listed = table
        for boundary in ticket.prefix.boundaries[since:]:
            table.setdefault(boundary.hash, {})[ticket] = None

    def _unlist(self, ticket: Ticket, since: int = 0) -> None:
        if ticket.listed is None:
            return
        for boundary in ticket.prefix.boundaries[since:]:
            sharers = ticket.listed[boundary.hash]
            del sharers[ticket]
            if not sharers:
                del ticket.listed[boundary.hash]
                if boundary.hash in self.watched:
                    self.gone.append((boundary.hash, ticket.request))

    def first(self, key: bytes) -> Ticket | None:
        """A request that is still to run and begins so, a queued one if there is one."""
        for table in (*self._queued.values(), self._waiting):
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
        tables = {**self._queued, None: self._waiting}
        listed = {
            (objective, key, ticket)
            for objective, table in tables.items()
            for key, sharers in table.items()
            for ticket in sharers
        }
        wanted = {
            (request.objective if request in queued else None, boundary.hash, ticket)
            for request, ticket in tickets.items()
            if ticket.listed is not None
            for boundary in ticket.prefix.boundaries
        }
        for request, ticket in tickets.items():
            runs = request.state not in (ProducerState.WAITING, ProducerState.QUEUED)
            assert not (runs and ticket.listed), "a request that runs is listed with those that are still to"
            assert ticket.listed is not None or request not in queued, "a queued request is not listed"
        assert listed == wanted, "requests that begin alike are not those that are still to run"


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
        stays = lasting(ticket.prefix)
        if stays is None:
            return False
        self.sharers.change(ticket, lambda: rekey(ticket.prefix, self._estimates.output_chars), lasting=stays)
        return True

    def wait(self, request: Request) -> None:
        """A request waits for values: it came, or one more of them is known."""
        ticket = self.of(request)
        if ticket.listed is None:
            self.sharers.put_waiting(ticket)
        self.rekey(ticket)

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
