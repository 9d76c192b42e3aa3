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
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from parrotserve.criteria import Objective
from parrotserve.graph.objects import Deduction, Producer, Request, TaskGroup, Variable

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
    walked: set[Producer] = set()
    for result in results:
        for level, stage in enumerate(_stages(result, walked, rewired)):
            objective = Objective.LATENCY if len(stage) == 1 else Objective.GROUP
            for request in stage:
                now = found[request].objective if request in found else request.objective
                if stricter(objective, now):
                    found[request] = _deduction(objective, result, level)
            if len(stage) == 1:
                walked.update(stage)
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


def _stages(result: Variable, walked: AbstractSet[Producer], rewired: AbstractSet[Producer]) -> list[list[Request]]:
    """The stages upstream of a result, as far as they may bring something new.

    Producers are taken by falling depth, so that each comes after all that need it and its distance is final.
    When one request is all that is left, and is a stage alone, everything further upstream passes through it. If it
    was a stage alone before (it is in `walked`, or latency-sensitive from an earlier time), that is known already:
    chains are walked once, however many results hang on them.
    """
    first = result.producer
    if first is None or first.finished:
        return []
    levels: dict[Producer, int] = {first: 0}
    pending = [(-first.depth, first.arrival, first)]
    stages: list[list[Request]] = []
    while pending:
        _, _, producer = heapq.heappop(pending)
        level = levels[producer]
        if isinstance(producer, Request):
            alone = not pending and level == len(stages)
            if alone and (producer in walked or _was_walked(producer, rewired)):
                break
            stages += [[] for _ in range(level + 1 - len(stages))]
            stages[level].append(producer)
            level += 1
        for variable in producer.inputs:
            needed = variable.producer
            if needed is None or needed.finished:
                continue
            if needed not in levels:
                heapq.heappush(pending, (-needed.depth, needed.arrival, needed))
            levels[needed] = max(level, levels.get(needed, 0))
    return stages


def _was_walked(request: Request, rewired: AbstractSet[Producer]) -> bool:
    return request.objective is Objective.LATENCY and request not in rewired
