"""The engines of one model, its queued requests, and what the scheduler knows about both."""

from collections.abc import Iterable
from dataclasses import dataclass

from parrotserve.bounds import Bounds
from parrotserve.graph.events import EngineJoined
from parrotserve.graph.lazy_heap import LazyHeap
from parrotserve.graph.objects import Request, TaskGroup
from parrotserve.graph.states import ProducerState
from parrotserve.ids import EngineId, RequestId, TenantId
from parrotserve.sampling import Usage
from parrotserve.scheduler.aboard import Aboard
from parrotserve.scheduler.base import Outcome, Released, Retained
from parrotserve.scheduler.crowd import Crowd
from parrotserve.scheduler.estimates import Estimates
from parrotserve.scheduler.lines import TURN_SECONDS, Lines
from parrotserve.scheduler.load import EngineLoad
from parrotserve.scheduler.places import Places
from parrotserve.scheduler.residents import Index
from parrotserve.scheduler.share import Share
from parrotserve.scheduler.tickets import Ticket, Tickets
from parrotserve.step_cost import StepCost
from parrotserve.switches import Switches

_MOST_RETAINED = 8
"""Most prefixes that one engine is asked to evict last."""
_FEW = 16
"""Up to so many engines, all are candidates for a request; of more, those that hold its prefix and the least full."""

Run = tuple[RequestId, int]
"""A request, and its epoch on an engine."""


@dataclass(frozen=True, slots=True)
class _Charge:
    """What a run was charged. Keeps no reference to the session, which may have ended."""

    engine: EngineId
    tenant: TenantId
    seconds: float
    received: float
    """Seconds that it is estimated to have received."""

    @classmethod
    def of(cls, load: EngineLoad, aboard: Aboard) -> "_Charge":
        """The charge of a running request."""
        return cls(load.id, aboard.tenant, aboard.service, aboard.received)

    def took(self, usage: Usage, *, ran: bool) -> float:
        """Seconds that the run took. If it `ran` and the engine does not report how long, it is what was charged."""
        return self.seconds if ran and not usage.engine_seconds else usage.engine_seconds


