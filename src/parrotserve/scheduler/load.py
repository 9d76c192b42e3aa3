"""The scheduler's picture of an engine under load: who is aboard, what that takes, how long more would take."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil

from parrotserve.bounds import THROUGHPUT_SHARE, Bounds
from parrotserve.criteria import NO_PRECEDENCE, Objective
from parrotserve.graph.events import EngineJoined
from parrotserve.graph.objects import Request
from parrotserve.graph.placements import Considered
from parrotserve.graph.states import ProducerState
from parrotserve.ids import EngineId, RequestId, TenantId
from parrotserve.scheduler.aboard import Aboard
from parrotserve.scheduler.base import Ahead
from parrotserve.scheduler.crowd import Crowd
from parrotserve.scheduler.places import Places, staged
from parrotserve.scheduler.residents import Index, Residents
from parrotserve.scheduler.tickets import Ticket
from parrotserve.step_cost import StepCost, Work

_MOST_AHEAD = 16
"""Requests that run ahead on one engine."""
_READ_AHEAD = 0.9
"""Of its prompt, what a request that ran ahead is thought to have been read when the last input is there."""
BULK_WEIGHT = 0.1
"""What a second that throughput work ends later counts, against one that somebody waits."""


@dataclass(frozen=True, slots=True)
class _Demand:
    """What a request would take of an engine, as it is now."""

    found: float
    """Tokens of its prompt that are thought to be in the cache."""
    prompt: float
    """Tokens of its prompt."""
    output: float
    """Tokens that it is expected to write; no more than the context has room for, whatever it may write."""
    prefill: float
    """Seconds of work to read what is not found."""
    row: float
    """Seconds of work for each token that it writes."""

    @property
    def tokens(self) -> float:
        """Of KV, in the end."""
        return self.prompt + self.output

    @property
    def work(self) -> float:
        """Seconds of the engine's time, in all."""
        return self.prefill + self.output * self.row

    @property
    def stretch(self) -> float:
        """Seconds of work that it adds to every step in which it writes, its prompt included."""
        return self.prefill / max(self.output, 1.0) + self.row


