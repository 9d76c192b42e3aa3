"""Queued requests of one model in fair order, with one line for each tenant.

Start-time fair queueing (Goyal, Vin, Cheng 1996) over service received: every line has a virtual time, which is the
service that its tenant got divided by the tenant's weight, and the line that is furthest behind is next. A line that
becomes non-empty continues at the virtual time of the line served last, or of the waiting line that is furthest behind,
so nobody saves up service by being idle. Service is counted per tenant, whatever sessions it is split into. If two
tenants always have requests waiting, neither gets ahead of the other, in service divided by weight, by more than one
request and one turn of each.

A request is charged its expected cost when it is placed; otherwise many would be placed before the cost of the first
one shows. Which running request makes room for which is decided by service actually received.

Within a line, requests are ordered by objective, then by arrival: that of submission, not of readiness, so the later
steps of an application do not queue anew. Members of a task group stand together at the place of the first one.
Suspects, which run alone, are queued separately: a suspect waits for its tenant's turn and comes before the tenant's
other requests.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf

from parrotserve.criteria import Objective
from parrotserve.graph.lazy_heap import LazyHeap
from parrotserve.graph.objects import Request
from parrotserve.ids import TenantId

TURN_SECONDS = 1.0
"""Seconds of service that a tenant may get in one turn while others wait, so that task groups and requests with a
common prefix stay together."""

_KINDS = {
    pressing: tuple(objective for objective in Objective if objective.pressing is pressing)
    for pressing in (True, False)
}
"""Objectives of pressing requests (True) and of throughput work (False), the strictest first."""
EVERYBODY = TenantId("")
"""Stands for all tenants when they are not told apart."""
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
    """Service that the tenant's requests are known to have received, divided by its weight."""
    heaps: dict[Objective, LazyHeap[Request]] = field(default_factory=_heaps)
    standing: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    """Number of pressing requests (True) and of others (False)."""
    suspects: LazyHeap[Request] = field(default_factory=LazyHeap[Request])
    """Requests that may have killed engines, by arrival."""
    unsettled: int = 0
    """Number of the tenant's requests whose charge is not final: they run, or their cancelled run is yet to be
    reported."""

    def head(self, *, pressing: bool) -> Request | None:
        """The next pressing request, or the next one of throughput work."""
        firsts = (self.first_of(objective) for objective in _KINDS[pressing])
        return next((first for first in firsts if first is not None), None)

    def first_of(self, objective: Objective) -> Request | None:
        """The next request of one objective."""
        first = self.heaps[objective].first()
        return first[1] if first is not None and first[0] < inf else None

    @property
    def empty(self) -> bool:
        return not (self.standing[True] or self.standing[False] or self.suspects)


