"""One pass of the scheduler over a model's queue: which requests start, on which engines, and which are paused.

First, whose turn it is: the tenant that is furthest behind, and of its requests the one with the strictest objective.
Then where: members of a task group are placed together, other requests with queued requests that share their prefix, on
the engine where they and those already there lose the least time. Small requests cannot overtake a big one for ever: an
engine is reserved for a pressing request that has room nowhere (`keeping`), and others pass it on other engines only.
Otherwise, or if no other engine has a free row, the pass ends when the next request has no room. A pass takes O(placed
x (log waiting + engines considered)).
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import inf

from parrotserve.criteria import Objective
from parrotserve.graph.objects import Request, TaskGroup
from parrotserve.graph.placements import Considered, Lack, PlacedBy, Placement
from parrotserve.ids import TenantId
from parrotserve.scheduler.aboard import Aboard
from parrotserve.scheduler.base import Outcome, Paused, Placed, ReadNoMore, Resumed
from parrotserve.scheduler.keeping import Keeping
from parrotserve.scheduler.lines import TURN_SECONDS, Line
from parrotserve.scheduler.load import BULK_WEIGHT, EngineLoad
from parrotserve.scheduler.pool import Pool
from parrotserve.scheduler.tickets import Ticket
from parrotserve.scheduler.victims import victims

_WORK_WEIGHT = 0.1
"""Weight of a second of an engine's time, relative to a second for which somebody waits."""
_MOST_TOLD = 3
"""Most rejected engines whose predictions are recorded with a placement."""


