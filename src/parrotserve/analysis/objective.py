"""Objective deduction: what each request is scheduled for, from what somebody waits for.

After section 5.2 of "Parrot: Efficient Serving of LLM-based Applications with Semantic Variable" (OSDI 2024).
From a result that is waited for urgently, walk upstream. Requests at the same distance from the result (the
longest path counts, in requests) are a *stage*. A stage of one is serial: the result comes no sooner than it
ends, so it is latency-sensitive. A stage of several is a task group: only its last member's end counts. A request
that several results need takes the strictest objective, and is in the group of the result that was asked for first;
what no urgent result needs is there for throughput. Native calls pass the walk on and are no stage.

Every criteria but THROUGHPUT makes a result urgent. TTFT and TPOT ask more of the engine that writes the result (its
first token, its gaps), and nothing else of what comes before it: that is to end soon, as for LATENCY.
"""

import heapq
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from parrotserve.criteria import Objective
from parrotserve.graph.objects import Call, Deduction, Producer, Request, TaskGroup, Variable

_STRICTEST_FIRST = list(Objective)


def stricter(one: Objective, other: Objective) -> bool:
    """Whether the first objective is stricter than the second."""
    return _STRICTEST_FIRST.index(one) < _STRICTEST_FIRST.index(other)


def deduce(results: Iterable[Variable], rewired: AbstractSet[Producer]) -> dict[Request, Deduction]:
    """New objectives of unfinished requests upstream of these urgent results, where they are stricter than now.

    `rewired` are producers that came or came back since objectives were last deduced, with all that is downstream
    of them. Everywhere else a latency-sensitive request is a sign that what lies upstream of it has been walked.
    """
    found: dict[Request, Deduction] = {}
    firsts = [(result, result.producer) for result in results if result.producer and not result.producer.finished]
    known = _Known(rewired, _settled([first for _, first in firsts]))
    for result, first in firsts:
        for level, stage in enumerate(_Walk(first, known).run()):
            objective = Objective.LATENCY if len(stage) == 1 else Objective.GROUP
            for request in stage:
                now = found[request].objective if request in found else request.objective
                if stricter(objective, now):
                    found[request] = _deduction(objective, result, level)
            if len(stage) == 1:
                known.walked.update(stage)
    return found


def _deduction(objective: Objective, result: Variable, level: int) -> Deduction:
    if objective is not Objective.GROUP:
        return Deduction(objective, result, level)
    group = result.stages.get(level)
    if group is None:
        group = result.stages[level] = TaskGroup(result, level)
    return Deduction(objective, result, level, group)


def assign(request: Request, deduction: Deduction) -> None:
    """Give a request its new objective, and its place in a task group."""
    if request.group is not None:
        del request.group.members[request]
    request.objective, request.deduced = deduction.objective, deduction
    if (group := deduction.group) is not None:
        group.members[request] = None
        group.first = min(group.first or request.arrival, request.arrival)


_Cut = tuple[frozenset[tuple[Producer, int]], tuple[Request | None, ...]]
"""Producers with how far their stages are behind the first one of them; and of those stages that are begun, the only
request, or None for several."""


@dataclass(slots=True)
class _Known:
    """What need not be walked (again)."""

    rewired: AbstractSet[Producer]
    settled: AbstractSet[Producer]
    """They and all upstream of them are latency-sensitive by results of their own."""
    walked: set[Producer] = field(default_factory=set[Producer])
    """Requests that were a stage alone."""
    cuts: set[_Cut] = field(default_factory=set[_Cut])
    """What was pending in walks from earlier results, wherever it was looked at."""

    def alone(self, request: Request) -> bool:
        """Whether it was a stage alone before: of an earlier result, or at an earlier time."""
        before = request.objective is Objective.LATENCY and request not in self.rewired
        return before or request in self.walked


def _settled(firsts: Sequence[Producer]) -> set[Producer]:
    """Of several results' producers, and calls that they read: those upstream of which is nothing else."""
    if len(firsts) < 2:
        return set()
    asked, pending = dict.fromkeys(firsts), list(firsts)
    while pending:
        for variable in pending.pop().inputs:
            call = variable.producer
            if isinstance(call, Call) and not call.finished and call not in asked:
                asked[call] = None
                pending.append(call)
    settled: set[Producer] = set()
    for one in sorted(asked, key=lambda producer: producer.position):
        needed = (variable.producer for variable in one.inputs)
        if all(producer is None or producer.finished or producer in settled for producer in needed):
            settled.add(one)
    return settled


class _Walk:
    """The stages upstream of a result, as far as they may bring something new.

    Producers are taken by falling position, so that each comes after all that need it and its distance is final. Which
    are pending at some position, in which stages, and what these stages have by then, decides alone what stages all
    further upstream makes. So the walk ends where the same was pending in a walk from an earlier result, or one
    request that was a stage alone before: chains are walked once, however many results hang on them. So is what wide
    graphs have in common: however much walks differ where they begin, a little further on they agree about how far one
    producer is behind another. The walk ends, too, where all that is pending is settled.
    """

    def __init__(self, first: Producer, known: _Known) -> None:
        self._known = known
        self._stages: list[list[Request]] = []
        self._levels: dict[Producer, int] = {first: 0}
        self._pending = [(-first.position, first)]
        self._position = first.position
        self._stride = 1
        """It is looked where positions that are multiples of this power of two are passed: so that walks that do it
        rarely, because much is pending, do it at the same places."""
        self._unpaid = 0
        """Inputs looked at since what is pending was: so that one costs no more than the other."""

    def run(self) -> list[list[Request]]:
        """Walk."""
        while self._pending and not (self._looks() and self._brings_nothing_new()):
            _, producer = heapq.heappop(self._pending)
            level = self._levels[producer]
            if isinstance(producer, Request):
                if not self._pending and level == len(self._stages) and self._known.alone(producer):
                    break
                if level == len(self._stages):
                    self._stages.append([])
                self._stages[level].append(producer)
                level += 1
            for variable in producer.inputs:
                self._need(variable.producer, level)
        return self._stages

    def _looks(self) -> bool:
        """Whether it is time to look at what is pending."""
        position, before = -self._pending[0][0], self._position
        self._position = position
        if position // self._stride == before // self._stride:
            return False
        if len(self._pending) > self._unpaid:
            self._stride *= 2
            return False
        if len(self._pending) * 4 < self._unpaid and self._stride > 1:
            self._stride //= 2
        self._unpaid = 0
        return True

    def _brings_nothing_new(self) -> bool:
        """Whether that is known of what is pending. Then stages that are still open are known as well."""
        pending = [(producer, self._levels[producer]) for _, producer in self._pending]
        lowest = min(level for _, level in pending)
        still_open = self._stages[lowest:]
        ahead = frozenset((producer, level - lowest) for producer, level in pending)
        cut = ahead, tuple(stage[0] if len(stage) == 1 else None for stage in still_open)
        settled = not still_open and all(producer in self._known.settled for producer, _ in pending)
        if not settled and cut not in self._known.cuts:
            self._known.cuts.add(cut)
            return False
        for stage in still_open:
            if len(stage) == 1:
                stage.clear()  # whether others join it was found before
        return True

    def _need(self, producer: Producer | None, level: int) -> None:
        self._unpaid += 1
        if producer is None or producer.finished:
            return
        before = self._levels.get(producer)
        if before is None:
            heapq.heappush(self._pending, (-producer.position, producer))
        if before is None or before < level:
            self._levels[producer] = level