class EngineLoad:
    """One engine. Quantities count requests that are not paused."""

    def __init__(
        self,
        description: EngineJoined,
        index: Index,
        cost: StepCost,
        crowd: Crowd,
        places: Places,
        bounds: Bounds,
    ) -> None:
        self.description = description
        self.cost = cost
        self.crowd = crowd
        self.residents = Residents(description.engine, description.cache_tokens, index)
        self.aboard: dict[RequestId, Aboard] = {}
        self.paused: dict[RequestId, Aboard] = {}
        self.paused_bulk = 0
        """How many of the paused ones nobody waits for."""
        self.ahead: dict[RequestId, Request] = {}
        """Requests that run ahead. Their KV is reclaimable, and they run in what others leave of a step, so they take
        nothing but a credit."""
        self.retained: dict[bytes, None] = {}
        """Beginnings that it was asked to evict last."""
        self.reserved = False
        """It is being emptied for a suspect, or runs one."""
        self._bounds = bounds
        self._active = dict.fromkeys(Objective, 0)
        self._tails = 0.0
        self._row_tokens = 0.0
        self._prefilled_at = 0.0
        """When the prompts of those aboard are expected to be read."""
        self._places = places

    @property
    def id(self) -> EngineId:
        return self.description.engine

    @property
    def active(self) -> int:
        """How many run."""
        return len(self.aboard) - len(self.paused)

    @property
    def bulk(self) -> int:
        """How many of them nobody waits for."""
        return self._active[Objective.THROUGHPUT]

    @property
    def grouped(self) -> int:
        """How many of them are members of task groups."""
        return self._active[Objective.GROUP]

    @property
    def width(self) -> int:
        """How many may run: as many as a step takes."""
        return self.description.batch or self.description.credits

    @property
    def kv_tokens(self) -> float:
        """Tokens of KV that those aboard need, what they share once."""
        return self.residents.held_tokens + self._tails

    @property
    def fullness(self) -> float:
        """What part of it is taken, of its rows or of its cache, whichever is more; above 1 it takes nobody at all."""
        taken = max(self.active / self.width, self.kv_tokens / max(self.description.cache_tokens, 1))
        return taken if self.has_credit else taken + 1.0

    # --- Room ------------------------------------------------------------------------------------------------

    def need(self, ticket: Ticket) -> float:
        """Tokens of KV that a request would take beside what is held there already."""
        held = ticket.ratio.tokens(self.residents.held(ticket.prefix.boundaries))
        whole = ticket.prompt_tokens + self._output_tokens(ticket)
        return max(min(whole, self.description.context_length) - held, 0.0)

    def has_room(self, ticket: Ticket, *, kept_for_bulk: bool = False) -> bool:
        """Whether a request can be admitted now; `kept_for_bulk`: beside the minimum share of throughput work."""
        if not self.has_credit_for(ticket) or not self.has_row(kept_for_bulk=kept_for_bulk):
            return False
        return not self.active or self.kv_tokens + self.need(ticket) <= self.description.cache_tokens

    def has_row(self, *, kept_for_bulk: bool = False) -> bool:
        """Whether a step has a row for one more, however few tokens it needs; see `has_room`."""
        if self.reserved or self.active >= self.width:
            return False
        return not (self.active and kept_for_bulk) or self.active - self.bulk < self.width - _kept(self.width)

    def has_room_again(self, aboard: Aboard) -> bool:
        """Whether a paused request can go on: to its end, too, where that empties the engine for a suspect."""
        if self.active >= self.width or (self.reserved and any(one.request.suspect for one in self.aboard.values())):
            return False
        return not self.active or self.kv_tokens + self.need(aboard.ticket) <= self.description.cache_tokens

    def welcomes(self, ticket: Ticket, now: float) -> bool:
        """Whether a request would add no more to a step than its tenant may, beside others."""
        tenant, pressing = ticket.request.session.tenant, ticket.request.objective.pressing
        if self.crowd.is_alone(tenant):
            return True
        if pressing and self.crowd.first_paused(tenant) is not None:
            return False
        return self.crowd.admits(tenant, self.stretch(ticket), step=self.cost.rates.step, now=now)

    def welcomes_again(self, aboard: Aboard, now: float) -> bool:
        """The same for one that is paused."""
        return self.crowd.admits(aboard.tenant, aboard.stretch, step=self.cost.rates.step, now=now)

    def crowding(self, now: float) -> Aboard | None:
        """Who is to make room because tenants here add more to a step than they may."""
        return self.crowd.crowding(step=self.cost.rates.step, now=now) if self.pausable else None

    def stretch(self, ticket: Ticket) -> float:
        """Seconds of work that a request would add to every step in which it writes, its prompt included."""
        return self._demand(ticket).stretch

    @property
    def pausable(self) -> bool:
        """Whether requests here can be paused for another one."""
        return self.description.pauses and not self.reserved

    @property
    def has_credit(self) -> bool:
        """Whether it takes one more request at all."""
        return len(self.aboard) + len(self.ahead) < self.description.credits

    def has_credit_for(self, ticket: Ticket) -> bool:
        """Whether it takes this one: one that runs ahead here has its credit."""
        return self.has_credit or ticket.request.id in self.ahead

    def run_ahead(self, request: Request) -> Ahead | None:
        """A place for one that runs ahead, another one's if need be: it is here from now on. None: there is none."""
        if not self.description.late or self.reserved:
            return None
        instead_of: Request | None = None
        if not self.has_credit or len(self.ahead) >= min(_MOST_AHEAD, self.description.credits // 4):
            instead_of = self._leaving_place_to(request)
            if instead_of is None:
                return None
            del self.ahead[instead_of.id]
        self.ahead[request.id] = request
        return Ahead(self.id, instead_of)

    def _leaving_place_to(self, request: Request) -> Request | None:
        """Who has nothing to read until a native call ends, or another request begins, leaves its place to one of which
        more is being written, or to one of a tenant that has fewer."""
        tenants = Counter(one.session.tenant for one in self.ahead.values())
        own = tenants[request.session.tenant]
        idle = (one for one in self.ahead.values() if one.idle)
        leaves = (one for one in idle if not request.idle or tenants[one.session.tenant] > own + 1)
        return next(leaves, None)

    def lacking(self, ticket: Ticket) -> tuple[int, float]:
        """How many rows, and tokens of KV, a request lacks to be admitted."""
        tokens = self.kv_tokens + self.need(ticket) - self.description.cache_tokens
        return self.active + 1 - self.width, tokens if self.active else 0.0

    def victims(self, *, protected: bool) -> Iterable[Aboard]:
        """Throughput work that may be paused, the latest first; what is `protected` keeps its minimum share."""
        spared = ceil(THROUGHPUT_SHARE * self.active) if protected else 0
        bulk = [one for one in self.aboard.values() if not (one.paused or one.pressing)]
        return reversed(bulk[spared:])

    # --- What is placed and ends -----------------------------------------------------------------------------

    def add(self, ticket: Ticket, now: float, *, together: bool = True) -> Aboard:
        """A request is placed here. `together`: what was submitted together takes precedence together."""
        demand = self._demand(ticket)
        self._prefilled_at = max(self._prefilled_at, now) + demand.prefill
        last = ticket.prefix.boundaries[-1].chars if ticket.prefix.boundaries else 0.0
        request, place = ticket.request, NO_PRECEDENCE
        if together:
            place = staged(self._places.take(request.session.tenant, request.submission, demand.work), request)
        aboard = Aboard(
            ticket,
            request.objective,
            tokens=demand.tokens,
            tail=max(demand.tokens - ticket.ratio.tokens(last), 0.0),
            service=demand.work,
            prefill=demand.prefill,
            stretch=demand.stretch,
            precedence=place,
        )
        self.aboard[request.id] = aboard
        self._start(aboard)
        return aboard

    def took(self, seconds: float) -> dict[TenantId, float]:
        """Steps took so long: what tenants got of that, each request that runs its part."""
        running = [one for one in self.aboard.values() if not one.paused]
        part = seconds / (sum(one.stretch for one in running) or 1.0)
        received: defaultdict[TenantId, float] = defaultdict(float)
        for one in running:
            one.received += part * one.stretch
            received[one.tenant] += part * one.stretch
        return received

    def remove(self, request: RequestId, now: float) -> Aboard | None:
        """A request no longer runs here."""
        aboard = self.aboard.get(request)
        if aboard is None:
            return None
        if not aboard.paused:
            self._stop(aboard)
        self.crowd.end(aboard, now)
        del self.aboard[request]
        if aboard.precedence.place:
            self._places.leave(aboard.tenant, aboard.request.submission)
        if self.paused.pop(request, None) is not None:
            self.paused_bulk -= not aboard.pressing
        if not self.active:
            self._prefilled_at = 0.0
        elif aboard.request.state is not ProducerState.DONE:
            unread = max(aboard.prefill - aboard.received, 0.0)
            self._prefilled_at = max(self._prefilled_at - unread, now)
        return aboard

    def pause(self, aboard: Aboard) -> None:
        """A request makes room."""
        self._stop(aboard)
        self.crowd.pause(aboard)
        aboard.paused = True
        self.paused[aboard.request.id] = aboard
        self.paused_bulk += not aboard.pressing

    def resume(self, aboard: Aboard) -> None:
        """A paused request goes on."""
        del self.paused[aboard.request.id]
        self.paused_bulk -= not aboard.pressing
        aboard.paused = False
        self._start(aboard)

    def reclassify(self, aboard: Aboard) -> None:
        """A request that runs here has another objective."""
        self.crowd.reclassify(aboard, aboard.request.objective)
        if not aboard.paused:
            self._active[aboard.objective] -= 1
            self._active[aboard.request.objective] += 1
        self.paused_bulk -= aboard.paused and not aboard.pressing
        aboard.objective = aboard.request.objective
        self.paused_bulk += aboard.paused and not aboard.pressing
        if aboard.precedence != NO_PRECEDENCE:
            aboard.precedence = staged(aboard.precedence, aboard.request)

    def rekey(self, aboard: Aboard, change: Callable[[], object]) -> None:
        """`change` what a request begins with, because values have come that it wrote or reads."""
        if not aboard.paused:
            self.residents.release(aboard.boundaries, kept=0)
        change()
        if not aboard.paused:
            self.residents.hold(aboard.boundaries, 1 / aboard.ticket.ratio.chars_per_token)

    def _start(self, aboard: Aboard) -> None:
        self.crowd.start(aboard)
        self._active[aboard.objective] += 1
        self._tails += aboard.tail
        self._row_tokens += aboard.tokens
        self.residents.hold(aboard.boundaries, 1 / aboard.ticket.ratio.chars_per_token)
        self.residents.make_room(self.kv_tokens)

    def _stop(self, aboard: Aboard) -> None:
        self._active[aboard.objective] -= 1
        self._tails -= aboard.tail
        self._row_tokens -= aboard.tokens
        self.residents.release(aboard.boundaries, kept=aboard.ticket.prefix.known)
        self.residents.make_room(self.kv_tokens)

    # --- What it would take ----------------------------------------------------------------------------------

    def consider(self, ticket: Ticket, now: float, *, own: int = 0) -> Considered:
        """What is predicted if a request ran here too; `own` members of its group are here, and are not harmed."""
        demand = self._demand(ticket)
        step = self._step(more_rows=1, more_tokens=demand.prompt, more_kv=max(demand.prompt - demand.found, 0.0))
        waits = max(self._prefilled_at - now, 0.0)
        longer = step - self._step(more_rows=0, more_tokens=0.0, more_kv=0.0)
        pressing = self._active[Objective.LATENCY] + self._active[Objective.GROUP] - own
        return Considered(
            engine=self.id,
            seconds=waits + demand.prefill + demand.output * step,
            cached_tokens=min(demand.found, demand.prompt),
            harm=(demand.prefill + demand.output * longer) * (pressing + BULK_WEIGHT * self.bulk),
            work=demand.work,
        )

    def _demand(self, ticket: Ticket) -> _Demand:
        rates = self.cost.rates
        prompt = ticket.prompt_tokens
        found = ticket.ratio.tokens(self.residents.found(ticket.prefix.boundaries))
        if ticket.request.id in self.ahead:
            found = max(found, _READ_AHEAD * prompt)
        rest = max(prompt - found, 0.0)
        return _Demand(
            found=found,
            prompt=prompt,
            output=self._output_tokens(ticket),
            prefill=rates.prefilling(rest, found),
            row=rates.row(prompt) + rates.read * rest,
        )

    def _output_tokens(self, ticket: Ticket) -> float:
        """What it is expected to write, as far as it can here: limits far beyond the context are common."""
        return min(ticket.output_tokens, max(self.description.context_length - ticket.prompt_tokens, 1.0))

    def breaks_bound(self, ticket: Ticket) -> bool:
        """Whether latency-sensitive requests would write more slowly here than they may."""
        if not self._active[Objective.LATENCY] and ticket.request.objective is not Objective.LATENCY:
            return False
        prompt = ticket.prompt_tokens
        alone = self.cost.rates.seconds(Work(1, 0, 1, prompt, prompt))
        return self._step(more_rows=1, more_tokens=prompt, more_kv=prompt) > self._bounds.step(alone)

    def _step(self, *, more_rows: int, more_tokens: float, more_kv: float) -> float:
        rows = self.active + more_rows
        return self.cost.rates.seconds(Work(1, 0, rows, self.kv_tokens + more_kv, self._row_tokens + more_tokens))

    def check_integrity(self) -> None:
        """Recount what is kept incrementally. Raises `AssertionError`."""
        running = [one for one in self.aboard.values() if not one.paused]
        assert all(one.objective is one.request.objective for one in self.aboard.values()), f"{self.id}: objectives"
        for objective, count in self._active.items():
            assert count == sum(one.objective is objective for one in running), f"{self.id}: {objective}"
        assert self.paused == {name: one for name, one in self.aboard.items() if one.paused}, f"{self.id}: paused"
        assert self.paused_bulk == sum(not one.pressing for one in self.paused.values()), f"{self.id}: paused bulk"
        assert abs(self._tails - sum(one.tail for one in running)) < 1e-3, f"{self.id}: tails"
        assert abs(self._row_tokens - sum(one.tokens for one in running)) < 1e-3, f"{self.id}: row tokens"
        assert len(self.aboard) + len(self.ahead) <= self.description.credits, f"engine {self.id} has too many"
        assert self.active <= self.width, f"engine {self.id} runs too many"
        placed = [one for one in self.aboard.values() if one.precedence.place]
        holders = Counter((one.tenant, one.precedence.submission) for one in placed)
        assert self._places.holders() == holders, f"{self.id}: places"
        self.crowd.check_integrity(running, self.paused.values())
        self.residents.check_integrity([one.boundaries for one in running])


def _kept(width: int) -> int:
    """Rows of a step that are kept for throughput work that waits. In narrow steps it takes turns instead."""
    return ceil(THROUGHPUT_SHARE * width) if width * THROUGHPUT_SHARE >= 1 else 0
