"""Engines that are kept for requests which somebody waits for and which have room nowhere.

If all waited with one that is big, other engines would run empty; if nobody did, small ones would take what becomes
free, for ever. So the engine where it lacks least is kept for it, from pass to pass, and others go past it elsewhere.
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
"""Requests for which engines are kept: each is looked at in every pass."""


class Keeping:
    """What is kept of a pool's engines, for one pass."""

    def __init__(self, pool: Pool, now: float) -> None:
        self._pool = pool
        self._now = now

    def is_due(self, member: Request) -> bool:
        """Whether a member of a task group has long waited while such got little: who is waited for alone may never end
        to come."""
        ready = member.times.ready
        return ready is not None and self._now - ready >= SHARE_SECONDS and self._pool.group_share.is_low(self._now)

    def goes_before(self, request: Request, holder: Request) -> bool:
        """Whether a request goes before one of its line for which an engine is kept."""
        return stricter(request.objective, holder.objective) and not self.is_due(holder)

    def is_open(self, load: EngineLoad, request: Request, *, bulk_is_due: bool) -> bool:
        """Whether an engine is kept for nobody else. What it is kept for is taken by those who go before in its line,
        by other tenants if they add less to steps there, and by work that nobody waits for if it can be taken back, or
        is its minimum share."""
        holder = next((one for one, kept in self._pool.kept.items() if kept is load), None)
        if holder is None or holder is request:
            return True
        if not request.objective.pressing:
            return bulk_is_due or (load.pausable and self._pool.switches.preemption)
        if self._line_of(holder) is self._line_of(request):
            return self.goes_before(request, holder)
        return load.crowd.is_fullest(holder.session.tenant)

    def keep(self, ticket: Ticket, able: Sequence[EngineLoad]) -> EngineLoad | None:
        """Keep one of these engines for a request; None if there may be no more. One of a line, but for those that go
        before: for it goes ahead of its turn once it has room."""
        kept, request = self._pool.kept, ticket.request
        if kept.get(request) in able:
            return kept[request]
        free = [load for load in able if load not in kept.values()]
        line = self._line_of(request)
        others = (one for one in kept if self._line_of(one) is line and not self.goes_before(request, one))
        if not free or len(kept) >= _MOST or any(others):
            return None
        kept[request] = min(free, key=lambda one: one.lacking(ticket)[::-1])
        return kept[request]

    def _line_of(self, request: Request) -> Line | None:
        return self._pool.lines.line_of(request.session.tenant)
