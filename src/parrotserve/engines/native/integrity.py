"""The invariants of the KV cache, executable."""

from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from parrotserve.engines.native.pages import PagePool
from parrotserve.engines.native.radix import Node, RadixTree


def check_pages(pool: PagePool, *, cached: AbstractSet[int]) -> None:
    """Checks that every page is either free, or cached in the tree, or held; `cached` are the pages in the tree."""
    free = pool.free_pages()
    assert len(free) == pool.free, "a page is on the free heap twice"
    assert not free & cached, f"pages {sorted(free & cached)} are free and in the tree"
    for page, references in enumerate(pool.references):
        assert references >= 0, f"page {page} has {references} references"
        if page in free:
            assert references == 0, f"page {page} is free but has {references} references"
        elif page not in cached:
            assert references > 0, f"page {page} is lost: neither free, nor cached, nor held"


def check_tree(tree: RadixTree, pool: PagePool, retained: Mapping[str, Node]) -> None:
    """Checks that links, residency, holds, retention and queues agree with each other and with page references."""
    expected = Counter(step for node in retained.values() for step in tree.path(node))
    queued = {**_positions(tree, retained=False), **_positions(tree, retained=True)}
    assert len(queued) == tree.evictable, "a node is in both eviction queues"
    for node in tree.nodes():
        assert node.parent is not None
        assert node.parent.children.get(node.edge) is node, f"node at depth {node.depth} is not its parent's child"
        assert node.depth == node.parent.depth + 1, f"depth {node.depth} below {node.parent.depth}"
        assert node.retained == expected[node], f"retained {node.retained} times, {expected[node]} keys name it"
        if node.page is None:
            _check_place(node)
        else:
            _check_resident(node, tree, pool)
        if node in queued:
            _check_order(node, queued)
    assert set(expected) <= set(tree.nodes()), "a retained node is out of the tree"


def _positions(tree: RadixTree, *, retained: bool) -> dict[Node, int]:
    return {node: place for place, node in enumerate(tree.retained if retained else tree.ordinary)}


def _check_place(node: Node) -> None:
    assert node.holds == 0, f"node without a page is held {node.holds} times"
    assert node.children or node.retained, f"useless node at depth {node.depth}"
    if node.depth > 0:
        assert node.retained, f"node at depth {node.depth} has neither a page nor a reason"
        assert all(child.page is None for child in node.children.values()), "a page is resident, the one before not"


def _check_resident(node: Node, tree: RadixTree, pool: PagePool) -> None:
    page = node.page
    assert page is not None
    assert tree.node_of(page) is node, f"page {page} is at two nodes"
    tokens = len(node.edge) - isinstance(node.edge[-1], str)
    assert tokens == tree.page_tokens, f"page {page} has {tokens} tokens"
    children = sum(child.holds > 0 for child in node.children.values())
    holds = children + (pool.references[page] > 0)
    assert node.holds == holds, f"page {page} is held {node.holds} times, should be {holds}"
    here, other = (tree.retained, tree.ordinary) if node.retained else (tree.ordinary, tree.retained)
    assert (node in here) == (holds == 0), f"page {page}, held {holds} times, is {'' if node in here else 'not '}queued"
    assert node not in other, f"page {page} is in the wrong eviction queue"


def _check_order(node: Node, queued: Mapping[Node, int]) -> None:
    for child in node.children.values():
        if child.page is not None and bool(child.retained) == bool(node.retained):
            assert queued[child] < queued[node], f"page {node.page} would be evicted before its child {child.page}"
