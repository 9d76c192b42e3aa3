"""The naive scheduler: order of arrival, least loaded engine. It is the baseline of ablations.

Order of arrival is that of submission, not of readiness: the later steps of an application do not queue anew behind
everybody who came after it. A request stays queued until an engine can admit it. A suspect (`Request.suspect`) runs
alone, on an empty engine or on the least loaded one, which is then reserved for it and drained.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from parrotserve.graph.events import EngineJoined, StepsRun
from parrotserve.graph.lazy_heap import LazyHeap
from parrotserve.graph.objects import Request
from parrotserve.graph.placements import Considered, PlacedBy, Placement
from parrotserve.graph.states import ProducerState
from parrotserve.ids import EngineId, RequestId, TenantId
from parrotserve.sampling import Usage
from parrotserve.scheduler.base import Placed, Scheduler
from parrotserve.scheduler.slots import EngineSlot


@dataclass(slots=True, eq=False)
class _Pool:
    """The engines of one model, and the requests that wait for one."""

    engines: dict[EngineId, EngineSlot] = field(default_factory=dict[EngineId, EngineSlot])
    waiting: LazyHeap[Request] = field(default_factory=LazyHeap[Request])
    suspects: LazyHeap[Request] = field(default_factory=LazyHeap[Request])

    def queue_of(self, request: Request) -> LazyHeap[Request]:
        return self.suspects if request.suspect else self.waiting


class NaiveScheduler(Scheduler):
    """Places requests whose inputs are known, in order of arrival, on the least loaded engine of their model.

    A pass takes O(placed x (log waiting + engines of the model)) and visits only models in which something has changed.
    """

    def __init__(self) -> None:
        self._pools: dict[str, _Pool] = {}
        self._engines: dict[EngineId, EngineSlot] = {}
        self._changed: dict[str, None] = {}

    # --- Events ----------------------------------------------------------------------------------------------

    def join(self, description: EngineJoined) -> None:
        slot = EngineSlot(description)
        self._engines[slot.id] = slot
        self._pool(description.model).engines[slot.id] = slot

    def lose(self, engine: EngineId) -> list[Request]:
        slot = self._engines.pop(engine, None)
        if slot is None:
            return []
        del self._pool(slot.description.model).engines[engine]
        return list(slot.running.values())

    def queue(self, request: Request) -> None:
        self._pool(request.spec.model).queue_of(request).put(request, request.arrival)

    def unqueue(self, request: Request) -> None:
        self._pool(request.spec.model).queue_of(request).discard(request)

    def wait(self, request: Request) -> None:
        """Does nothing: this scheduler keeps no prefixes."""

    def run_ahead(self, request: Request, near: EngineId | None) -> None:
        return None

    def free(self, engine: EngineId, request: RequestId, usage: Usage | None, now: float) -> None:
        slot = self._engines.get(engine)
        if slot is None or slot.running.pop(request, None) is None:
            return
        self._changed[slot.description.model] = None

    def settle(self, request: RequestId, epoch: int, usage: Usage) -> None: ...

    def reclassify(self, request: Request) -> None:
        return None

    def wrote(self, request: Request) -> None: ...

    def finish(self, request: Request, usage: Usage | None) -> None: ...

    def timed(self, event: StepsRun, now: float) -> None: ...

    def weigh(self, tenant: TenantId, weight: float) -> None: ...

    # --- Decisions -------------------------------------------------------------------------------------------

    def place(self, now: float) -> list[Placed]:
        placed: list[Placed] = []
        for model in self._changed:
            pool = self._pools[model]
            self._place_suspects(pool, placed)
            while len(pool.waiting):
                slot = max(pool.engines.values(), key=_least_loaded_first, default=None)
                if slot is None or slot.free <= 0:
                    break
                _run(pool.waiting.pop(), slot, placed)
        self._changed.clear()
        return placed

    def _place_suspects(self, pool: _Pool, placed: list[Placed]) -> None:
        engines = pool.engines.values()
        for slot in engines:
            # Free an engine that was reserved for a suspect which has ended or is not queued any more.
            slot.reserved = any(request.suspect for request in slot.running.values())
        while len(pool.suspects):
            empty = next((slot for slot in engines if not slot.running), None)
            if empty is None:
                draining = min((slot for slot in engines if not slot.reserved), key=_load, default=None)
                if draining is not None:
                    draining.reserved = True
                return
            empty.reserved = True
            _run(pool.suspects.pop(), empty, placed)

    # --- Invariants ------------------------------------------------------------------------------------------

    def check_integrity(self, requests: Iterable[Request]) -> None:
        """Check queues and engines against `requests`, which are all there are. Raises `AssertionError`."""
        queued = {request for pool in self._pools.values() for request in (*pool.waiting, *pool.suspects)}
        running = {request: slot for slot in self._engines.values() for request in slot.running.values()}
        for request in requests:
            assert (request in queued) == (request.state is ProducerState.QUEUED), f"{request} is {request.state}"
            assert (request in running) == request.aboard, f"{request}: aboard is {request.aboard}"
            assert not request.aboard or running[request].id == request.engine, f"{request} is not on {request.engine}"
            queued.discard(request)
            running.pop(request, None)
        assert not queued, "forgotten requests are queued"
        assert not running, "forgotten requests run"
        for slot in self._engines.values():
            assert len(slot.running) <= slot.description.credits, f"engine {slot.id} has too many"
            alone = not any(request.suspect for request in slot.running.values()) or len(slot.running) == 1
            assert alone, f"a suspect is not alone on engine {slot.id}"
        for pool in self._pools.values():
            idle = any(slot.free > 0 for slot in pool.engines.values())
            assert not (idle and len(pool.waiting)), "requests wait though an engine would take them"

    def _pool(self, model: str) -> _Pool:
        """The pool of a model in which something is about to change."""
        self._changed[model] = None
        return self._pools.setdefault(model, _Pool())


def _run(request: Request, slot: EngineSlot, placed: list[Placed]) -> None:
    slot.running[request.id] = request
    chosen = Considered(engine=slot.id, seconds=None, cached_tokens=0.0, harm=0.0, work=0.0)
    by = PlacedBy.ALONE if request.suspect else PlacedBy.ARRIVAL
    placed.append(Placed(request, Placement(by=by, chosen=chosen, prompt_tokens=0.0)))


def _load(slot: EngineSlot) -> int:
    return len(slot.running)


def _least_loaded_first(slot: EngineSlot) -> tuple[bool, int]:
    return slot.free > 0, -len(slot.running)
