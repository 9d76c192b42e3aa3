"""The KV cache's bookkeeping: which page holds which tokens, who holds it, and what goes first when room is short.

Pages are shared whole. A prefix that ends inside a page shares the full pages before it; the partly equal page is
computed again by each sequence into a page of its own, so a page is never written while somebody else reads it.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from parrotserve.engines.native.integrity import check_pages, check_tree
from parrotserve.engines.native.pages import PagePool
from parrotserve.engines.native.radix import Node, RadixTree, public_tokens
from parrotserve.engines.native.settings import PAGE_TOKENS


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Where the pages are: total = free + used + cached."""

    total: int
    free: int
    used: int
    """Held by sequences."""
    cached: int
    """Held by no sequence, but kept so that later ones can share them; evictable."""
    retained: int
    """Cached pages that are evicted last because of `retain`."""


class PageCache(ABC):
    """The interface of a cache to the engine loop. `tokens` always begin at the sequence's first token.

    A caller's *table* is the list of pages that hold its tokens, in order; it has one reference on each. Equal tokens
    are shared under equal salts; the public tokens of a `Salt`, as far as they fill pages, are shared by all.
    """

    def __init__(self, pages: int, page_tokens: int = PAGE_TOKENS) -> None:
        if page_tokens < 1:
            raise ValueError(f"page_tokens={page_tokens}: a page holds at least one token.")
        self.page_tokens = page_tokens
        self._pool = PagePool(pages)

    @abstractmethod
    def acquire(self, salt: str, tokens: Sequence[int], held: Sequence[int] = ()) -> list[int]:
        """The longest run of resident full pages that continues `held` (published pages of the caller; usually
        none) along `tokens`. Takes a reference on each."""

    @abstractmethod
    def allocate(self, count: int) -> list[int] | None:
        """Takes pages to write to, with one reference each, evicting cached ones if need be, least recently used first.
        None if there are not as many; then nothing has changed."""

    @abstractmethod
    def publish(self, salt: str, tokens: Sequence[int], pages: Sequence[int]) -> list[int]:
        """Lets others share `pages`, which hold the KV of the full pages of `tokens`.

        Where an equal page is cached already, the caller's reference moves to that one, and its own is freed.
        Returns the caller's table after that, of the same length; pages beyond the last full one are returned as
        they are. Costs O(pages not published before), so calling it after every page is cheap.
        """

    @abstractmethod
    def free(self, pages: Sequence[int]) -> None:
        """Gives back one reference on each page. Without references, published pages stay cached, others are free."""

    def only_in(self, tables: Iterable[Sequence[int]]) -> set[int]:
        """The pages that only these tables hold: they become available once all of these tables are given back."""
        held = Counter(chain.from_iterable(tables))
        return {page for page, count in held.items() if self._pool.references[page] == count}

    @abstractmethod
    def retain(self, key: str, salt: str, tokens: Sequence[int]) -> None:
        """Evicts the full pages of this prefix, if they are resident or become so, only after all that are not
        retained. A key that names a prefix already names this one instead."""

    @abstractmethod
    def release(self, key: str) -> None:
        """Ends the `retain` of this key, if there is one."""

    @abstractmethod
    def available(self) -> int:
        """How many pages `allocate` could give now."""

    @abstractmethod
    def stats(self) -> CacheStats: ...

    @abstractmethod
    def check_integrity(self) -> None:
        """Raises AssertionError, saying what is wrong, if the bookkeeping is inconsistent. O(pages): for tests."""