class Pool:
    """The scheduling state of one model."""

    def __init__(self, switches: Switches, bounds: Bounds) -> None:
        self.switches = switches
        self._bounds = bounds
        self.estimates = Estimates()
        self.tickets = Tickets(self.estimates, prefix=switches.prefix)
        self.lines = Lines(fair=switches.fairness)
        self.groups: dict[TaskGroup, dict[Request, None]] = {}
        """Queued members of task groups."""
        self.loads: dict[EngineId, EngineLoad] = {}
        self.paused: dict[EngineLoad, None] = {}
        """Engines with paused requests."""
        self.joined: dict[EngineLoad, None] = {}
        """Engines that requests joined since the last pass, for which others may have to make room."""
        self.draining: EngineLoad | None = None
        """The engine whose next free room the last pass reserved for throughput work that is due and has no room."""
        self.kept_for: dict[Request, EngineLoad] = {}
        """Engines reserved for pressing requests that have room nowhere; see `keeping`."""
        self._ended: list[tuple[EngineLoad, Aboard]] = []
        """Requests that ended since the last pass, and where."""
        self._leaving: dict[Run, _Charge] = {}
        """Charges of cancelled runs that their engines have not ended yet."""
        self.share = Share()
        """The minimum share of throughput work."""
        self.group_share = Share()
        """The minimum share of task groups against latency-sensitive requests."""
        self._index: Index = {}
        self._retaining: dict[bytes, dict[EngineId, None]] = {}
        """Engines that were asked to keep a prefix, by its hash."""
        self._by_load: LazyHeap[EngineLoad] = LazyHeap()
        """Engines by their number of running requests."""
        self._by_fullness: LazyHeap[EngineLoad] = LazyHeap()
        self._grouped: dict[Request, TaskGroup] = {}
        self._cost = StepCost()
        """Step costs of the engine that was timed last, with which a new one starts."""

    # --- Engines ---------------------------------------------------------------------------------------------

    def join(self, description: EngineJoined) -> None:
        """Add an engine."""
        lines, fair = self.lines, self.switches.fairness
        crowd = Crowd(lines.weights, lines.waiting, most=self._bounds.crowding, fair=fair)
        load = EngineLoad(description, self._index, StepCost(self._cost), crowd, Places(fair=fair), self._bounds)
        self.loads[load.id] = load
        self.estimates.longest = max(one.description.context_length for one in self.loads.values())
        self.touched(load)

    def lose(self, engine: EngineId) -> list[Request]:
        """Remove an engine and return the requests that ran or read ahead there. Their work is lost and not charged,
        except to suspects, which may have killed the engine. Cancelled runs pay what was expected of them, as their
        true usage will not become known."""
        load = self.loads.pop(engine)
        self._by_load.discard(load)
        self._by_fullness.discard(load)
        self.paused.pop(load, None)
        self.joined.pop(load, None)
        self.kept_for = {request: its for request, its in self.kept_for.items() if its is not load}
        if self.draining is load:
            self.draining = None
        for aboard in load.aboard.values():
            # At least a turn, which is what others lose: else a tenant's suspects would follow one another at once.
            paid = max(aboard.service, TURN_SECONDS) if aboard.request.suspect else 0.0
            self._pay(_Charge.of(load, aboard), paid)
        for run in [run for run, charge in self._leaving.items() if charge.engine == engine]:
            charge = self._leaving.pop(run)
            self._pay(charge, charge.seconds)
        load.residents.clear()
        for key in load.retained:
            del self._retaining[key][engine]
        return [*load.ahead.values(), *(aboard.request for aboard in load.aboard.values())]

    def touched(self, load: EngineLoad) -> None:
        """Update the order of engines after the load of one has changed."""
        self._by_load.put(load, load.active)
        self._by_fullness.put(load, load.fullness)
        if load.paused:
            self.paused[load] = None
        else:
            self.paused.pop(load, None)

    def learned(self, load: EngineLoad) -> None:
        """An engine's cost was fitted."""
        self._cost = load.cost

    def took(self, load: EngineLoad, seconds: float) -> None:
        """An engine's steps took so long."""
        for tenant, received in load.took(seconds).items():
            self.lines.receive(tenant, received)

    def candidates(self, ticket: Ticket) -> Iterable[EngineLoad]:
        """The engines that may be best for a request."""
        if len(self.loads) <= _FEW:
            return self.loads.values()
        found: dict[EngineId, None] = {}
        for boundary in reversed(ticket.prefix.boundaries):
            for engine in self._index.get(boundary.hash, ()):
                if len(found) == _FEW // 2:
                    break
                found[engine] = None
        least = self._by_fullness.smallest(_FEW - len(found))
        return dict.fromkeys([*(self.loads[engine] for engine in found), *least])

    def least_loaded(self) -> EngineLoad | None:
        """The engine with the fewest running requests, or None if there is no engine."""
        first = self._by_load.first()
        return first[1] if first is not None else None

    # --- Requests --------------------------------------------------------------------------------------------

    def queue(self, request: Request) -> None:
        """Queue a request."""
        ticket = self.tickets.measured(request)
        if request.suspect:
            self.tickets.sharers.discard(ticket)
            self.lines.put_suspect(request)
            return
        self.lines.put(request)
        self.tickets.sharers.put(ticket)
        if request.group is not None and self.switches.groups:
            self._grouped[request] = request.group
            self.groups.setdefault(request.group, {})[request] = None

    def unqueue(self, request: Request) -> None:
        """Remove a request from the queue."""
        self.kept_for.pop(request, None)
        self.lines.discard(request)
        self.tickets.sharers.discard(self.tickets.of(request))
        group = self._grouped.pop(request, None)
        if group is not None:
            del self.groups[group][request]
            if not self.groups[group]:
                del self.groups[group]

    def is_queued(self, request: Request) -> bool:
        """Whether a request is queued."""
        return request in self.lines or request in self.lines.suspects

    def where_it_runs(self, request: Request) -> tuple[EngineLoad, Aboard] | None:
        """The engine that a request is running or paused on, and its entry there."""
        load = self.loads.get(request.engine) if request.engine is not None else None
        found = load.aboard.get(request.id) if load is not None else None
        return (load, found) if load is not None and found is not None and found.request is request else None

    def reclassify(self, load: EngineLoad, aboard: Aboard) -> None:
        """Account for a running request's new objective."""
        load.reclassify(aboard)
        self.joined[load] = None

    def free(self, load: EngineLoad, aboard: Aboard, usage: Usage | None, now: float) -> None:
        """Take a request off an engine. Without `usage`, the engine will still report it: the request was cancelled, or
        failed before the engine heard of it."""
        load.remove(aboard.request.id, now)
        self.touched(load)
        self._ended.append((load, aboard))
        charge = _Charge.of(load, aboard)
        if usage is None:
            self._leaving[aboard.request.id, aboard.request.epoch] = charge
        else:
            self._pay(charge, charge.took(usage, ran=usage != Usage() or aboard.request.state is ProducerState.DONE))

    def settle(self, run: Run, usage: Usage) -> None:
        """Settle the charge of a cancelled run, whose usage has become known. Other runs are ignored."""
        charge = self._leaving.pop(run, None)
        if charge is not None:
            self._pay(charge, charge.took(usage, ran=usage != Usage()))

    def _pay(self, charge: _Charge, took: float) -> None:
        """Settle the charge of a run that took `took` seconds."""
        self.lines.receive(charge.tenant, took - charge.received)
        self.lines.settle(charge.tenant, took - charge.seconds)

    def retain_and_release(self) -> list[Outcome]:
        """After a pass: the prefixes that engines are to keep for queued requests, and those that they may drop."""
        kept = [retained for load, aboard in self._ended if (retained := self._retain(load, aboard)) is not None]
        self._ended.clear()
        return [*self._release(), *kept]

    def _retain(self, load: EngineLoad, ended: Aboard) -> Retained | None:
        """Have an engine keep the longest prefix of an ended request that a queued one shares."""
        here = self.loads.get(load.id) is load and load.description.retains
        if not here or len(load.retained) >= _MOST_RETAINED:
            return None
        for boundary in reversed(ended.boundaries):
            sharer = self.tickets.sharers.first(boundary.hash) if boundary.segments else None
            if sharer is None:
                continue
            if boundary.hash in load.retained:
                return None
            load.retained[boundary.hash] = None
            self.tickets.sharers.watched.add(boundary.hash)
            self._retaining.setdefault(boundary.hash, {})[load.id] = None
            return Retained(sharer.request, load.id, boundary.hash.hex(), boundary.segments)
        return None

    def _release(self) -> list[Outcome]:
        sharers, released = self.tickets.sharers, list[Outcome]()
        for key, last in sharers.gone:
            if sharers.first(key) is not None:
                continue
            sharers.watched.discard(key)
            for engine in self._retaining.pop(key, ()):
                del self.loads[engine].retained[key]
                released.append(Released(last, engine, key.hex()))
        sharers.gone.clear()
        return released

    @property
    def bulk_waits(self) -> bool:
        """Whether throughput work is queued or paused."""
        return self.lines.any(pressing=False) or any(load.paused_bulk for load in self.paused)

    def where_bulk_is_due(self, before: EngineLoad | None) -> list[EngineLoad]:
        """Engines whose next free room is reserved for throughput work that is due: those where some is paused, or else
        the one where the next queued request lacks least. That choice is kept from pass to pass (`before`), since the
        other engines fill up meanwhile."""
        paused = [load for load in self.paused if load.paused_bulk]
        line = self.lines.next(pressing=False)
        request = line.head(pressing=False) if line is not None else None
        if paused or request is None:
            return paused
        ticket = self.tickets.of(request)
        able = [load for load in self.candidates(ticket) if not load.reserved]
        lacks_least = min(able, key=lambda load: load.lacking(ticket)[::-1], default=None)
        self.draining = before if before in able else lacks_least
        return [self.draining] if self.draining is not None else []

    @property
    def at_rest(self) -> bool:
        """Whether a pass has nothing to do: nothing is queued or paused, and no request joined an engine."""
        waiting = self.lines or self.lines.suspects or self.paused or self.joined
        return not waiting and not any(load.reserved for load in self.loads.values())

    def line_is_ahead(self, tenant: TenantId, other: TenantId, by: float) -> bool:
        """Whether a tenant has received more service than another one by more than `by` weighted seconds."""
        mine, its = self.lines.line_of(tenant), self.lines.line_of(other)
        return mine is not None and its is not None and mine.received > its.received + by

    # --- Invariants ------------------------------------------------------------------------------------------

    def check_integrity(self, unfinished: set[Request]) -> None:
        """Recompute everything that is kept incrementally. Raises `AssertionError` on a difference."""
        self.lines.check_integrity()
        charged = len(self._leaving) + sum(len(load.aboard) for load in self.loads.values())
        assert self.lines.unsettled == charged, "charges that may still be corrected"
        assert all(one.engine in self.loads for one in self._leaving.values()), "a charge on an engine that is gone"
        queued = set(self.lines)
        self.tickets.check_integrity(unfinished, queued)
        assert self.kept_for.keys() <= queued, "an engine is kept for a request that does not wait"
        wanted = {one: one.group for one in queued if one.group is not None and self.switches.groups}
        assert self._grouped == wanted, "queued members are not in their groups"
        assert {one: group for group, members in self.groups.items() for one in members} == wanted, "members of groups"
        assert all(self.groups.values()), "a group without queued members is kept"
        assert set(self.paused) == {load for load in self.loads.values() if load.paused}, "engines with paused requests"
        for load in self.loads.values():
            load.check_integrity()
            for key in load.retained:
                assert load.id in self._retaining[key], f"engine {load.id} retains what nobody knows of"
                assert key in self.tickets.sharers.watched, "what an engine retains is not watched"
        for key, engines in self._index.items():
            assert engines, f"{key!r} is resident nowhere"
            assert engines.keys() <= self.loads.keys(), f"{key!r} is resident on an engine that is gone"