class Lines:
    """All lines of one model. Every operation takes O(log waiting)."""

    def __init__(self, *, fair: bool = True) -> None:
        """Without `fair`, all tenants share one line."""
        self._fair = fair
        self._lines: dict[TenantId, Line] = {}
        self.weights: dict[TenantId, float] = {}
        """Weights of tenants; those not in it have weight 1."""
        self._behind = {pressing: LazyHeap[Line]() for pressing in (True, False)}
        """Lines with pressing requests (True) and with others (False), the one furthest behind first."""
        self._suspected: LazyHeap[Line] = LazyHeap()
        """Lines with suspects, the one furthest behind first."""
        self.suspects: dict[Request, None] = {}
        """Queued suspects, which are not among the waiting requests that this container counts and iterates over."""
        self._idle: LazyHeap[Line] = LazyHeap()
        """Lines without requests. They may be forgotten once the other lines have caught up with them."""
        self._held = {pressing: dict[Line, None]() for pressing in (True, False)}
        """Lines whose pressing requests (True), or whose others (False), are passed over."""
        self.aside: dict[Request, None] = {}
        """Single requests that are passed over, without those behind them in their lines."""
        self._standing: dict[Request, Objective] = {}
        self._virtual = 0.0
        """Virtual time of the line that was served last."""
        self._served: dict[Line, None] = {}
        """Lines with unsettled requests."""

    def __len__(self) -> int:
        return len(self._standing)

    def __contains__(self, request: Request) -> bool:
        return request in self._standing

    def __iter__(self) -> Iterator[Request]:
        return iter(self._standing)

    def put(self, request: Request) -> None:
        """Queue a request in its tenant's line."""
        line = self._line(request.session.tenant)
        self._join(line)
        self._standing[request] = request.objective
        line.standing[request.objective.pressing] += 1
        heap = line.heaps[request.objective]
        heap.put(request, _order(request))
        if len(heap) == 1:
            self._sort(line)

    def put_suspect(self, request: Request) -> None:
        """Queue a suspect in its tenant's line."""
        line = self._line(request.session.tenant)
        self._join(line)
        self.suspects[request] = None
        line.suspects.put(request, request.arrival)
        self._sort(line)

    def next_suspect(self) -> Request | None:
        """The next suspect, if no line with waiting requests is further behind than its tenant's."""
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
        """Take a request out of its line, if it is in one."""
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
    def unsettled(self) -> int:
        """Number of requests that were served and not settled."""
        return sum(line.unsettled for line in self._lines.values())

    def any(self, *, pressing: bool) -> bool:
        """Whether requests of this kind wait."""
        return len(self._behind[pressing]) > 0

    def next(self, *, pressing: bool) -> Line | None:
        """The line whose turn it is, among those with requests of this kind."""
        first = self._behind[pressing].first()
        return first[1] if first is not None else None

    def pressing_first(self) -> bool:
        """Whether the line that is furthest behind is one with pressing requests; these win ties."""
        pressing, other = self._behind[True].first(), self._behind[False].first()
        return other is None or (pressing is not None and pressing[0] <= other[0])

    def turn_ends(self, line: Line) -> float:
        """The virtual time at which a line's turn ends and another line is next."""
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
        """Pass over a line's requests of this kind until `release`."""
        self._held[pressing][line] = None
        self._behind[pressing].discard(line)

    def set_aside(self, request: Request) -> None:
        """Pass over one request until `release`, but not those behind it in its line."""
        self.aside[request] = None
        self._line(request.session.tenant).heaps[self._standing[request]].put(request, inf)

    def release(self) -> None:
        """Pass over nothing any more."""
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
        """Take a placed request out of its line, and charge the line `seconds` of expected service."""
        line = self._line(request.session.tenant)
        line.unsettled += 1
        self._served[line] = None
        self.discard(request)
        self._virtual = max(self._virtual, line.virtual)
        self._charge(line, seconds)
        return line

    def receive(self, tenant: TenantId, seconds: float) -> None:
        """Note service that a tenant's running requests have received."""
        line = self._line(tenant)
        line.received += seconds / line.weight

    def settle(self, tenant: TenantId, correction: float) -> None:
        """Correct the charge of a request that ended by what it took beyond its expected service (may be negative)."""
        line = self._line(tenant)
        line.unsettled -= 1
        if not line.unsettled:
            del self._served[line]
        self._charge(line, correction)

    def weigh(self, tenant: TenantId, weight: float) -> None:
        """Set a tenant's weight, to which its share is proportional."""
        self.weights[tenant] = weight
        if self._fair and tenant in self._lines:
            self._lines[tenant].weight = weight

    def waiting(self, tenant: TenantId) -> int:
        """Number of a tenant's waiting requests."""
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
        """Move an empty line up to where the others are, so that nobody saves up service by being idle."""
        if not line.empty:
            return
        line.virtual = max(line.virtual, self._joins_at())
        waiting = (behind.first() for behind in (*self._behind.values(), self._suspected))
        others = self._served or [first[1] for first in waiting if first is not None]
        line.received = max((line.received, *(one.received for one in others)))

    def _joins_at(self) -> float:
        """Virtual time at which an empty line continues. Corrections of charges can set waiting lines back behind the
        line that was served last, so the minimum counts."""
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
        if line.unsettled or not line.empty:
            self._idle.discard(line)
            return
        self._idle.put(line, line.virtual)
        if len(self._idle) == len(self._lines):
            # Nothing is served, so nobody is behind. One line is kept and reset: its tenant may be the next to ask.
            line.virtual = line.received = self._virtual = 0.0
            if len(self._lines) > 1:
                self._idle, self._lines = LazyHeap(), {line.tenant: line}
            self._idle.put(line, 0.0)
            return
        joins_at = self._joins_at()
        while (first := self._idle.first()) is not None and first[0] <= joins_at:
            del self._lines[self._idle.pop().tenant]

    def check_integrity(self) -> None:
        """Check the heaps against one another. Raises `AssertionError`."""
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
        assert set(self._served) == {line for line in self._lines.values() if line.unsettled}, "lines that are served"
        idle = {line for line in self._lines.values() if line.empty and not line.unsettled}
        assert set(self._idle) == idle, "lines that are not idle are kept as such"
        for pressing, behind in self._behind.items():
            wanted = {line for line in self._lines.values() if line.head(pressing=pressing) is not None}
            assert set(behind) == wanted, "lines that have requests are not those that are served"


def _order(request: Request) -> int:
    """Sort key: arrival, or for members of a task group the arrival of its first member."""
    first = request.group.first if request.group is not None else request.arrival
    return (first << _ARRIVAL_BITS) + request.arrival
