"""Objective deduction: what each request is scheduled for, from what somebody waits for.

After section 5.2 of "Parrot: Efficient Serving of LLM-based Applications with Semantic Variable" (OSDI 2024).
From a result that is waited for urgently, walk upstream. Requests at the same distance from the result (the
longest path counts, in requests) are a *stage*. A stage of one is serial: the result cannot come before it
ends, so it is latency-sensitive. A stage of several is a task group: only its last member's end counts. A request
that several results need takes the strictest objective, and is in the group of the result that was asked for first;
what no urgent result needs is throughput work. Native calls form no stage: the walk passes through them.

Every criteria but THROUGHPUT makes a result urgent. TTFT and TPOT ask more of the engine that writes the result (its
first token, the gaps between tokens). For the requests upstream they mean the same as LATENCY.
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
    """New objectives of unfinished requests upstream of these urgent results, where they are stricter than before.

    `rewired` are the producers that were added or revived since objectives were last deduced, and those downstream of
    added ones. For all others, being latency-sensitive implies that everything upstream has been walked already.
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
    """Give a request its new objective, and move it to the new task group, if any."""
    if request.group is not None:
        del request.group.members[request]
    request.objective, request.deduced = deduction.objective, deduction
    if (group := deduction.group) is not None:
        group.members[request] = None
        group.first = min(group.first or request.arrival, request.arrival)


_Cut = tuple[frozenset[tuple[Producer, int]], tuple[Request | None, ...]]
"""The state of a walk: the pending producers, each with its stage counted from the nearest pending stage; and, for each
stage from there on that has requests, its only one, or None if it has several."""


@dataclass(slots=True)
class _Known:
    """What need not be walked, or not again."""

    rewired: AbstractSet[Producer]
    settled: AbstractSet[Producer]
    """Producers whose whole upstream is latency-sensitive, as they are, because of results of its own."""
    walked: set[Producer] = field(default_factory=set[Producer])
    """Requests that were found to be alone in their stage."""
    cuts: set[_Cut] = field(default_factory=set[_Cut])
    """States at which walks from earlier results were checked."""

    def alone(self, request: Request) -> bool:
        """Whether it was found alone in its stage before: for an earlier result now, or in an earlier deduction."""
        before = request.objective is Objective.LATENCY and request not in self.rewired
        return before or request in self.walked


def _settled(firsts: Sequence[Producer]) -> set[Producer]:
    """Those producers of results (if there are several), and native calls that they read, which have no unfinished
    producers upstream but each other."""
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

    Producers are taken in order of falling position, so that each comes after all its consumers and its distance is
    final. The stages further upstream then depend only on which producers are pending, in which stages, and on what
    these stages hold so far. So the walk ends in a state that a walk from an earlier result was in, or when only one
    request is pending that was alone in its stage before: chains are walked once, however many results depend on them.
    So are the common parts of wide graphs: however differently two walks begin, a little further upstream they agree
    on how far one producer is behind another. The walk also ends when everything that is pending is settled.
    """

    def __init__(self, first: Producer, known: _Known) -> None:
        self._known = known
        self._stages: list[list[Request]] = []
        self._levels: dict[Producer, int] = {first: 0}
        self._pending = [(-first.position, first)]
        self._position = first.position
        self._stride = 1
        """A power of two: the state is checked where the walk passes a multiple of it. So walks that check rarely,
        because much is pending, still check at the same positions."""
        self._unpaid = 0
        """Inputs visited since the last check. A check costs as much as there is pending, and is put off until as many
        inputs were visited."""

    def run(self) -> list[list[Request]]:
        """Walk, and return the stages, nearest first. A stage of which nothing new was found may be empty."""
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
        """Whether it is time to check the state."""
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
        """Whether walking on from what is pending would find nothing new. Then the stages that are still open are known
        as well, and lone requests are taken out of them."""
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
                stage.clear()  # an earlier walk has found whether others join it
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
