"""The application-aware scheduler.

This module takes in events; `passes` decides which tenant is next, which of its requests, and on which engine. A
request stays queued until an engine can admit it. Engines of one model share a queue, and a pass visits only models in
which something has changed.
"""

from collections.abc import Iterable
from itertools import islice

from parrotserve.bounds import Bounds
from parrotserve.criteria import Precedence
from parrotserve.graph.events import EngineJoined, StepsRun
from parrotserve.graph.objects import Request
from parrotserve.graph.states import ProducerState
from parrotserve.ids import EngineId, RequestId, TenantId
from parrotserve.sampling import Usage
from parrotserve.scheduler.base import Ahead, Outcome, Scheduler
from parrotserve.scheduler.passes import Pass
from parrotserve.scheduler.pool import Pool
from parrotserve.step_cost import Work
from parrotserve.switches import Switches

AT_ONCE = 1000
"""Most requests that are taken into the queues for one pass. It takes some 20 ms, for which the service stands
still."""


class AppScheduler(Scheduler):
    """Schedules requests by the objectives of their applications.

    One value may make tens of thousands of requests ready. These are taken in over several passes, requests of the
    current event first, so that an application with few requests does not wait for one with many.
    """

    def __init__(self, switches: Switches, bounds: Bounds = Bounds(), *, at_once: int = AT_ONCE) -> None:
        self._switches = switches
        self._bounds = bounds
        self._pools: dict[str, Pool] = {}
        self._engines: dict[EngineId, Pool] = {}
        self._weights: dict[TenantId, float] = {}
        self._changed: dict[str, None] = {}
        self._at_once = at_once
        self._taken = 0
        """Number of requests that were taken in since the last pass."""
        self._arriving: dict[Request, None] = {}
        """Queued requests that are not taken in yet."""

    # --- Events ----------------------------------------------------------------------------------------------

    def join(self, description: EngineJoined) -> None:
        pool = self._pool(description.model)
        self._engines[description.engine] = pool
        pool.join(description)

    def lose(self, engine: EngineId) -> list[Request]:
        pool = self._engines.pop(engine, None)
        return pool.lose(engine) if pool is not None else []

    def queue(self, request: Request) -> None:
        if self._taken < self._at_once:
            self._take_in(request)
        else:
            self._arriving[request] = None

    def _take_in(self, request: Request) -> None:
        self._taken += 1
        self._pool(request.spec.model).queue(request)

    def wait(self, request: Request) -> None:
        pool = self._pools.get(request.spec.model)
        if pool is not None and self._switches.prefix:
            pool.tickets.wait(request)

    def unqueue(self, request: Request) -> None:
        if request in self._arriving:
            del self._arriving[request]
        else:
            self._pool(request.spec.model).unqueue(request)

    def run_ahead(self, request: Request, near: EngineId | None) -> Ahead | None:
        pool = self._pools.get(request.spec.model)
        if not self._switches.ahead or pool is None:
            return None
        load = pool.loads.get(near) if near is not None else None
        load = load or pool.least_loaded()
        if load is None:
            return None
        place = load.run_ahead(request)
        pool.touched(load)
        return place

    def free(self, engine: EngineId, request: RequestId, usage: Usage | None, now: float) -> None:
        pool = self._engines.get(engine)
        if pool is None:
            return
        load = pool.loads[engine]
        ran_ahead = load.ahead.pop(request, None) is not None
        if ran_ahead:
            pool.touched(load)
        aboard = load.aboard.get(request)
        if aboard is not None:
            pool.free(load, aboard, usage, now)
        if ran_ahead or aboard is not None:
            self._changed[load.description.model] = None

    def settle(self, request: RequestId, epoch: int, usage: Usage) -> None:
        for pool in self._pools.values():
            pool.settle((request, epoch), usage)

    def reclassify(self, request: Request) -> Precedence | None:
        if request in self._arriving:
            return None
        pool = self._pool(request.spec.model)
        if pool.is_queued(request):
            pool.unqueue(request)
            self.queue(request)
        elif (found := pool.where_it_runs(request)) is not None:
            pool.reclassify(*found)
            return found[1].precedence
        return None

    def wrote(self, request: Request) -> None:
        pool = self._pools[request.spec.model]
        found = pool.where_it_runs(request)
        if found is not None:
            load, aboard = found
            load.rekey(aboard, lambda: pool.tickets.rekey(aboard.ticket))
            pool.touched(load)

    def finish(self, request: Request, usage: Usage | None) -> None:
        pool = self._pools.get(request.spec.model)
        if pool is None:
            return
        if usage is not None:
            pool.estimates.learn(request, pool.tickets.of(request).chars, usage)
        pool.tickets.forget(request)
        if pool.tickets.sharers.gone:
            self._changed[request.spec.model] = None

    def timed(self, event: StepsRun, now: float) -> None:
        pool = self._engines.get(event.engine)
        if pool is None:
            return
        load = pool.loads[event.engine]
        work = Work(event.steps, event.prefill_tokens, event.decode_rows, event.kv_tokens, event.attended)
        load.cost.observe(work, event.seconds)
        pool.learned(load)
        pool.took(load, event.seconds)
        if load.active:
            part = event.decode_rows / load.active
            pool.share.note(now, got=part * load.bulk, total=event.decode_rows)
            pool.group_share.note(now, got=part * load.grouped, total=event.decode_rows)
        if load.crowd.expire(now) or (pool.bulk_waits and pool.share.is_low(now)):
            self._changed[load.description.model] = None

    def weigh(self, tenant: TenantId, weight: float) -> None:
        self._weights[tenant] = weight
        for pool in self._pools.values():
            pool.lines.weigh(tenant, weight)

    # --- Decisions -------------------------------------------------------------------------------------------

    def place(self, now: float) -> list[Outcome]:
        if self._arriving:
            for request in list(islice(self._arriving, self._at_once - self._taken)):
                del self._arriving[request]
                self._take_in(request)
        self._taken = 0
        outcomes: list[Outcome] = []
        for model in self._changed:
            pool = self._pools[model]
            outcomes += [*Pass(pool, now).run(), *pool.retain_and_release()]
        self._changed.clear()
        return outcomes

    @property
    def unfinished(self) -> bool:
        return bool(self._arriving)

    # --- Invariants ------------------------------------------------------------------------------------------

    def check_integrity(self, requests: Iterable[Request]) -> None:
        unfinished = {one for one in requests if not one.finished}
        queued = {one for pool in self._pools.values() for one in (*pool.lines, *pool.lines.suspects)}
        assert not queued & self._arriving.keys(), "a request is taken in and still to be"
        assert queued | self._arriving.keys() == {one for one in unfinished if one.state is ProducerState.QUEUED}, (
            "queued requests"
        )
        running = {one.request: load for pool in self._pools.values() for load in pool.loads.values()
                   for one in load.aboard.values()}  # fmt: skip
        assert {one: load.id for one, load in running.items()} == {
            one: one.engine for one in unfinished if one.aboard
        }, "running requests"
        ahead = {one: load.id for pool in self._pools.values() for load in pool.loads.values()
                 for one in load.ahead.values()}  # fmt: skip
        assert ahead == {one: one.ahead for one in unfinished if one.ahead is not None}, "requests that run ahead"
        for pool in self._pools.values():
            pool.check_integrity(unfinished)
            idle = any(not load.aboard and not load.reserved for load in pool.loads.values())
            waiting = pool.lines or pool.lines.suspects
            assert not (idle and waiting), "requests wait though an engine has nothing to do"
            for load in pool.loads.values():
                suspected = any(one.request.suspect for one in load.aboard.values())
                alone = not suspected or (len(load.aboard) == 1 and not load.ahead)
                assert alone, f"a suspect is not alone on engine {load.id}"
                assert load.active or not load.paused, f"all that is on engine {load.id} is paused"

    def _pool(self, model: str) -> Pool:
        """The pool of a model in which something is about to change."""
        self._changed[model] = None
        pool = self._pools.get(model)
        if pool is None:
            pool = self._pools[model] = Pool(self._switches, self._bounds)
            for tenant, weight in self._weights.items():
                pool.lines.weigh(tenant, weight)
        return pool
