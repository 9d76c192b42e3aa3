"""Finding the shared-prefix forest of a step: which sequences begin with the same pages, at every depth.

Relies on what the cache guarantees: a page holds the KV of one prefix, so two tables with the same page at index i
are equal up to i. So bisection finds the length of a common prefix, in O(log pages) per sequence and level.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SharedRun:
    """An inner node of the forest: a run of pages that several sequences, neighbours in the order, have in common."""

    first: int
    """The first sequence below it, as a place in the order."""
    last: int
    """One past the last."""
    start: int
    """The run's first page, as an index in their tables."""
    stop: int


@dataclass(frozen=True, slots=True)
class Forest:
    """Sequences in depth-first order, so that those below any node are neighbours."""

    order: list[int]
    shared: list[SharedRun]
    tails: list[int]
    """[sequences], by sequence and not by place in the order: how many of its pages are covered by shared runs."""


def find_forest(
    tables: Sequence[Sequence[int]], limits: Sequence[int], *, min_saved_pages: float, align_pages: int = 1
) -> Forest:
    """The forest over `tables[s][: limits[s]]`, without the runs that are not worth a span of their own.

    Runs start and stop at multiples of `align_pages`.

    A run is worth it if reading it once, instead of once for each sequence below it, saves at least `min_saved_pages`
    page reads per sequence. A run that is not worth it stays part of what follows it in each sequence.
    """
    order: list[int] = []
    shared: list[SharedRun] = []
    tails = [0] * len(tables)
    # Members of a node, the number of pages that they are known to share, and how many of those are in runs above.
    stack = [(list(range(len(tables))), 0, 0)]
    while stack:
        members, known, covered = stack.pop()
        if len(members) > 1:
            known = _common_pages(members, known, tables, limits)
            stop = known - known % align_pages
            if stop > covered and (len(members) - 1) * (stop - covered) >= len(members) * min_saved_pages:
                shared.append(SharedRun(len(order), len(order) + len(members), covered, stop))
                covered = stop
        branches: dict[int, list[int]] = {}
        for member in members:
            if len(members) == 1 or limits[member] == known:
                tails[member] = covered
                order.append(member)
            else:
                branches.setdefault(tables[member][known], []).append(member)
        stack.extend((branch, known, covered) for branch in reversed(branches.values()))
    return Forest(order=order, shared=shared, tails=tails)


def _common_pages(members: list[int], known: int, tables: Sequence[Sequence[int]], limits: Sequence[int]) -> int:
    """How many leading pages all members have in common; at least `known`."""
    model = tables[members[0]]
    common = limits[members[0]]
    for member in members:
        table = tables[member]
        common = min(common, limits[member])
        if common > known and model[common - 1] != table[common - 1]:
            common = bisect_left(range(common), True, lo=known, key=lambda i, other=table: model[i] != other[i])
    return common