class KvCache(PageCache):
    """Shares equal prefixes through a radix tree over (salt, full token pages)."""

    def __init__(self, pages: int, page_tokens: int = PAGE_TOKENS) -> None:
        super().__init__(pages, page_tokens)
        self._tree = RadixTree(pages, page_tokens)
        self._retained: dict[str, Node] = {}

    def acquire(self, salt: str, tokens: Sequence[int], held: Sequence[int] = ()) -> list[int]:
        public = public_tokens(salt) // self.page_tokens
        node = self._tree.node_of(held[-1]) if held else self._tree.find_top(salt, public)
        if node is None:
            return []
        pages = [found.page for found in self._tree.walk(node, tokens, salt, public) if found.page is not None]
        for page in pages:
            self._reference(page)
        return pages

    def allocate(self, count: int) -> list[int] | None:
        if count > self.available():
            return None
        missing = count - self._pool.free
        self._pool.put_back(self._tree.evict() for _ in range(missing))
        return self._pool.take(count)

    def publish(self, salt: str, tokens: Sequence[int], pages: Sequence[int]) -> list[int]:
        public = public_tokens(salt) // self.page_tokens
        table = list(pages)
        full = min(len(tokens) // self.page_tokens, len(table))
        node = self._last_published(table[:full]) or self._tree.top(salt, public)
        for index in range(node.depth, full):
            node = self._tree.child(node, self._tree.edge(tokens, index, salt, public))
            if node.page is None:
                self._tree.fill(node, table[index])
                self._tree.hold(node)
            else:
                self._reference(node.page)
                self._unreference(table[index])
                table[index] = node.page
        self._tree.prune(node)
        return table

    def free(self, pages: Sequence[int]) -> None:
        for page in pages:
            self._unreference(page)

    def retain(self, key: str, salt: str, tokens: Sequence[int]) -> None:
        self.release(key)
        public = public_tokens(salt) // self.page_tokens
        node = self._tree.top(salt, public)
        for index in range(len(tokens) // self.page_tokens):
            node = self._tree.child(node, self._tree.edge(tokens, index, salt, public))
        self._retained[key] = node
        self._count_retained(node, +1)

    def release(self, key: str) -> None:
        node = self._retained.pop(key, None)
        if node is not None:
            self._count_retained(node, -1)

    def available(self) -> int:
        return self._pool.free + self._tree.evictable

    def stats(self) -> CacheStats:
        free, cached = self._pool.free, self._tree.evictable
        return CacheStats(
            total=self._pool.total,
            free=free,
            used=self._pool.total - free - cached,
            cached=cached,
            retained=len(self._tree.retained),
        )

    def check_integrity(self) -> None:
        check_pages(self._pool, cached={node.page for node in self._tree.nodes() if node.page is not None})
        check_tree(self._tree, self._pool, self._retained)

    def _last_published(self, pages: Sequence[int]) -> Node | None:
        """The node of the last page that is in the tree: those before it are there too, on its path."""
        for index in range(len(pages) - 1, -1, -1):
            node = self._tree.node_of(pages[index])
            if node is not None:
                if node.depth != index + 1:
                    raise ValueError(f"Page {pages[index]} is published as number {node.depth - 1}, not {index}.")
                return node
        return None

    def _reference(self, page: int) -> None:
        self._pool.references[page] += 1
        if self._pool.references[page] == 1:
            self._tree.hold(self._tree.node_of(page))

    def _unreference(self, page: int) -> None:
        if not self._pool.drop(page):
            return
        node = self._tree.node_of(page)
        if node is None:
            self._pool.put_back([page])
        else:
            self._tree.unhold(node)

    def _count_retained(self, node: Node, change: int) -> None:
        # Holding the path meanwhile takes it out of the queues; it comes back, children first, into the right one.
        path = self._tree.path(node)
        resident = [step.page for step in path if step.page is not None]
        for page in reversed(resident):
            self._reference(page)
        for step in path:
            step.retained += change
        self.free(resident)
        self._tree.prune(node)


class NaiveCache(PageCache):
    """Shares nothing: the baseline against which sharing is measured."""

    def acquire(self, salt: str, tokens: Sequence[int], held: Sequence[int] = ()) -> list[int]:
        return []

    def allocate(self, count: int) -> list[int] | None:
        return None if count > self._pool.free else self._pool.take(count)

    def publish(self, salt: str, tokens: Sequence[int], pages: Sequence[int]) -> list[int]:
        return list(pages)

    def free(self, pages: Sequence[int]) -> None:
        self._pool.put_back([page for page in pages if self._pool.drop(page)])

    def retain(self, key: str, salt: str, tokens: Sequence[int]) -> None: ...

    def release(self, key: str) -> None: ...

    def available(self) -> int:
        return self._pool.free

    def stats(self) -> CacheStats:
        total, free = self._pool.total, self._pool.free
        return CacheStats(total=total, free=free, used=total - free, cached=0, retained=0)

    def check_integrity(self) -> None:
        check_pages(self._pool, cached=set())
