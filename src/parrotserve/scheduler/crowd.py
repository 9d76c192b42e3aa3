"""How much each tenant's requests add to the steps of an engine, and how much they may add beside other tenants.

A step takes the same time for every request in it. So a tenant that runs many requests slows down a tenant that runs
few, however fairly places are given out. The rule: while somebody waits for a tenant's requests, a step may take at
most `Bounds.crowding` times as long as it would if no tenant added more to it, by weight, than this one adds, or would
add with everything that it has queued. Only the tenant that adds least has to be looked at: a step that is fair to it
is fair to those that add more. Every tenant may always run one request.

So an engine can still be filled by tenants that all have much to run, which then share it by turns (`lines`), by a
tenant that is alone, and by tenants for which nobody waits.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import hypot, inf

from parrotserve.criteria import Objective
from parrotserve.ids import TenantId
from parrotserve.scheduler.aboard import Aboard
from parrotserve.scheduler.lines import EVERYBODY

LINGER_SECONDS = 0.25
"""For so long after its last request a tenant is expected to send the next one, as a program does for its next step.
Its part is left free until then, since it would have to wait for whatever others filled it with."""


@dataclass(slots=True, eq=False)
class Part:
    """One tenant's requests on an engine."""

    tenant: TenantId
    weights: Mapping[TenantId, float]
    running: dict[Aboard, None] = field(default_factory=dict[Aboard, None])
    paused: dict[Aboard, None] = field(default_factory=dict[Aboard, None])
    pressing: int = 0
    """Number of running requests that somebody waits for."""
    seconds: float = 0.0
    """Seconds of work that its running requests add to a step; if none runs, what the last one added."""
    until: float = -inf
    """If none runs: the time until which the part is left free."""

    @property
    def weight(self) -> float:
        return self.weights.get(self.tenant, 1.0)

    @property
    def level(self) -> float:
        """Seconds of work that it adds to a step, per unit of weight."""
        return self.seconds / self.weight

    def in_order(self) -> list[Aboard]:
        """Running requests in reverse order of pausing: last comes the newest one that nobody waits for, if any."""
        return sorted(self.running, key=lambda one: (not one.pressing, one.request.arrival))


