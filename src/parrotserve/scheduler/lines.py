"""Queued requests of one model, a line for each tenant, in fair order.

Start-time fair queueing (Goyal, Vin, Cheng 1996) over service received: every line has a virtual time, the service that
its tenant got divided by its weight, and the line that is furthest behind is next. A line that was empty goes on
where the one served last was, or who is furthest behind of those that wait, so nobody saves up by being idle. Service
belongs to the tenant, whatever sessions it is split into. Of two tenants that always have requests waiting, neither is
ever ahead of the other, in service divided by weight, by more than one request and one turn of each.

A request is charged when it is placed, for all that it is expected to take: else many would be placed before the first
of them shows. Who makes room for whom once they run goes by what they have received.

In a line, requests go by objective, then by arrival: that of submission, not of readiness, so the later steps of an
application do not queue anew. Members of a task group stand together, where the first of them does. Suspects, which run
alone, stand apart: each has to be its tenant's turn, too, and comes before what else the tenant asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf

from parrotserve.criteria import Objective
from parrotserve.graph.lazy_heap import LazyHeap
from parrotserve.graph.objects import Request
from parrotserve.ids import TenantId

TURN_SECONDS = 1.0
"""Service that a tenant may get beyond its first request while others wait: so that groups and requests that begin
alike stay together."""

_KINDS = {
    pressing: tuple(objective for objective in Objective if objective.pressing is pressing)
    for pressing in (True, False)
}
"""Objectives of requests that somebody waits for, and of others; the strictest first."""
EVERYBODY = TenantId("")
"""Stands for all tenants where they are not told apart."""
_ARRIVAL_BITS = 48


def _heaps() -> dict[Objective, LazyHeap[Request]]:
    return {objective: LazyHeap() for objectives in _KINDS.values() for objective in objectives}


@dataclass(slots=True, eq=False)
class Line:
    """A tenant's queued requests."""

    tenant: TenantId
    weight: float = 1.0
    virtual: float = 0.0
    received: float = 0.0
    """Service that the tenant's requests are known to have got, divided by its weight."""
    heaps: dict[Objective, LazyHeap[Request]] = field(default_factory=_heaps)
    standing: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    """How many requests there are that somebody waits for, and how many others."""
    suspects: LazyHeap[Request] = field(default_factory=LazyHeap[Request])
    """Those that engines died of, perhaps; by arrival."""
    aboard: int = 0
    """Requests of the tenant that run, or were cancelled a moment ago, whose charge may still be corrected."""

    def head(self, *, pressing: bool) -> Request | None:
        """Who is next among those that somebody waits for, or among the others."""
        firsts = (self.first_of(objective) for objective in _KINDS[pressing])
        return next((first for first in firsts if first is not None), None)

    def first_of(self, objective: Objective) -> Request | None:
        """Who is next among those of one objective."""
        first = self.heaps[objective].first()
        return first[1] if first is not None and first[0] < inf else None

    @property
    def empty(self) -> bool:
        return not (self.standing[True] or self.standing[False] or self.suspects)


