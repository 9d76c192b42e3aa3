"""A priority queue whose items can be removed and reordered."""

import heapq
from collections.abc import Hashable, Iterator
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

_SLACK = 32
"""Number of stale entries that are tolerated, however few items there are."""


class LazyHeap(Generic[T]):
    """Items by priority (lowest first; equal ones in order of `put`), each at most once.

    Removal only marks an entry as stale; stale entries are dropped when they reach the top, or all at once when they
    outnumber the items. So every operation costs O(log n) amortised, and memory is proportional to the items.
    """

    __slots__ = ("_counter", "_heap", "_live")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._live: dict[T, tuple[float, int]] = {}
        self._counter = count()

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, item: T) -> bool:
        return item in self._live

    def __iter__(self) -> Iterator[T]:
        """In no particular order."""
        return iter(self._live)

    def put(self, item: T, priority: float) -> None:
        """Add an item, or give it another priority."""
        entry = (priority, next(self._counter))
        self._live[item] = entry
        heapq.heappush(self._heap, (*entry, item))
        if len(self._heap) > 2 * len(self._live) + _SLACK:
            self._compact()

    def discard(self, item: T) -> None:
        """Remove an item if it is there."""
        if self._live.pop(item, None) is not None:
            if not self._live:
                self._heap.clear()
            elif len(self._heap) > 2 * len(self._live) + _SLACK:
                self._compact()

    def first(self) -> tuple[float, T] | None:
        """The lowest priority and its item; None when empty."""
        while self._heap:
            priority, number, item = self._heap[0]
            if self._live.get(item) == (priority, number):
                return priority, item
            heapq.heappop(self._heap)
        return None

    def pop(self) -> T:
        """Take the item of the lowest priority. Raises `IndexError` when empty."""
        found = self.first()
        if found is None:
            raise IndexError("pop from an empty LazyHeap")
        heapq.heappop(self._heap)
        del self._live[found[1]]
        return found[1]

    def smallest(self, count: int) -> list[T]:
        """The items of the lowest priorities, in order. O(count log n)."""
        entries: list[tuple[float, int, T]] = []
        while len(entries) < count and self.first() is not None:
            entries.append(heapq.heappop(self._heap))
        for entry in entries:
            heapq.heappush(self._heap, entry)
        return [item for _, _, item in entries]

    def _compact(self) -> None:
        self._heap = [(*entry, item) for item, entry in self._live.items()]
        heapq.heapify(self._heap)