class Pass:
    """One pass."""

    def __init__(self, pool: Pool, now: float) -> None:
        self._pool = pool
        self._now = now
        self._outcomes: list[Outcome] = []
        self._paused_bulk = _paused_bulk(pool)
        self._crowded = self._bulk_stays = False
        """Whether some, or all, paused throughput work with room stays paused because its tenant is at its limit."""
        self._kept_for_bulk: set[EngineLoad] = set()
        """Engines on which the next free room is reserved for throughput work."""
        self._draining, pool.draining = pool.draining, None
        self._keeping = Keeping(pool, now)
        self._looked_at_holders = False

    def run(self) -> list[Outcome]:
        """Place every request that can be placed."""
        if self._pool.at_rest:
            return []
        self._place_suspects()
        self._take_turns()
        self._pool.lines.release()
        self._place_suspects()  # again: requests ahead of them may have left room or the queue
        self._resume_pressing()
        self._relieve()
        return self._outcomes

    def _take_turns(self) -> None:
        blocked: set[bool] = set()
        while (pressing := self._whose_turn(blocked)) is not None:
            if not (self._press() if pressing else self._fill()):
                blocked.add(pressing)
                if not pressing and self._bulk_is_due():
                    self._kept_for_bulk.update(self._pool.where_bulk_is_due(self._draining))

    # --- Whose turn it is ------------------------------------------------------------------------------------

    def _whose_turn(self, blocked: set[bool]) -> bool | None:
        """True: latency-sensitive requests and task groups; False: throughput work; None: nothing can go on."""
        lines = self._pool.lines
        pressing = True not in blocked and lines.any(pressing=True)
        bulk = False not in blocked and self._bulk_waits
        if pressing and bulk:
            return not self._bulk_is_due() and self._pressing_is_first()
        return pressing if pressing or bulk else None

    def _pressing_is_first(self) -> bool:
        """Whether no tenant with throughput work, queued or paused, is behind that of the next pressing request."""
        line = self._pool.lines.next(pressing=True)
        if line is None or (self._pool.lines.any(pressing=False) and not self._pool.lines.pressing_first()):
            return False
        paused = {one.tenant for load in self._pool.paused for one in load.paused.values() if not one.pressing}
        return not any(self._pool.line_is_ahead(line.tenant, tenant, TURN_SECONDS) for tenant in paused)

    def _bulk_is_due(self) -> bool:
        return self._bulk_waits and self._pool.share.is_low(self._now)

    @property
    def _bulk_waits(self) -> bool:
        return self._pool.lines.any(pressing=False) or (not self._bulk_stays and self._pool.bulk_waits)

    def _press(self) -> bool:
        """Start a pressing request. Those with a reserved engine come first: their turn came when they had no room."""
        if not self._looked_at_holders:
            self._looked_at_holders = True
            self._place_holders()
            return True
        return self._serve_next(pressing=True)

    def _fill(self) -> bool:
        """Resume or start throughput work."""
        for load, aboard in self._paused_bulk:  # one iterator for the whole pass: room only shrinks in it
            if not load.has_room_again(aboard):
                continue
            if load.welcomes_again(aboard, self._now):
                self._resume(load, aboard)
                return True
            self._crowded = True
        self._bulk_stays = self._crowded
        return self._serve_next(pressing=False)

    def _serve_next(self, *, pressing: bool) -> bool:
        """Place the next request. If it has no room, pass it over where others may have some; pass over its whole line
        if its tenant is at its limit or fills the engines by itself. False: nothing behind it may go on."""
        line = self._pool.lines.next(pressing=pressing)
        request = self._next_of(line, pressing=pressing) if line is not None else None
        if line is None:
            return False
        if request is None:
            self._pool.lines.hold(line, pressing=pressing)  # all of its requests are set aside
            return True
        if (pressing and self._resume_first_of(request.session.tenant)) or self._place(line, request):
            return True
        ticket, tenant = self._pool.tickets.of(request), request.session.tenant
        loads = list(self._pool.candidates(ticket))
        if not any(self._has_room(load, ticket) for load in loads):
            if pressing and self._set_aside(ticket):
                return True
            if not (pressing and loads and all(load.crowd.is_fullest(tenant) for load in loads)):
                return False
        self._pool.lines.hold(line, pressing=pressing)
        return True

    def _place_holders(self) -> None:
        """Place the requests that engines are reserved for; pass over those that still have no room."""
        for request in list(self._pool.kept_for):
            ticket, line = self._pool.tickets.of(request), self._pool.lines.line_of(request.session.tenant)
            head = line.head(pressing=True) if line is not None else None
            if head is not None and self._keeping.goes_before(head, request):
                del self._pool.kept_for[request]
            elif self._place_one(ticket) is not None:
                continue
            elif any(self._has_room(load, ticket) for load in self._pool.candidates(ticket)):
                del self._pool.kept_for[request]  # it is not for want of room that it waits
            else:
                self._pool.lines.set_aside(request)

    def _set_aside(self, ticket: Ticket) -> bool:
        """Reserve an engine for a request that has room nowhere. Returns whether those behind it may have room on other
        engines, which takes another engine with a free row."""
        able = [load for load in self._open_to(ticket) if not load.reserved]
        with_rows = [load for load in able if load.has_row(beside_bulk=self._pool.bulk_waits)]
        load = self._keeping.keep(ticket, able) if with_rows else None
        if load is None:
            return False
        self._pool.lines.set_aside(ticket.request)
        return with_rows != [load]

    def _next_of(self, line: Line, *, pressing: bool) -> Request | None:
        """A line's next request: a member of a task group if it is due, else the one with the strictest objective."""
        member = line.first_of(Objective.GROUP) if pressing else None
        return member if member is not None and self._keeping.is_due(member) else line.head(pressing=pressing)

    # --- Where -----------------------------------------------------------------------------------------------

    def _place(self, line: Line, request: Request) -> bool:
        turn_ends = self._pool.lines.turn_ends(line)
        if request.group is not None and self._pool.switches.groups:
            return self._place_group(line, request.group, turn_ends)
        ticket = self._pool.tickets.of(request)
        load = self._place_one(ticket)
        if load is None:
            return False
        for sharer in self._pool.tickets.sharers.of(ticket):
            if sharer.request.group is not None and self._pool.switches.groups:
                break
            its = self._pool.lines.line_of(sharer.request.session.tenant)
            if its is not None and its is not line:  # another tenant's request that shares a published prefix
                line, turn_ends = its, self._pool.lines.turn_ends(its)
            if line.virtual >= turn_ends or self._place_one(sharer, only=load) is None:
                break
        return True

    def _place_one(self, ticket: Ticket, *, only: EngineLoad | None = None) -> EngineLoad | None:
        """Run a request where it does the least harm, making room if need be. With `only`, the engine of requests that
        share its prefix: run it if that engine is the best one and has room."""
        seen = {load: self._look(load, ticket) for load in self._pool.candidates(ticket)}
        fitting = [load for load, told in seen.items() if told.seconds is not None]
        if not fitting:
            load = self._make_room(ticket) if only is None else None
            if load is None:
                return None
            fitting, seen[load] = [load], load.consider(ticket, self._now)
        weight = 1.0 if ticket.request.objective.pressing else BULK_WEIGHT

        def loss(load: EngineLoad) -> tuple[bool, float]:
            told = seen[load]
            return load.breaks_bound(ticket), weight * (told.seconds or 0.0) + told.harm + _WORK_WEIGHT * told.work

        load = min(fitting, key=loss) if len(fitting) > 1 else fitting[0]
        if only is not None and load is not only:
            return None
        chosen = seen.pop(load)
        by = PlacedBy.RESIDENT if chosen.cached_tokens else PlacedBy.HARM
        self._run(load, ticket, by if only is None else PlacedBy.SHARERS, chosen, seen.values())
        return load

    def _look(self, load: EngineLoad, ticket: Ticket, *, own: int = 0) -> Considered:
        seen = load.consider(ticket, self._now, own=own)
        lacks = self._lacks(load, ticket)
        return seen if lacks is None else replace(seen, seconds=None, lacks=lacks)

    def _place_group(self, line: Line, group: TaskGroup, turn_ends: float) -> bool:
        """Place as many members as have room and fit into the turn, each where it delays the group's end least.

        List scheduling (Graham, 1969): the engine that holds the members' shared prefix attracts them until another one
        would finish sooner although it has to prefill that prefix first.
        """
        ends: dict[EngineLoad, float] = {}
        members: Counter[EngineLoad] = Counter()
        while (first := self._first_of(group)) is not None:
            if members and line.virtual >= turn_ends:
                break
            ticket = self._pool.tickets.of(first)
            seen = {load: self._look(load, ticket, own=members[load]) for load in self._pool.candidates(ticket)}
            fitting = {load: max(ends.get(load, 0.0), told.seconds) for load, told in seen.items()
                       if told.seconds is not None}  # fmt: skip
            if not fitting:
                break
            so_far = max(ends.values(), default=0.0)
            loss = {
                one: max(end, so_far) + seen[one].harm + _WORK_WEIGHT * seen[one].work for one, end in fitting.items()
            }
            load = min(loss, key=lambda one: (loss[one], fitting[one]))
            ends[load] = fitting[load]
            members[load] += 1
            self._run(load, ticket, PlacedBy.GROUP, seen.pop(load), seen.values())
        return bool(members) or self._place_first_of(group)

    def _place_first_of(self, group: TaskGroup) -> bool:
        first = self._first_of(group)
        return first is not None and self._place_one(self._pool.tickets.of(first)) is not None

    def _first_of(self, group: TaskGroup) -> Request | None:
        """The member that has waited longest, among those that are not set aside."""
        return next((one for one in self._pool.groups.get(group, ()) if one not in self._pool.lines.aside), None)

    def _lacks(self, load: EngineLoad, ticket: Ticket) -> Lack | None:
        """Why a request cannot start on an engine, or None if it can."""
        if self._has_room(load, ticket):
            return None if load.welcomes(ticket, self._now) else Lack.TENANT
        return Lack.KEPT if load.reserved or load.has_room(ticket) else Lack.ROOM

    def _has_room(self, load: EngineLoad, ticket: Ticket) -> bool:
        beside_bulk = ticket.request.objective.pressing and self._pool.bulk_waits
        return self._is_open(load, ticket) and load.has_room(ticket, beside_bulk=beside_bulk)

    def _is_open(self, load: EngineLoad, ticket: Ticket) -> bool:
        """Whether the engine is not reserved for others."""
        if load in self._kept_for_bulk or not self._pool.kept_for:
            return load not in self._kept_for_bulk
        return self._keeping.is_open(load, ticket.request, bulk_is_due=self._bulk_is_due())

    def _open_to(self, ticket: Ticket) -> list[EngineLoad]:
        """Candidate engines for a request that are not reserved for others."""
        return [load for load in self._pool.candidates(ticket) if self._is_open(load, ticket)]

    def _run(
        self,
        load: EngineLoad,
        ticket: Ticket,
        by: PlacedBy,
        chosen: Considered,
        others: Iterable[Considered] = (),
    ) -> None:
        request = ticket.request
        self._pool.unqueue(request)
        aboard = load.add(ticket, self._now, together=self._pool.switches.groups)
        if request.ahead is not None:
            where = self._pool.loads[request.ahead]
            if where.ahead.pop(request.id, None) is not None:  # unless this pass has evicted it already
                by = PlacedBy.AHEAD if where is load else by
                self._pool.touched(where)
        self._pool.lines.serve(request, aboard.service)
        self._pool.joined[load] = None
        self._pool.touched(load)
        told = sorted(others, key=lambda seen: (seen.seconds is None, seen.seconds or 0.0))[:_MOST_TOLD]
        placement = Placement(by=by, chosen=chosen, prompt_tokens=ticket.prompt_tokens, others=tuple(told))
        self._outcomes.append(Placed(request, placement, aboard.precedence))

    # --- Making room -----------------------------------------------------------------------------------------

    def _make_room(self, ticket: Ticket) -> EngineLoad | None:
        """Pause other requests on the engine where the fewest suffice. None if that is not possible anywhere."""
        if not (ticket.request.objective.pressing and self._pool.switches.preemption):
            return None
        able = (one for one in self._open_to(ticket) if one.has_credit_for(ticket))
        welcoming = (one for one in able if one.welcomes(ticket, self._now))
        plans = [(load, victims(self._pool, load, ticket, self._now)) for load in welcoming]
        possible = [plan for plan in plans if plan[1]]
        if not possible:
            return None
        load, paused = min(possible, key=lambda plan: len(plan[1]))
        self._pause(load, paused)
        return load

    def _resume(self, load: EngineLoad, aboard: Aboard) -> None:
        load.resume(aboard)
        self._pool.joined[load] = None
        self._pool.touched(load)
        self._outcomes.append(Resumed(aboard.request))

    def _resume_first_of(self, tenant: TenantId) -> bool:
        """Resume the tenant's first paused pressing request on an engine with room. Returns whether there was one."""
        for load in self._pool.paused:
            first = load.crowd.first_paused(tenant) if load not in self._kept_for_bulk else None
            if first is not None and load.has_room_again(first) and load.welcomes_again(first, self._now):
                self._resume(load, first)
                return True
        return False

    def _resume_pressing(self) -> None:
        """Resume paused pressing requests, oldest first, where there is room or room can be made (which is the case for
        those that were throughput work when they were paused)."""
        for load in list(self._pool.paused):
            crowded: set[TenantId] = set()
            lacked: dict[TenantId, float] = {}
            pressing = [one for one in load.paused.values() if one.pressing]
            for aboard in sorted(pressing, key=lambda one: one.request.arrival):
                if aboard.tenant in crowded:
                    continue
                if not load.welcomes_again(aboard, self._now):
                    crowded.add(aboard.tenant)
                    continue
                _, lacks = load.lacking(aboard.ticket)
                if not load.has_room_again(aboard) and lacks < lacked.get(aboard.tenant, inf):
                    self._pause(load, victims(self._pool, load, aboard.ticket, self._now))
                    lacked[aboard.tenant] = lacks  # no need to try again for one that lacks as much
                if load.has_room_again(aboard):
                    self._resume(load, aboard)

    def _relieve(self) -> None:
        """On engines that requests joined, pause requests of tenants that exceed their part of a step."""
        joined, self._pool.joined = self._pool.joined, {}
        if not self._pool.switches.preemption:
            return
        for load in joined:
            while (victim := load.crowding(self._now)) is not None:
                self._pause(load, [victim])

    def _pause(self, load: EngineLoad, victims: Iterable[Aboard]) -> None:
        for victim in victims:
            load.pause(victim)
            self._outcomes.append(Paused(victim.request))
        self._pool.touched(load)

    def _place_suspects(self) -> None:
        """Run suspects, each alone on an engine: on an empty one, or else on the least loaded one, which is reserved
        and drained when the suspect's turn comes."""
        pool, loads = self._pool, self._pool.loads.values()
        if not pool.lines.suspects and not any(load.reserved for load in loads):
            return
        for load in loads:
            # Free an engine that was reserved for a suspect which has ended or is not next any more.
            load.reserved = any(one.request.suspect for one in load.aboard.values())
        while (request := pool.lines.next_suspect()) is not None:
            empty = next((load for load in loads if not load.aboard), None)
            if empty is None:
                draining = min(
                    (load for load in loads if not load.reserved), key=lambda load: len(load.aboard), default=None
                )
                if draining is not None:
                    draining.reserved = True
                return
            ticket = pool.tickets.of(request)
            for other in [one for one in empty.ahead.values() if one is not request]:
                del empty.ahead[other.id]
                self._outcomes.append(ReadNoMore(other))
            self._run(empty, ticket, PlacedBy.ALONE, empty.consider(ticket, self._now))
            empty.reserved = True


def _paused_bulk(pool: Pool) -> Iterator[tuple[EngineLoad, Aboard]]:
    """Paused throughput work, engine by engine, the oldest first."""
    for load in [one for one in pool.paused if one.paused_bulk]:
        bulk = [one for one in load.paused.values() if not one.pressing]
        yield from ((load, one) for one in sorted(bulk, key=lambda one: one.request.arrival) if one.paused)
