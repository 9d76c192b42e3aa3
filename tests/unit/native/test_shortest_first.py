"""Short outputs go first where all who are waited for make steps long; the others end when they would anyhow."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
from timed_bench import Timed

from parrotserve.criteria import Objective
from parrotserve.engines.native.shortest_first import held_back
from parrotserve.step_cost import Rates

RATES = Rates(step=0.006, prefill=0.0, decode=0.0006, read=0.0, attend=0.0)
"""Ten rows compute for as long as a step reads."""


class Fake(SimpleNamespace):
    """A sequence that decodes."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def waiting(left: int, limit: int = 0, *, salt: str = "", streamed: bool = False, held: int = 0) -> Any:
    output = SimpleNamespace(left=left, limit=limit or left)
    return Fake(urgent=True, is_streamed=streamed, known=[0] * 100, salt=salt, output=output, held_steps=held)


# --- Who is held back ---------------------------------------------------------------------------------------


def test_up_to_where_rows_pay_all_go_on():
    assert held_back([waiting(left) for left in range(1, 11)], RATES) == set()


@pytest.mark.parametrize(("count", "width"), [(11, 10), (23, 13), (40, 16), (90, 21)])
def test_of_more_as_many_go_on_as_make_the_mean_time_least(count: int, width: int):
    sequences = [waiting(left) for left in range(count, 0, -1)]
    assert held_back(sequences, RATES) == set(sequences[: count - width])


def test_those_that_may_become_equally_long_go_on_together():
    begun, fresh = [waiting(10, 50) for _ in range(20)], [waiting(50, 50) for _ in range(20)]
    assert held_back([*begun, *fresh], RATES) == set()


def test_one_that_is_nearly_done_goes_on_however_long_it_was():
    begun, longer = waiting(5, 500), waiting(300, 300)
    assert held_back([begun, longer, *(waiting(20) for _ in range(38))], RATES) == {longer}


def test_none_is_held_longer_than_it_takes():
    shorter = [waiting(20) for _ in range(39)]
    assert held_back([*shorter, waiting(100, held=99)], RATES) != set()
    assert held_back([*shorter, waiting(100, held=100)], RATES) == set()


def test_whoever_is_read_along_goes_on_and_makes_room_for_more():
    streams = [waiting(1000, streamed=True) for _ in range(30)]
    assert held_back([*streams, *(waiting(left) for left in range(1, 31))], RATES) == set()
    assert held_back([waiting(left) for left in range(1, 31)], RATES) != set()


@pytest.mark.parametrize("streams", [0, 2, 8, 20])
def test_what_others_compute_is_part_of_the_step(streams: int):
    def mean_time(width: int) -> float:
        return math.hypot(RATES.step, RATES.decode * (streams + width)) * (40 / width + 1)

    others = [waiting(left) for left in range(40)]
    held = held_back([*(waiting(1000, streamed=True) for _ in range(streams)), *others], RATES)
    assert len(others) - len(held) == min(range(1, 41), key=mean_time)


def test_where_a_step_reads_nothing_they_go_on_one_by_one():
    sequences = [waiting(left) for left in range(9, 0, -1)]
    assert held_back(sequences, Rates(0.0, 0.0, 0.0006, 0.0, 0.0)) == set(sequences[:8])


def test_tenants_keep_their_share_of_the_rows():
    few, many = (
        [waiting(500 + left, salt="few") for left in range(10)],
        [waiting(left, salt="many") for left in range(30)],
    )
    held = held_back([*few, *many], RATES)
    assert (len(held & set(few)), len(held & set(many))) == (6, 18)


def test_where_nothing_is_known_of_what_a_row_costs_all_go_on():
    assert held_back([waiting(left) for left in range(1, 90)], Rates(0.006, 0, 0, 0, 0)) == set()


# --- What comes of it, in an engine whose steps read for 5 ms and compute for 0.2 ms a row ------------------------


def served(*, long: int = 20, short: int = 40, stream: bool = False, **settings: object) -> Timed:
    """Outputs of 200 tokens and, asked for after them, of 20."""
    bench = Timed(max_running=64, **settings)
    bench.warm_up()
    bench.time = 0.0
    for number in range(long):
        bench.work(f"long {number}", objective=Objective.LATENCY, tokens=200, place=1, stream=stream)
    for number in range(short):
        bench.work(f"short {number}", objective=Objective.LATENCY, tokens=20, place=1, stream=stream)
    bench.run()
    return bench


def test_short_outputs_end_earlier_and_long_ones_hardly_later():
    narrow, wide = served(), served(adapt=False)
    assert narrow.ended_at("short") < 0.85 * wide.ended_at("short")
    assert narrow.ended_at("long") < 1.05 * wide.ended_at("long")


def test_a_stream_never_pauses_for_a_shorter_one():
    bench = served(stream=True)
    longest_step = max(len(batch.tokens) for batch in bench.backend.steps)
    assert max(bench.gaps("long 0")[1:]) <= math.hypot(0.005, 0.0002 * longest_step) + 1e-9


def test_everybody_gets_the_same_text():
    narrow, wide = served(), served(adapt=False)
    assert all(narrow.text(name) == wide.text(name) != "" for name in wide.ends)


def test_with_hardly_any_pages_all_end_as_well():
    assert len(served(long=30, short=30, pages=70).ends) == 64