class Crowd:
    """The tenants on one engine. Every query takes O(tenants on it)."""

    def __init__(
        self,
        weights: Mapping[TenantId, float],
        queued: Callable[[TenantId], int],
        *,
        most: float,
        fair: bool = True,
    ) -> None:
        """`weights` are those of tenants, by default 1; `queued` counts a tenant's queued requests. A step may take
        `most` times as long as a fair one. Without `fair`, all tenants count as one."""
        self._weights = weights
        self._queued = queued
        self._most = most
        self._fair = fair
        self._parts: dict[TenantId, Part] = {}

    # --- Events ----------------------------------------------------------------------------------------------

    def start(self, aboard: Aboard) -> None:
        """Count a request that starts or resumes."""
        tenant = self._payer(aboard.tenant)
        part = self._parts.get(tenant)
        if part is None:
            part = self._parts[tenant] = Part(tenant, self._weights)
        if not part.running:
            part.seconds, part.until = 0.0, -inf
        part.paused.pop(aboard, None)
        part.running[aboard] = None
        part.pressing += aboard.pressing
        part.seconds += aboard.stretch

    def pause(self, aboard: Aboard) -> None:
        """Count a request as paused."""
        part = self._stop(aboard)
        part.paused[aboard] = None

    def end(self, aboard: Aboard, now: float) -> None:
        """Remove a request."""
        part = self._part_of(aboard)
        if aboard in part.paused:
            del part.paused[aboard]
        else:
            self._stop(aboard)
            if aboard.pressing and not part.running:
                part.seconds, part.until = aboard.stretch, now + LINGER_SECONDS
        self.expire(now)

    def reclassify(self, aboard: Aboard, objective: Objective) -> None:
        """Account for the objective that a request is about to get."""
        part = self._part_of(aboard)
        if aboard in part.running:
            part.pressing += objective.pressing - aboard.pressing

    def expire(self, now: float) -> bool:
        """Drop parts that were left free long enough. Returns whether that freed any for other tenants."""
        over = [one for one in self._parts.values() if not one.running and one.until <= now]
        opened = any(part.until > -inf for part in over)
        for part in over:
            part.seconds, part.until = 0.0, -inf
            if not part.paused:
                del self._parts[part.tenant]
        return opened

    def _stop(self, aboard: Aboard) -> Part:
        part = self._part_of(aboard)
        del part.running[aboard]
        part.pressing -= aboard.pressing
        part.seconds = part.seconds - aboard.stretch if part.running else 0.0
        return part

    # --- Queries ---------------------------------------------------------------------------------------------

    def is_alone(self, tenant: TenantId) -> bool:
        """Whether no other tenant is here or the tenant runs nothing: in both cases it may run one more request."""
        part = self._parts.get(self._payer(tenant))
        return part is None or not part.running or len(self._parts) == 1

    def is_fullest(self, tenant: TenantId) -> bool:
        """Whether no tenant adds more to a step, by weight, than this one."""
        part = self._parts.get(self._payer(tenant))
        return part is not None and all(one.level <= part.level for one in self._parts.values())

    def first_paused(self, tenant: TenantId) -> Aboard | None:
        """A tenant's oldest paused request that somebody waits for; it has precedence over queued ones."""
        part = self._parts.get(self._payer(tenant))
        pressing = (one for one in part.paused if one.pressing) if part is not None else ()
        return min(pressing, key=lambda one: one.request.arrival, default=None)

    def admits(self, tenant: TenantId, stretch: float, *, step: float, now: float) -> bool:
        """Whether a tenant may run one more request, which adds `stretch` seconds to a step; an empty one takes
        `step`."""
        self.expire(now)
        if self.is_alone(tenant):
            return True
        part = self._parts[self._payer(tenant)]
        seconds = {one: one.seconds for one in self._parts.values()}
        seconds[part] += stretch
        least = self._least(besides=part)
        return least is None or seconds[part] / part.weight <= least or not self._is_too_long(step, seconds, least)

    def crowding(self, *, step: float, now: float) -> Aboard | None:
        """The request to pause because a step takes longer than it may. None if it does not, or no pause would help."""
        self.expire(now)
        if len(self._parts) < 2:
            return None
        seconds = {one: one.seconds for one in self._parts.values()}
        least = self._least()
        if least is None or not self._is_too_long(step, seconds, least):
            return None
        able = [one for one in seconds if len(one.running) > 1 and one.level > least]
        fullest = max(able, key=lambda one: one.level, default=None)
        return fullest.in_order()[-1] if fullest is not None else None

    def yielding(self, tenant: TenantId, stretch: float) -> Iterator[Aboard]:
        """Requests that may be paused, in order, for a tenant's next one: those of tenants that add more to a step than
        this tenant will, even after the pause."""
        own = self._parts.get(self._payer(tenant)) or Part(tenant, self._weights)
        level = (own.seconds + stretch) / own.weight
        left = {one: one.in_order() for one in self._parts.values() if one is not own and len(one.running) > 1}
        levels = {one: one.level for one in left}
        while left:
            fullest = max(left, key=lambda one: levels[one])
            levels[fullest] -= left[fullest][-1].stretch / fullest.weight
            if levels[fullest] < level:
                return
            yield left[fullest].pop()
            if len(left[fullest]) == 1:
                del left[fullest]

    def _least(self, *, besides: Part | None = None) -> float | None:
        """The least that any tenant for which somebody waits adds to a step by weight, or would add with everything
        that it has queued or paused. None if there is no such tenant."""
        levels = (
            part.level * (1 + (len(part.paused) + self._queued(part.tenant)) / max(len(part.running), 1))
            for part in self._parts.values()
            if part is not besides and (part.pressing > 0 or part.until > -inf)
        )
        return min(levels, default=None)

    def _is_too_long(self, step: float, seconds: Mapping[Part, float], least: float) -> bool:
        """Whether a step takes longer than it may for a tenant that adds only `least` to it per unit of weight. What
        requests add is arithmetic, which overlaps with reading the weights (`step_cost`)."""
        whole = sum(seconds.values())
        fair = sum(min(more, least * part.weight) for part, more in seconds.items())
        return hypot(step, whole) > self._most * hypot(step, fair)

    def _payer(self, tenant: TenantId) -> TenantId:
        return tenant if self._fair else EVERYBODY

    def _part_of(self, aboard: Aboard) -> Part:
        return self._parts[self._payer(aboard.tenant)]

    def check_integrity(self, running: Iterable[Aboard], paused: Iterable[Aboard]) -> None:
        """Check against `running` and `paused`, which are all there are. Raises `AssertionError`."""
        assert {one for part in self._parts.values() for one in part.running} == set(running), "parts of who runs"
        assert {one for part in self._parts.values() for one in part.paused} == set(paused), "parts of who is paused"
        for name, part in self._parts.items():
            assert all(self._payer(one.tenant) == name for one in (*part.running, *part.paused)), "another one's part"
            assert part.pressing == sum(one.pressing for one in part.running), f"who presses of {name}"
            if part.running:
                assert abs(part.seconds - sum(one.stretch for one in part.running)) < 1e-6, f"seconds of {name}"
                assert part.until == -inf, f"{name} is here and thought to be gone"
            else:
                assert part.paused or part.until > -inf, f"{name} is not here"
