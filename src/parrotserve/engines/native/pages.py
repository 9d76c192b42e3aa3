"""The pool of KV pages: which pages are free, and how many references each page has."""

import heapq
from collections.abc import Iterable


class PagePool:
    """Page numbers 0 to `total` - 1, handed out lowest first, so that tables tend to be runs of neighbours.

    A page without references is either on the free heap or cached; `drop` leaves that decision to the pool's owner.
    """

    __slots__ = ("_free", "references", "total")

    def __init__(self, total: int) -> None:
        if total < 1:
            raise ValueError(f"A cache of {total} pages can hold nothing: give it at least one.")
        self.total = total
        self.references = [0] * total
        self._free = list(range(total))

    @property
    def free(self) -> int:
        """How many pages are free."""
        return len(self._free)

    def free_pages(self) -> frozenset[int]:
        return frozenset(self._free)

    def take(self, count: int) -> list[int]:
        """Takes `count` free pages, with one reference each. The caller has made sure that there are as many."""
        pages = [heapq.heappop(self._free) for _ in range(count)]
        for page in pages:
            self.references[page] = 1
        return pages

    def put_back(self, pages: Iterable[int]) -> None:
        """Makes pages free again that have no reference and hold nothing."""
        for page in pages:
            heapq.heappush(self._free, page)

    def drop(self, page: int) -> bool:
        """Takes one reference away; returns whether it was the last."""
        if self.references[page] < 1:
            raise ValueError(f"Page {page} is given back, but nobody holds it.")
        self.references[page] -= 1
        return self.references[page] == 0
