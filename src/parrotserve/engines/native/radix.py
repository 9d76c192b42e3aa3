"""A radix tree of KV pages: every edge is one full page of tokens, every path from a salt one prefix.

After "SGLang: Efficient Execution of Structured Language Model Programs" (Zheng et al., 2024), with one difference:
nodes are single pages, never longer runs, so nothing is ever split, and a page knows its node.

Two facts make every operation O(1) per page:

- A node is *held* while its page has references or a child is held. So nothing below an unheld node is held.
- A node enters an eviction queue when it stops being held, which is after its children did. So in a queue
  children come before their parents, the head is always a leaf, and the order is that of last use.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

Edge = tuple[int | str, ...] | str
"""The tokens of a page; at the top level, a salt.

A prefix whose first pages are public begins below the empty salt, with the tokens of these pages. The edge of the page
after them ends with the prefix's salt: everything below it belongs to that salt alone.
"""


class Salt(str):
    """Separates prefixes that may not share pages; the first `public` tokens of a prefix may be shared by everybody."""

    public: int

    def __new__(cls, salt: str, public: int = 0) -> "Salt":
        made = super().__new__(cls, salt)
        made.public = public
        return made


def public_tokens(salt: str) -> int:
    """How many first tokens of a prefix under this salt are public; none if it is a plain string."""
    return salt.public if isinstance(salt, Salt) else 0


@dataclass(slots=True, eq=False)
class Node:
    """One page of a prefix. A node without `page` is part of a retained prefix, or the top of a salt."""

    edge: Edge
    parent: "Node | None"
    depth: int
    """Pages of the prefix that ends here."""
    page: int | None = None
    children: dict[Edge, "Node"] = field(default_factory=dict[Edge, "Node"])
    holds: int = 0
    """Held children, plus one while the page has references."""
    retained: int = 0
    """Number of retained prefixes that pass through this node."""


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
        """The node above all prefixes under this salt, or above all whose first pages are public; made if need be."""
        return self.child(self.root, "" if public else salt)

    def child(self, node: Node, edge: Edge) -> Node:
        """The child over this edge, made (without a page) if need be."""
        child = node.children.get(edge)
        if child is None:
            child = node.children[edge] = Node(edge=edge, parent=node, depth=node.depth + 1)
        return child

    def edge(self, tokens: Sequence[int], index: int, salt: str = "", public: int = 0) -> tuple[int | str, ...]:
        """The edge to full page number `index` of a prefix whose first `public` pages are public."""
        page = tuple(tokens[index * self.page_tokens : (index + 1) * self.page_tokens])
        return (*page, salt) if public and index == public else page

    def walk(self, node: Node, tokens: Sequence[int], salt: str, public: int) -> Iterator[Node]:
        """The resident nodes below `node` along `tokens`, which are counted from the top of the salt."""
        for index in range(node.depth, len(tokens) // self.page_tokens):
            child = node.children.get(self.edge(tokens, index, salt, public))
            if child is None or child.page is None:
                return
            yield child
            node = child

    def fill(self, node: Node, page: int) -> None:
        """Makes a node resident, unheld for now. Its parent must be resident, or the top of a salt."""
        node.page = page
        self._node_of_page[page] = node
        self._queue(node)[node] = None

    def hold(self, node: Node | None) -> None:
        """Adds a hold, for the first reference to the node's page or for a child that is now held. A held node cannot
        be evicted."""
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
        """Evicts the least recently used leaf, retained prefixes last, and returns its page. There must be one."""
        node, _ = (self.ordinary or self.retained).popitem(last=False)
        page = node.page
        assert page is not None
        node.page = None
        self._node_of_page[page] = None
        self.prune(node)
        return page

    def prune(self, node: Node) -> None:
        """Removes a node if it is of no more use, and then its ancestors that only led to it."""
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