class Lines:
    """All lines of one model. Every operation costs O(log waiting)."""

    def __init__(self, *, fair: bool = True) -> None:
        """Without `fair` there is one line for everybody."""
        self._fair = fair
        self._lines: dict[TenantId, Line] = {}
        self.weights: dict[TenantId, float] = {}
        """Of tenants; 1 where there is none."""
        self._behind = {pressing: LazyHeap[Line]() for pressing in (True, False)}
        """Lines with pressing requests, and with others; the one furthest behind first."""
        self._suspected: LazyHeap[Line] = LazyHeap()
        """Lines with suspects; the one furthest behind first."""
        self.suspects: dict[Request, None] = {}
        """They are not counted, and not found, among the requests that wait."""
        self._idle: LazyHeap[Line] = LazyHeap()
        """Lines without requests, until the others are where they are: then they may be forgotten."""
        self._held = {pressing: dict[Line, None]() for pressing in (True, False)}
        """Lines whose pressing requests, or whose others, are passed over."""
        self.aside: dict[Request, None] = {}
        """Requests that are passed over, and nobody else of their lines for it."""
        self._standing: dict[Request, Objective] = {}
        self._virtual = 0.0
        """Where the line stood that was served last."""
        self._served: dict[Line, None] = {}
        """Lines that have requests aboard."""

    def __len__(self) -> int:
        return len(self._standing)

    def __contains__(self, request: Request) -> bool:
        return request in self._standing

    def __iter__(self) -> Iterator[Request]:
        return iter(self._standing)

    def put(self, request: Request) -> None:
        """A request joins its tenant's line."""
        line = self._line(request.session.tenant)
        self._join(line)
        self._standing[request] = request.objective
        line.standing[request.objective.pressing] += 1
        heap = line.heaps[request.objective]
        heap.put(request, _order(request))
        if len(heap) == 1:
            self._sort(line)

    def put_suspect(self, request: Request) -> None:
        """A suspect joins its tenant's line."""
        line = self._line(request.session.tenant)
        self._join(line)
        self.suspects[request] = None
        line.suspects.put(request, request.arrival)
        self._sort(line)

    def next_suspect(self) -> Request | None:
        """The suspect that is next, if others' requests wait for no less service than its tenant has got."""
        first = self._suspected.first()
        if first is None:
            return None
        virtual, line = first
        behind = (one.first() for one in self._behind.values())
        if any(other is not None and other[0] < virtual for other in behind):
            return None
        head = line.suspects.first()
        return head[1] if head is not None else None

    def discard(self, request: Request) -> None:
        """A request leaves its line, if it stands in one."""
        if request in self.suspects:
            del self.suspects[request]
            line = self._line(request.session.tenant)
            line.suspects.discard(request)
            self._sort(line)
            return
        objective = self._standing.pop(request, None)
        if objective is not None:
            line = self._line(request.session.tenant)
            line.standing[objective.pressing] -= 1
            line.heaps[objective].discard(request)
            if not line.heaps[objective]:
                self._sort(line)

    @property
    def aboard(self) -> int:
        """How many requests were served and are not settled."""
        return sum(line.aboard for line in self._lines.values())

    def any(self, *, pressing: bool) -> bool:
        """Whether requests of this kind wait."""
        return len(self._behind[pressing]) > 0

    def next(self, *, pressing: bool) -> Line | None:
        """Whose turn it is, of the tenants that have such requests."""
        first = self._behind[pressing].first()
        return first[1] if first is not None else None

    def pressing_first(self) -> bool:
        """Whether the next one's request is pressing; of lines that are equally far, the pressing one is first."""
        pressing, other = self._behind[True].first(), self._behind[False].first()
        return other is None or (pressing is not None and pressing[0] <= other[0])

    def turn_ends(self, line: Line) -> float:
        """Up to which virtual time a line may be served before it is another's turn."""
        if len(self._lines) == 1:
            return inf
        others: list[float] = []
        for behind in (*self._behind.values(), self._suspected):
            if line in behind:
                behind.discard(line)
                first = behind.first()
                behind.put(line, line.virtual)
            else:
                first = behind.first()
            if first is not None:
                others.append(first[0])
        return min(others, default=inf) + TURN_SECONDS / line.weight

    def hold(self, line: Line, *, pressing: bool) -> None:
        """A line's requests of this kind are passed over, until `release`."""
        self._held[pressing][line] = None
        self._behind[pressing].discard(line)

    def set_aside(self, request: Request) -> None:
        """A request that waits is passed over, until `release`; those behind it in its line are not."""
        self.aside[request] = None
        self._line(request.session.tenant).heaps[self._standing[request]].put(request, inf)

    def release(self) -> None:
        """Nobody is passed over any more."""
        for request in self.aside:
            if request in self._standing:
                self._line(request.session.tenant).heaps[self._standing[request]].put(request, _order(request))
        self.aside.clear()
        held = [line for lines in self._held.values() for line in lines]
        if not held:
            return
        self._held = {True: {}, False: {}}
        for line in held:
            self._sort(line)

    def serve(self, request: Request, seconds: float) -> Line:
        """A request is placed, which is expected to take so much service."""
        line = self._line(request.session.tenant)
        line.aboard += 1
        self._served[line] = None
        self.discard(request)
        self._virtual = max(self._virtual, line.virtual)
        self._charge(line, seconds)
        return line

    def receive(self, tenant: TenantId, seconds: float) -> None:
        """A tenant's requests that run have got so much service."""
        line = self._line(tenant)
        line.received += seconds / line.weight

    def settle(self, tenant: TenantId, correction: float) -> None:
        """A placed request of a tenant ended, and took so much more service than expected."""
        line = self._line(tenant)
        line.aboard -= 1
        if not line.aboard:
            del self._served[line]
        self._charge(line, correction)

    def weigh(self, tenant: TenantId, weight: float) -> None:
        """From now on a tenant's share is proportional to this."""
        self.weights[tenant] = weight
        if self._fair and tenant in self._lines:
            self._lines[tenant].weight = weight

    def waiting(self, tenant: TenantId) -> int:
        """How many requests of a tenant wait."""
        line = self.line_of(tenant)
        return sum(map(len, line.heaps.values())) if line is not None else 0

    def line_of(self, tenant: TenantId) -> Line | None:
        """A tenant's line, if it has one."""
        return self._lines.get(tenant if self._fair else EVERYBODY)

    def _line(self, tenant: TenantId) -> Line:
        tenant = tenant if self._fair else EVERYBODY
        line = self._lines.get(tenant)
        if line is None:
            line = self._lines[tenant] = Line(tenant, self.weights.get(tenant, 1.0), self._joins_at())
        return line

    def _join(self, line: Line) -> None:
        """A line that was empty goes on where others are, so that nobody saves up by being idle."""
        if not line.empty:
            return
        line.virtual = max(line.virtual, self._joins_at())
        waiting = (behind.first() for behind in (*self._behind.values(), self._suspected))
        others = self._served or [first[1] for first in waiting if first is not None]
        line.received = max((line.received, *(one.received for one in others)))

    def _joins_at(self) -> float:
        """Where a line goes on that was empty: corrections take those that wait back behind who was served last."""
        joins_at = self._virtual
        for behind in (*self._behind.values(), self._suspected):
            if (first := behind.first()) is not None:
                joins_at = min(joins_at, first[0])
        for lines in self._held.values():
            for line in lines:
                joins_at = min(joins_at, line.virtual)
        return joins_at

    def _charge(self, line: Line, seconds: float) -> None:
        line.virtual += seconds / line.weight
        self._sort(line)

    def _sort(self, line: Line) -> None:
        for pressing, behind in self._behind.items():
            if not line.standing[pressing] or line in self._held[pressing]:
                behind.discard(line)
            else:
                behind.put(line, line.virtual)
        if line.suspects:
            self._suspected.put(line, line.virtual)
        else:
            self._suspected.discard(line)
        if line.aboard or not line.empty:
            self._idle.discard(line)
            return
        self._idle.put(line, line.virtual)
        if len(self._idle) == len(self._lines):
            # Nobody is served, so nobody is behind. One line stays, as good as new: its tenant may be the next to ask.
            line.virtual = line.received = self._virtual = 0.0
            if len(self._lines) > 1:
                self._idle, self._lines = LazyHeap(), {line.tenant: line}
            self._idle.put(line, 0.0)
            return
        joins_at = self._joins_at()
        while (first := self._idle.first()) is not None and first[0] <= joins_at:
            del self._lines[self._idle.pop().tenant]

    def check_integrity(self) -> None:
        """Compare the heaps with one another. Raises `AssertionError`."""
        standing = {one: objective for line in self._lines.values() for objective, heap in line.heaps.items()
                    for one in heap}  # fmt: skip
        assert standing == self._standing, "requests stand where they should not"
        for line in self._lines.values():
            for pressing, count in line.standing.items():
                assert count == sum(len(line.heaps[one]) for one in _KINDS[pressing]), "counts of who stands in a line"
        for request, objective in standing.items():
            assert request.objective is objective, f"{request} stands by an objective that it had"
        suspects = {one for line in self._lines.values() for one in line.suspects}
        assert suspects == set(self.suspects), "suspects stand where they should not"
        assert set(self._suspected) == {line for line in self._lines.values() if line.suspects}, "lines with suspects"
        assert set(self._served) == {line for line in self._lines.values() if line.aboard}, "lines that are served"
        idle = {line for line in self._lines.values() if line.empty and not line.aboard}
        assert set(self._idle) == idle, "lines that are not idle are kept as such"
        for pressing, behind in self._behind.items():
            wanted = {line for line in self._lines.values() if line.head(pressing=pressing) is not None}
            assert set(behind) == wanted, "lines that have requests are not those that are served"


def _order(request: Request) -> int:
    """Members of a task group where its first one stands; all else by arrival."""
    first = request.group.first if request.group is not None else request.arrival
    return (first << _ARRIVAL_BITS) + request.arrival
