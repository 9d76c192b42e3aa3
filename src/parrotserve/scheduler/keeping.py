"""Engines that are reserved ("kept") for pressing requests that have room nowhere.

If all requests waited behind a big one, other engines would run empty; if none did, small ones would take all room that
becomes free, for ever. So the engine where the big one lacks least is reserved for it, from pass to pass, and others
pass it on other engines.
"""

from collections.abc import Sequence

from parrotserve.analysis.objective import stricter
from parrotserve.graph.objects import Request
from parrotserve.scheduler.lines import Line
from parrotserve.scheduler.load import EngineLoad
from parrotserve.scheduler.pool import Pool
from parrotserve.scheduler.share import SHARE_SECONDS
from parrotserve.scheduler.tickets import Ticket

_MOST = 8
"""Most requests with a reserved engine, since each of them is looked at in every pass."""


class Keeping:
    """The reserved engines of a pool, as seen by one pass."""

    def __init__(self, pool: Pool, now: float) -> None:
        self._pool = pool
        self._now = now

    def is_due(self, member: Request) -> bool:
        """Whether a member of a task group has waited long while groups got little service. Without this, an endless
        stream of latency-sensitive requests would starve groups."""
        ready = member.times.ready
        return ready is not None and self._now - ready >= SHARE_SECONDS and self._pool.group_share.is_low(self._now)

    def goes_before(self, request: Request, holder: Request) -> bool:
        """Whether a request has precedence over `holder`, a request of the same line with a reserved engine."""
        return stricter(request.objective, holder.objective) and not self.is_due(holder)

    def is_open(self, load: EngineLoad, request: Request, *, bulk_is_due: bool) -> bool:
        """Whether a request may use an engine, reserved or not. The room of a reserved engine is open to requests with
        precedence in the holder's line, to other tenants if they add less to its steps, and to throughput work if that
        can be paused again or is due its minimum share."""
        holder = next((one for one, kept in self._pool.kept_for.items() if kept is load), None)
        if holder is None or holder is request:
            return True
        if not request.objective.pressing:
            return bulk_is_due or (load.pausable and self._pool.switches.preemption)
        if self._line_of(holder) is self._line_of(request):
            return self.goes_before(request, holder)
        return load.crowd.is_fullest(holder.session.tenant)

    def keep(self, ticket: Ticket, able: Sequence[EngineLoad]) -> EngineLoad | None:
        """Reserve one of these engines for a request. None if no more may be reserved: a line has one reservation, but
        for requests with precedence over its holder, because a holder is placed out of turn once it has room."""
        kept_for, request = self._pool.kept_for, ticket.request
        if kept_for.get(request) in able:
            return kept_for[request]
        free = [load for load in able if load not in kept_for.values()]
        line = self._line_of(request)
        others = (one for one in kept_for if self._line_of(one) is line and not self.goes_before(request, one))
        if not free or len(kept_for) >= _MOST or any(others):
            return None
        kept_for[request] = min(free, key=lambda one: one.lacking(ticket)[::-1])
        return kept_for[request]

    def _line_of(self, request: Request) -> Line | None:
        return self._pool.lines.line_of(request.session.tenant)
