"""What the scheduler keeps for every unfinished request: its prefix, its size, and the requests that share the
prefix."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from parrotserve.analysis.prefix import Prefix, lasting, prefix_of, prompt_chars, rekey
from parrotserve.criteria import Objective
from parrotserve.graph.objects import Request
from parrotserve.graph.states import ProducerState
from parrotserve.scheduler.estimates import Estimates, Ratio


@dataclass(slots=True, eq=False)
class Ticket:
    """The scheduler's record of one request."""

    request: Request
    ratio: Ratio
    """Its tenant's characters per token."""
    prefix: Prefix
    chars: float
    """Characters of its prompt; estimated where values are unknown."""
    output_tokens: float
    """Expected tokens of all its outputs."""
    listed: "Alike | None" = None
    """The table of `Sharers` in which it is listed, if any."""

    @property
    def prompt_tokens(self) -> float:
        """Expected tokens of its prompt."""
        return self.ratio.tokens(self.chars)


Alike = dict[bytes, dict[Ticket, None]]
"""Prefix hash -> requests with that prefix, in order of arrival."""


class Sharers:
    """Requests by common prefix: queued ones, separately for each objective, and those that still wait for values."""

    def __init__(self) -> None:
        self._queued: dict[Objective, Alike] = {objective: {} for objective in Objective}
        self._waiting: Alike = {}
        self.watched: set[bytes] = set()
        """Hashes of prefixes for which it is recorded when the last request that is still to run and has them
        leaves."""
        self.gone: list[tuple[bytes, Request]] = []
        """Watched hashes whose last request has left, with that request. The caller empties it."""

    def put(self, ticket: Ticket) -> None:
        """List a queued request."""
        self.discard(ticket)
        self._list(ticket, self._queued[ticket.request.objective])

    def put_waiting(self, ticket: Ticket) -> None:
        """List a request that waits for values."""
        self.discard(ticket)
        self._list(ticket, self._waiting)

    def discard(self, ticket: Ticket) -> None:
        """Take a request off the lists."""
        self._unlist(ticket)
        ticket.listed = None

    def change(self, ticket: Ticket, change: Callable[[], object], *, lasting: int) -> None:
        """Call `change`, which changes a request's prefix behind its first `lasting` boundaries."""
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
        """A request that is still to run and has this prefix; a queued one if there is one."""
        for table in (*self._queued.values(), self._waiting):
            if sharers := table.get(key):
                return next(iter(sharers))
        return None

    def of(self, ticket: Ticket) -> Iterator[Ticket]:
        """Queued requests of the same objective that share a prefix with this one (which is not queued any more), those
        with the longest common prefix first. The caller has to unqueue each before it asks for the next."""
        table = self._queued[ticket.request.objective]
        for boundary in reversed(ticket.prefix.boundaries):
            while sharers := table.get(boundary.hash):
                yield next(iter(sharers))

    def check_integrity(self, tickets: dict[Request, Ticket], queued: set[Request]) -> None:
        """Check against `tickets`, which are all there are. Raises `AssertionError`."""
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
        """Without `prefix`, requests are treated as sharing no prefix."""
        self._estimates = estimates
        self._prefix = prefix
        self._tickets: dict[Request, Ticket] = {}
        self.sharers = Sharers()

    def __len__(self) -> int:
        return len(self._tickets)

    def of(self, request: Request) -> Ticket:
        """A request's ticket, created when it is first asked for."""
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
        """Update the prefix of a request for which values became known. Returns whether there was anything to
        change."""
        stays = lasting(ticket.prefix)
        if stays is None:
            return False
        self.sharers.change(ticket, lambda: rekey(ticket.prefix, self._estimates.output_chars), lasting=stays)
        return True

    def wait(self, request: Request) -> None:
        """List a request that waits for values, or update it because one more of them is known."""
        ticket = self.of(request)
        if ticket.listed is None:
            self.sharers.put_waiting(ticket)
        self.rekey(ticket)

    def measured(self, request: Request) -> Ticket:
        """The ticket of a request whose inputs are all known, measured anew."""
        if request not in self._tickets:
            return self.of(request)
        ticket = self._tickets[request]
        self.rekey(ticket)
        ticket.chars = prompt_chars(request, self._estimates.output_chars)
        ticket.output_tokens = self._estimates.output_tokens(request)
        return ticket

    def forget(self, request: Request) -> None:
        """Forget a request that has ended."""
        ticket = self._tickets.pop(request, None)
        if ticket is not None:
            self.sharers.discard(ticket)

    def check_integrity(self, unfinished: set[Request], queued: set[Request]) -> None:
        """Raises `AssertionError`."""
        assert self._tickets.keys() <= unfinished, "a request that is over still has a ticket"
        assert queued <= self._tickets.keys(), "a queued request has no ticket"
        self.sharers.check_integrity(self._tickets, queued)
