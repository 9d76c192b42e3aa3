"""Precedence among the requests on one engine: places, by tenant and submission.

A request gets a place behind all requests that are there, but not behind those of its tenant that were submitted with
it or later. So the requests of one submission share a place, and a tenant's places never decrease from one submission
to the next. It is enough to look at the tenant's next later submission, which has the lowest place of all later ones.

A request that joins an old place overtakes other tenants' requests behind it. A tenant with a long row of such requests
would overtake for as long as the row lasts. So once they have taken a turn of service, all further requests of the
tenant go to the back.
"""

from bisect import bisect_left
from dataclasses import dataclass, field

from parrotserve.criteria import Precedence
from parrotserve.graph.objects import Request
from parrotserve.ids import TenantId
from parrotserve.scheduler.lines import TURN_SECONDS


@dataclass(slots=True)
class _Shared:
    """The place that the requests of one submission share."""

    place: int
    """The place of requests that come next. Those that are here keep the one that they got."""
    holders: int = 0


@dataclass(slots=True)
class _Row:
    """A tenant's places."""

    order: list[int] = field(default_factory=list[int])
    """Its submissions with requests here, in order."""
    shared: dict[int, _Shared] = field(default_factory=dict[int, _Shared])
    overtook: float = 0.0
    """Seconds of service of its requests that overtook others."""

    @property
    def last(self) -> int:
        """The place that is furthest back."""
        return self.shared[self.order[-1]].place


class Places:
    """The places of one engine. An operation takes O(tenants + log(the tenant's submissions)), plus moving the end of a
    list; once in a turn it visits all of the tenant's submissions."""

    def __init__(self, *, fair: bool = True) -> None:
        """Without `fair`, a tenant may overtake others without limit."""
        self._fair = fair
        self._rows: dict[TenantId, _Row] = {}
        self._given = 0
        """The last place that was given out."""

    def take(self, tenant: TenantId, submission: int, seconds: float) -> Precedence:
        """The precedence of a new request, which is expected to take `seconds` of service."""
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
        """Undo one `take`: the request has left the engine."""
        row = self._rows[tenant]
        shared = row.shared[submission]
        shared.holders -= 1
        if shared.holders:
            return
        del row.shared[submission], row.order[bisect_left(row.order, submission)]
        if not row.order:
            del self._rows[tenant]

    def holders(self) -> dict[tuple[TenantId, int], int]:
        """Number of requests here for each submission, for integrity checks."""
        return {
            (tenant, submission): row.shared[submission].holders
            for tenant, row in self._rows.items()
            for submission in row.order
        }

    def _overtake(self, row: _Row, place: int, seconds: float) -> None:
        """Account for a request that is about to overtake others at `place`, or move the tenant's submissions to the
        back if it has overtaken for a turn."""
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
    """The precedence, with the number of stages of its application that follow the request."""
    return precedence._replace(stages=request.deduced.level if request.deduced is not None else 0)
