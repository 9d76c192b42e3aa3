"""A radix tree of KV pages: every edge is one full page of tokens, every path from a salt one prefix.

After "SGLang: Efficient Execution of Structured Language Model Programs" (Zheng et al., 2024), with one difference:
nodes are single pages, never longer runs, so nothing is ever split, and a page knows its node.

Two facts make every operation O(1) a page:

- A node is *held* while its page has references or a child is held. So nothing below an unheld node is held.
- A node enters an eviction queue when it stops being held, which is after its children did. So in a queue
  children come before their parents, the head is always a leaf, and the order is that of last use.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

Edge = tuple[int | str, ...] | str
"""The tokens of a page; the salt at the top level.

A prefix whose first pages are public goes from the empty salt's top over their tokens, and the page after them has the
salt at the end of its edge: all that is below it is that salt's own.
"""


class Salt(str):
    """What separates prefixes that may not share, and how many of a prefix's first tokens everybody may."""

    public: int

    def __new__(cls, salt: str, public: int = 0) -> "Salt":
        made = super().__new__(cls, salt)
        made.public = public
        return made


def public_tokens(salt: str) -> int:
    """How many first tokens of prefixes under it are public: none under a plain text."""
    return salt.public if isinstance(salt, Salt) else 0


@dataclass(slots=True, eq=False)
class Node:
    """One page-long step of a prefix. Without `page` it is a place kept by retention, or the top of a salt."""

    edge: Edge
    parent: "Node | None"
    depth: int
    """Pages of the prefix that ends here."""
    page: int | None = None
    children: dict[Edge, "Node"] = field(default_factory=dict[Edge, "Node"])
    holds: int = 0
    """Held children, plus one while the page has references."""
    retained: int = 0
    """Retained prefixes that run through here."""


class RadixTree:
    """The tree, and its unheld nodes in the order in which they may be evicted."""

    __slots__ = ("_node_of_page", "ordinary", "page_tokens", "retained", "root")

    def __init__(self, pages: int, page_tokens: int) -> None:
        self.page_tokens = page_tokens
        self.root = Node(edge="", parent=None, depth=-1)
        self.ordinary: OrderedDict[Node, None] = OrderedDict()
        self.retained: OrderedDict[Node, None] = OrderedDict()
        self._node_of_page: list[Node | None] = [None] * pages

    @property
    def evictable(self) -> int:
        return len(self.ordinary) + len(self.retained)

    def node_of(self, page: int) -> Node | None:
        return self._node_of_page[page]

    def find_top(self, salt: str, public: int) -> Node | None:
        return self.root.children.get("" if public else salt)

    def top(self, salt: str, public: int = 0) -> Node:
        """The node above all prefixes under this salt, or of any whose first pages are public, made if need be."""
        return self.child(self.root, "" if public else salt)

    def child(self, node: Node, edge: Edge) -> Node:
        """The child over this edge, made (without a page) if need be."""
        child = node.children.get(edge)
        if child is None:
            child = node.children[edge] = Node(edge=edge, parent=node, depth=node.depth + 1)
        return child

    def edge(self, tokens: Sequence[int], index: int, salt: str = "", public: int = 0) -> tuple[int | str, ...]:
        """What leads to full page number `index` of a prefix whose first `public` pages are public."""
        page = tuple(tokens[index * self.page_tokens : (index + 1) * self.page_tokens])
        return (*page, salt) if public and index == public else page

    def walk(self, node: Node, tokens: Sequence[int], salt: str, public: int) -> Iterator[Node]:
        """The resident nodes below `node` that spell `tokens`, which begin at the top of its salt."""
        for index in range(node.depth, len(tokens) // self.page_tokens):
            child = node.children.get(self.edge(tokens, index, salt, public))
            if child is None or child.page is None:
                return
            yield child
            node = child

    def fill(self, node: Node, page: int) -> None:
        """A node becomes resident, unheld for now. Its parent is resident already."""
        node.page = page
        self._node_of_page[page] = node
        self._queue(node)[node] = None

    def hold(self, node: Node | None) -> None:
        """The node's page got its first reference, or a first child is held: it cannot be evicted any more."""
        while node is not None and node.page is not None:
            node.holds += 1
            if node.holds > 1:
                return
            del self._queue(node)[node]
            node = node.parent

    def unhold(self, node: Node | None) -> None:
        """The reverse of `hold`."""
        while node is not None and node.page is not None:
            node.holds -= 1
            if node.holds:
                return
            self._queue(node)[node] = None
            node = node.parent

    def evict(self) -> int:
        """Takes the page of the least recently used leaf, retained prefixes last. There is an evictable one."""
        node, _ = (self.ordinary or self.retained).popitem(last=False)
        page = node.page
        assert page is not None
        node.page = None
        self._node_of_page[page] = None
        self.prune(node)
        return page

    def prune(self, node: Node) -> None:
        """Forgets a node that is of no use any more, and what only led to it."""
        while node.parent is not None and node.page is None and not node.children and not node.retained:
            del node.parent.children[node.edge]
            node = node.parent

    def path(self, node: Node) -> list[Node]:
        """The nodes of the prefix that ends at `node`, deepest first, the top of its salt included."""
        nodes: list[Node] = []
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes

    def nodes(self) -> Iterator[Node]:
        """Every node but the root."""
        stack = list(self.root.children.values())
        while stack:
            node = stack.pop()
            stack.extend(node.children.values())
            yield node

    def _queue(self, node: Node) -> OrderedDict[Node, None]:
        return self.retained if node.retained else self.ordinary
