"""Which of those who run on an engine goes first: places, by tenant and by what was submitted together.

A request goes behind everybody who is there, but no further back than what its tenant submitted with it, or later. So
a tenant's places never fall from one submission to the next: what was submitted together shares one, and the next
submission that is there has the lowest place of all later ones. Nobody else need be looked at.

Requests that come to an old place overtake those of other tenants behind it. Where a tenant has a long row of them
that would go on for as long as it lasts: so when they took a turn, all that the tenant still has to come goes behind.
"""

from bisect import bisect_left
from dataclasses import dataclass, field

from parrotserve.criteria import Precedence
from parrotserve.graph.objects import Request
from parrotserve.ids import TenantId
from parrotserve.scheduler.lines import TURN_SECONDS


@dataclass(slots=True)
class _Shared:
    """The place of what was submitted together."""

    place: int
    """Of those that come next. Those that are here keep what they got."""
    holders: int = 0


@dataclass(slots=True)
class _Row:
    """A tenant's places."""

    order: list[int] = field(default_factory=list[int])
    """Its submissions of which any request is here, in their order."""
    shared: dict[int, _Shared] = field(default_factory=dict[int, _Shared])
    overtook: float = 0.0
    """Seconds of service of those that came before others who were here."""

    @property
    def last(self) -> int:
        """The place that is furthest back."""
        return self.shared[self.order[-1]].place


class Places:
    """One engine's. Every operation costs O(tenants there + log submissions) of one tenant, and moving its list's end;
    once a turn, all of its submissions are looked at."""

    def __init__(self, *, fair: bool = True) -> None:
        """Without `fair` tenants overtake others for as long as they like."""
        self._fair = fair
        self._rows: dict[TenantId, _Row] = {}
        self._given = 0
        """To those who are, or were, here."""

    def take(self, tenant: TenantId, submission: int, seconds: float) -> Precedence:
        """A request comes that is expected to take so much service: where does it go?"""
        row = self._rows.setdefault(tenant, _Row())
        at = bisect_left(row.order, submission)
        if at < len(row.order):
            self._overtake(row, row.shared[row.order[at]].place, seconds)
        shared = row.shared.get(submission)
        if shared is None:
            if at == len(row.order):
                self._given += 1
            place = row.shared[row.order[at]].place if at < len(row.order) else self._given
            row.order.insert(at, submission)
            shared = row.shared[submission] = _Shared(place)
        shared.holders += 1
        return Precedence(shared.place, submission)

    def leave(self, tenant: TenantId, submission: int) -> None:
        """One that took a place goes."""
        row = self._rows[tenant]
        shared = row.shared[submission]
        shared.holders -= 1
        if shared.holders:
            return
        del row.shared[submission], row.order[bisect_left(row.order, submission)]
        if not row.order:
            del self._rows[tenant]

    def holders(self) -> dict[tuple[TenantId, int], int]:
        """How many of each submission are here; for tests."""
        return {
            (tenant, submission): row.shared[submission].holders
            for tenant, row in self._rows.items()
            for submission in row.order
        }

    def _overtake(self, row: _Row, place: int, seconds: float) -> None:
        """A tenant's next request is to have this place, unless others behind it have waited for a turn."""
        if not self._fair or all(one is row or one.last <= place for one in self._rows.values()):
            return
        if row.overtook >= TURN_SECONDS:
            self._given += 1
            row.overtook = 0.0
            for shared in row.shared.values():
                shared.place = self._given
        else:
            row.overtook += seconds


def staged(precedence: Precedence, request: Request) -> Precedence:
    """The precedence, with how many stages of its work follow a request."""
    return precedence._replace(stages=request.deduced.level if request.deduced is not None else 0)
