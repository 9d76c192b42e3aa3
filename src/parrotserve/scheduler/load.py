"""The scheduler's model of one engine: the requests placed on it, what they use, and predictions for one more."""

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
"""Most requests that may read ahead on one engine."""
_READ_AHEAD = 0.9
"""Fraction of its prompt that a request reading ahead is assumed to have prefilled when its last input arrives."""
BULK_WEIGHT = 0.1
"""Weight of a second of delay to throughput work, relative to a second for which somebody waits."""


@dataclass(frozen=True, slots=True)
class _Demand:
    """What a request would use of an engine in its present state."""

    found: float
    """Tokens of its prompt that are expected to be in the cache."""
    prompt: float
    """Tokens of its prompt."""
    output: float
    """Tokens that it is expected to write, capped by the room that the context leaves."""
    prefill: float
    """Seconds of work to prefill the rest of the prompt."""
    row: float
    """Seconds of work for each token that it writes."""

    @property
    def tokens(self) -> float:
        """Tokens of KV that it holds when it ends."""
        return self.prompt + self.output

    @property
    def work(self) -> float:
        """Seconds of the engine's time in total."""
        return self.prefill + self.output * self.row

    @property
    def stretch(self) -> float:
        """Seconds of work that it adds to each of its decode steps, with its prefill spread over them."""
        return self.prefill / max(self.output, 1.0) + self.row


