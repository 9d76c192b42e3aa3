"""The priority queue with removal, against a dictionary that is sorted each time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrotserve.graph.lazy_heap import LazyHeap

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 9), st.integers(0, 5)),
        st.tuples(st.just("discard"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("pop"), st.just(0), st.just(0)),
    ),
    max_size=200,
)


@given(STEPS)
def test_it_behaves_as_a_sorted_dictionary(steps: list[tuple[str, int, int]]):
    heap: LazyHeap[int] = LazyHeap()
    model: dict[int, tuple[int, int]] = {}
    for number, (what, item, priority) in enumerate(steps):
        if what == "put":
            heap.put(item, priority)
            model[item] = (priority, number)
        elif what == "discard":
            heap.discard(item)
            model.pop(item, None)
        elif model:
            expected = min(model, key=lambda one: model[one])
            del model[expected]
            assert heap.pop() == expected
        first = min(model, key=lambda one: model[one], default=None)
        assert heap.first() == (None if first is None else (model[first][0], first))
        assert (len(heap), set(heap)) == (len(model), set(model))
        assert all((one in heap) == (one in model) for one in range(10))


def test_an_empty_one_has_nothing_to_pop():
    with pytest.raises(IndexError, match="empty"):
        LazyHeap[int]().pop()


def test_items_that_are_moved_and_removed_leave_nothing_behind():
    class Item:
        """Hashable, and counted while it lives."""

    heap: LazyHeap[object] = LazyHeap()
    kept = Item()
    for number in range(10_000):
        heap.put(kept, number)
        passing = Item()
        heap.put(passing, 0)
        heap.discard(passing)
    assert len(heap) == 1
    assert len(heap._heap) <= 40
    heap.discard(kept)
    assert heap._heap == []
