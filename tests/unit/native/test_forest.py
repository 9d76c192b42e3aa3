"""The shared-prefix forest, and the batch that is built along it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrotserve.engines.native.backend import StepBatch
from parrotserve.engines.native.batch import SequenceRows, build_batch
from parrotserve.engines.native.forest import Forest, SharedRun, find_forest

PAGE = 4


def forest(*tables: list[int], min_saved_pages: float = 0) -> Forest:
    return find_forest(tables, [len(table) for table in tables], min_saved_pages=min_saved_pages)


class TestForest:
    def test_sequences_without_anything_in_common_stand_alone(self):
        assert forest([1, 2], [3, 4], []) == Forest(order=[2, 0, 1], shared=[], tails=[0, 0, 0])

    def test_a_prefix_of_two_is_one_run(self):
        assert forest([1, 2, 3], [1, 2, 4]) == Forest(order=[0, 1], shared=[SharedRun(0, 2, 0, 2)], tails=[2, 2])

    def test_sharers_become_neighbours(self):
        found = forest([1, 2], [7, 8], [1, 3], [7, 9])
        assert found.order == [0, 2, 1, 3]
        assert found.shared == [SharedRun(0, 2, 0, 1), SharedRun(2, 4, 0, 1)]

    def test_a_run_within_a_run_covers_only_what_is_new(self):
        found = forest([1, 2, 3, 4], [1, 2, 3, 5], [1, 6])
        assert found.shared == [SharedRun(0, 3, 0, 1), SharedRun(0, 2, 1, 3)]
        assert found.tails == [3, 3, 1]

    def test_a_sequence_that_ends_within_another_shares_all_it_has(self):
        found = forest([1, 2, 3, 4], [1, 2])
        assert found.shared == [SharedRun(0, 2, 0, 2)]
        assert found.tails == [2, 2]

    def test_chains_of_single_children_are_one_run(self):
        table = list(range(500))
        found = forest([*table, 1000], [*table, 1001])
        assert found.shared == [SharedRun(0, 2, 0, 500)]

    def test_pages_beyond_the_limit_are_not_shared(self):
        found = find_forest([[1, 2, 3], [1, 2, 3]], [1, 3], min_saved_pages=0)
        assert found.shared == [SharedRun(0, 2, 0, 1)]

    def test_a_run_that_saves_too_little_stays_with_its_sequences(self):
        assert forest([1, 2, 3], [1, 2, 4], min_saved_pages=1.25).shared == []
        assert forest([1, 2, 3], [1, 2, 4], [1, 2, 5], min_saved_pages=1.25).shared == [SharedRun(0, 3, 0, 2)]

    def test_what_was_not_worth_it_above_counts_below(self):
        found = forest([1, 2, 3, 4], [1, 2, 3, 5], [1, 6], min_saved_pages=1.25)
        assert found.shared == [SharedRun(0, 2, 0, 3)]
        assert found.tails == [3, 3, 0]

    def test_a_thousand_levels_are_no_trouble(self):
        # Sequence i leaves the common path after i pages: every level of the forest has one sequence less.
        found = forest(*[[*range(depth), 5000 + depth] for depth in range(1000)])
        assert len(found.shared) == 998
        assert found.shared[-1] == SharedRun(998, 1000, 997, 998)


@st.composite
def tables(draw: st.DrawFn) -> list[list[int]]:
    """Page tables as a radix tree gives them: a page number stands for the whole path to it."""
    texts = draw(st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=8))
    pages: dict[tuple[int, ...], int] = {}
    return [[pages.setdefault(tuple(text[: end + 1]), len(pages)) for end in range(len(text))] for text in texts]


@given(tables(), st.sampled_from([0.0, 0.5, 1.0, 1.5]), st.integers(1, 3))
def test_every_page_is_covered_once_and_as_its_own(found: list[list[int]], worth: float, align: int):
    result = find_forest(found, [len(table) for table in found], min_saved_pages=worth, align_pages=align)
    assert sorted(result.order) == list(range(len(found)))
    for place, sequence in enumerate(result.order):
        above = [run for run in result.shared if run.first <= place < run.last]
        covered = [index for run in sorted(above, key=lambda run: run.start) for index in range(run.start, run.stop)]
        assert covered == list(range(result.tails[sequence]))
    for run in result.shared:
        members = result.order[run.first : run.last]
        assert len({tuple(found[member][: run.stop]) for member in members}) == 1
        assert (len(members) - 1) * (run.stop - run.start) >= len(members) * worth
        assert run.start % align == run.stop % align == 0


@given(tables())
def test_nothing_shared_is_read_twice(found: list[list[int]]):
    result = forest(*found)
    read = sum(run.stop - run.start for run in result.shared)
    read += sum(len(table) - tail for table, tail in zip(found, result.tails, strict=True))
    assert read == len({page for table in found for page in table})


def rows(start: int, count: int, pages: list[int], *, want_logits: bool = True) -> SequenceRows:
    return SequenceRows(list(range(start, start + count)), start, pages, want_logits)


def span_list(batch: StepBatch) -> list[tuple[list[int], list[int], bool, list[int]]]:
    spans = batch.spans
    return [
        (
            spans.rows[index].tolist(),
            spans.keys[index].tolist(),
            bool(spans.causal[index]),
            spans.pages[spans.page_starts[index] : spans.page_starts[index + 1]].tolist(),
        )
        for index in range(len(spans.rows))
    ]


class TestBatch:
    def test_a_decode_row_attends_to_its_whole_sequence_itself_included(self):
        batch, order = build_batch([rows(9, 1, [5, 3, 7])], PAGE)
        assert order == [0]
        assert batch.positions.tolist() == [9]
        assert batch.slots.tolist() == [7 * PAGE + 1]
        assert batch.logit_rows.tolist() == [0]
        assert span_list(batch) == [([0, 1], [0, 10], True, [5, 3, 7])]

    def test_a_chunk_that_crosses_pages_writes_to_each(self):
        batch, _ = build_batch([rows(3, 6, [5, 3, 7])], PAGE)
        assert batch.slots.tolist() == [23, 12, 13, 14, 15, 28]

    def test_pages_beyond_the_last_row_are_left_out(self):
        batch, _ = build_batch([rows(0, 4, [5, 3, 7])], PAGE)
        assert span_list(batch) == [([0, 4], [0, 4], True, [5])]

    def test_sharers_get_a_span_over_their_common_pages(self):
        batch, order = build_batch(
            [rows(9, 1, [1, 2, 3]), rows(8, 3, [1, 2, 4], want_logits=False), rows(2, 1, [9]), rows(5, 1, [1, 5])],
            PAGE,
            min_shared_tokens=1,
        )
        assert order == [2, 3, 0]
        assert span_list(batch) == [
            ([1, 6], [0, 4], False, [1]),
            ([2, 6], [4, 4], False, [2]),
            ([0, 1], [0, 3], True, [9]),
            ([1, 2], [4, 2], True, [5]),
            ([2, 3], [8, 2], True, [3]),
            ([3, 6], [8, 3], True, [4]),
        ]
        assert batch.logit_rows.tolist() == [0, 1, 2]

    def test_a_page_that_is_still_written_is_not_shared(self):
        batch, _ = build_batch([rows(6, 1, [1, 2]), rows(6, 1, [1, 3])], PAGE, min_shared_tokens=1)
        assert span_list(batch)[0] == ([0, 2], [0, 4], False, [1])

    def test_without_grouping_every_sequence_is_one_span(self):
        both = [rows(9, 1, [1, 2, 3]), rows(8, 3, [1, 2, 4])]
        batch, order = build_batch(both, PAGE, group=False)
        assert order == [0, 1]
        assert span_list(batch) == [([0, 1], [0, 10], True, [1, 2, 3]), ([1, 4], [0, 11], True, [1, 2, 4])]

    def test_sharing_too_little_is_not_worth_a_span(self):
        both = [rows(9, 1, [1, 2, 3]), rows(8, 3, [1, 2, 4])]
        batch, _ = build_batch(both, PAGE, min_shared_tokens=5)
        assert batch.spans.causal.tolist() == [True, True]
        batch, _ = build_batch(both, PAGE, min_shared_tokens=4)
        assert batch.spans.causal.tolist() == [False, True, True]

    def test_arrays_have_the_types_a_backend_reads(self):
        batch, _ = build_batch([rows(9, 1, [1, 2, 3]), rows(8, 3, [1, 2, 4])], PAGE, min_shared_tokens=1)
        spans = batch.spans
        arrays = (batch.tokens, batch.positions, batch.slots, batch.logit_rows)
        for array in (*arrays, spans.rows, spans.keys, spans.pages, spans.page_starts):
            assert array.dtype == np.int32
            assert array.flags.c_contiguous

    def test_a_table_too_short_for_its_rows_is_refused(self):
        with pytest.raises(ValueError, match="position 9 do not fit into 2 pages of 4 tokens"):
            build_batch([rows(8, 1, [1, 2])], PAGE)
