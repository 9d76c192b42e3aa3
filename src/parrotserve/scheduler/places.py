"""Which of those who run on an engine goes first: places, by tenant and by what was submitted together.

A request goes behind everybody who is there, but no further back than what its tenant submitted with it, or later. So
a tenant's places never fall from one submission to the next: what was submitted together shares one, and the next
submission that is there has the lowest place of all later ones. Nobody else need be looked at.
"""

from bisect import bisect_left
from dataclasses import dataclass, field

from parrotserve.criteria import Precedence
from parrotserve.ids import TenantId


@dataclass(slots=True)
class _Shared:
    """The place of what was submitted together."""

    place: int
    holders: int = 0


@dataclass(slots=True)
class _Row:
    """A tenant's places."""

    order: list[int] = field(default_factory=list[int])
    """Its submissions of which any request is here, in their order."""
    shared: dict[int, _Shared] = field(default_factory=dict[int, _Shared])


class Places:
    """One engine's. Every operation costs O(log submissions) of one tenant, and moving its list's end."""

    def __init__(self) -> None:
        self._rows: dict[TenantId, _Row] = {}
        self._given = 0
        """To those who are, or were, here."""

    def take(self, tenant: TenantId, submission: int) -> Precedence:
        """A request comes: where does it go?"""
        row = self._rows.setdefault(tenant, _Row())
        shared = row.shared.get(submission)
        if shared is None:
            at = bisect_left(row.order, submission)
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

    def holders(self) -> dict[tuple[TenantId, Precedence], int]:
        """How many have each place; for tests."""
        return {
            (tenant, Precedence(row.shared[submission].place, submission)): row.shared[submission].holders
            for tenant, row in self._rows.items()
            for submission in row.order
        }