class EngineLoad:
    """One engine. Unless said otherwise, quantities leave out paused requests."""

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
        """Number of paused requests that are throughput work."""
        self.ahead: dict[RequestId, Request] = {}
        """Requests that read ahead. Their KV can be reclaimed at any time and they only use what others leave of a
        step, so they count against nothing but the engine's credits."""
        self.retained: dict[bytes, None] = {}
        """Prefix hashes that the engine was last asked to evict last."""
        self.reserved = False
        """Whether it is being emptied for a suspect, or is running one."""
        self._bounds = bounds
        self._active = dict.fromkeys(Objective, 0)
        self._tails = 0.0
        self._row_tokens = 0.0
        self._prefilled_at = 0.0
        """When the prompts of all running requests are expected to be prefilled."""
        self._places = places

    @property
    def id(self) -> EngineId:
        return self.description.engine

    @property
    def active(self) -> int:
        """Number of running requests."""
        return len(self.aboard) - len(self.paused)

    @property
    def bulk(self) -> int:
        """Number of running requests that are throughput work."""
        return self._active[Objective.THROUGHPUT]

    @property
    def grouped(self) -> int:
        """Number of running requests that belong to task groups."""
        return self._active[Objective.GROUP]

    @property
    def width(self) -> int:
        """Most requests that may run: the rows of one step."""
        return self.description.batch or self.description.credits

    @property
    def kv_tokens(self) -> float:
        """Tokens of KV that running requests need, shared prefixes counted once."""
        return self.residents.held_tokens + self._tails

    @property
    def fullness(self) -> float:
        """Fraction of its rows or of its cache in use, whichever is more; above 1 if it cannot take any request."""
        taken = max(self.active / self.width, self.kv_tokens / max(self.description.cache_tokens, 1))
        return taken if self.has_credit else taken + 1.0

    # --- Room ------------------------------------------------------------------------------------------------

    def need(self, ticket: Ticket) -> float:
        """Tokens of KV that a request would need on top of the prefix that the engine already holds."""
        held = ticket.ratio.tokens(self.residents.held(ticket.prefix.boundaries))
        whole = ticket.prompt_tokens + self._output_tokens(ticket)
        return max(min(whole, self.description.context_length) - held, 0.0)

    def has_room(self, ticket: Ticket, *, beside_bulk: bool = False) -> bool:
        """Whether a request can be admitted now; with `beside_bulk`, outside the rows kept for throughput work."""
        if not self.has_credit_for(ticket) or not self.has_row(beside_bulk=beside_bulk):
            return False
        return not self.active or self.kv_tokens + self.need(ticket) <= self.description.cache_tokens

    def has_row(self, *, beside_bulk: bool = False) -> bool:
        """Whether a step has a free row, whatever KV the request needs; see `has_room`."""
        if self.reserved or self.active >= self.width:
            return False
        return not (self.active and beside_bulk) or self.active - self.bulk < self.width - _bulk_rows(self.width)

    def has_room_again(self, aboard: Aboard) -> bool:
        """Whether a paused request can resume, also on an engine that is being emptied for a suspect: it has to end."""
        if self.active >= self.width or (self.reserved and any(one.request.suspect for one in self.aboard.values())):
            return False
        return not self.active or self.kv_tokens + self.need(aboard.ticket) <= self.description.cache_tokens

    def welcomes(self, ticket: Ticket, now: float) -> bool:
        """Whether a request would keep its tenant's part of a step within what it may have beside other tenants."""
        tenant, pressing = ticket.request.session.tenant, ticket.request.objective.pressing
        if self.crowd.is_alone(tenant):
            return True
        if pressing and self.crowd.first_paused(tenant) is not None:
            return False
        return self.crowd.admits(tenant, self.stretch(ticket), step=self.cost.rates.step, now=now)

    def welcomes_again(self, aboard: Aboard, now: float) -> bool:
        """`welcomes`, for a paused request."""
        return self.crowd.admits(aboard.tenant, aboard.stretch, step=self.cost.rates.step, now=now)

    def crowding(self, now: float) -> Aboard | None:
        """The request to pause because its tenant takes more of a step than it may, if there is one."""
        return self.crowd.crowding(step=self.cost.rates.step, now=now) if self.pausable else None

    def stretch(self, ticket: Ticket) -> float:
        """`_Demand.stretch` of a request: seconds of work that it would add to each of its decode steps."""
        return self._demand(ticket).stretch

    @property
    def pausable(self) -> bool:
        """Whether requests here can be paused for another one."""
        return self.description.pauses and not self.reserved

    @property
    def has_credit(self) -> bool:
        """Whether it has a credit for one more request."""
        return len(self.aboard) + len(self.ahead) < self.description.credits

    def has_credit_for(self, ticket: Ticket) -> bool:
        """Whether it has a credit for this request, which it has already if the request reads ahead here."""
        return self.has_credit or ticket.request.id in self.ahead

    def run_ahead(self, request: Request) -> Ahead | None:
        """Let a request read ahead here, in place of another one if need be. None if there is no place for it."""
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
        """The request that gives up its place: one that has nothing to read until a native call ends or another request
        begins, in favour of one whose inputs are being written or of a tenant with fewer such requests."""
        tenants = Counter(one.session.tenant for one in self.ahead.values())
        own = tenants[request.session.tenant]
        idle = (one for one in self.ahead.values() if one.idle)
        leaves = (one for one in idle if not request.idle or tenants[one.session.tenant] > own + 1)
        return next(leaves, None)

    def lacking(self, ticket: Ticket) -> tuple[int, float]:
        """Rows and tokens of KV that must become free before a request can be admitted."""
        tokens = self.kv_tokens + self.need(ticket) - self.description.cache_tokens
        return self.active + 1 - self.width, tokens if self.active else 0.0

    def victims(self, *, protected: bool) -> Iterable[Aboard]:
        """Throughput work that may be paused, the latest first; if `protected`, its minimum share is left running."""
        spared = ceil(THROUGHPUT_SHARE * self.active) if protected else 0
        bulk = [one for one in self.aboard.values() if not (one.paused or one.pressing)]
        return reversed(bulk[spared:])

    # --- Placing and ending ----------------------------------------------------------------------------------

    def add(self, ticket: Ticket, now: float, *, together: bool = True) -> Aboard:
        """Place a request here. With `together`, requests of one submission share their precedence."""
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
        """Divide `seconds` of steps among the running requests by their stretch, and return each tenant's part."""
        running = [one for one in self.aboard.values() if not one.paused]
        part = seconds / (sum(one.stretch for one in running) or 1.0)
        received: defaultdict[TenantId, float] = defaultdict(float)
        for one in running:
            one.received += part * one.stretch
            received[one.tenant] += part * one.stretch
        return received

    def remove(self, request: RequestId, now: float) -> Aboard | None:
        """Take a request off the engine. None if it was not here."""
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
        """Pause a request, to make room."""
        self._stop(aboard)
        self.crowd.pause(aboard)
        aboard.paused = True
        self.paused[aboard.request.id] = aboard
        self.paused_bulk += not aboard.pressing

    def resume(self, aboard: Aboard) -> None:
        """Resume a paused request."""
        del self.paused[aboard.request.id]
        self.paused_bulk -= not aboard.pressing
        aboard.paused = False
        self._start(aboard)

    def reclassify(self, aboard: Aboard) -> None:
        """Account for a request's new objective."""
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
        """Call `change`, which changes a request's prefix because values that it reads or wrote have become known."""
        if not aboard.paused:
            self.residents.release(aboard.boundaries, staying=0)
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
        self.residents.release(aboard.boundaries, staying=aboard.ticket.prefix.known)
        self.residents.make_room(self.kv_tokens)

    # --- Predictions -----------------------------------------------------------------------------------------

    def consider(self, ticket: Ticket, now: float, *, own: int = 0) -> Considered:
        """Prediction for running a request here too. `own` members of its group run here; they do not count as
        harmed."""
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
        """Tokens that it is expected to write, within the context: `max_tokens` far beyond it are common."""
        return min(ticket.output_tokens, max(self.description.context_length - ticket.prompt_tokens, 1.0))

    def breaks_bound(self, ticket: Ticket) -> bool:
        """Whether latency-sensitive requests here would exceed their bound on the time between tokens."""
        if not self._active[Objective.LATENCY] and ticket.request.objective is not Objective.LATENCY:
            return False
        prompt = ticket.prompt_tokens
        alone = self.cost.rates.seconds(Work(1, 0, 1, prompt, prompt))
        return self._step(more_rows=1, more_tokens=prompt, more_kv=prompt) > self._bounds.step(alone)

    def _step(self, *, more_rows: int, more_tokens: float, more_kv: float) -> float:
        rows = self.active + more_rows
        return self.cost.rates.seconds(Work(1, 0, rows, self.kv_tokens + more_kv, self._row_tokens + more_tokens))

    def check_integrity(self) -> None:
        """Recompute everything that is kept incrementally. Raises `AssertionError` on a difference."""
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


def _bulk_rows(width: int) -> int:
    """Rows of a step reserved for waiting throughput work. In narrow steps it takes turns instead."""
    return ceil(THROUGHPUT_SHARE * width) if width * THROUGHPUT_SHARE >= 1 else 0
