"""The cost model finds what steps cost, follows changes, and never predicts nonsense."""

import dataclasses
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrotserve.step_cost import FEW_ROWS, Rates, StepCost, Work

TRUE = {"steps": 0.004, "prefill_tokens": 0.0002, "decode_rows": 0.0008, "kv_tokens": 3e-7, "attended": 2e-8}


def took(work: Work, costs: dict[str, float]) -> float:
    parts = {name: cost * getattr(work, name) for name, cost in costs.items()}
    return math.hypot(parts.pop("steps"), sum(parts.values()))


def some_work(dice: random.Random) -> Work:
    steps = dice.randint(1, 3)
    prefill, rows = dice.choice([0, 0, 512 * steps]), dice.randint(1, 64) * steps
    kv = rows * dice.randint(100, 2000)
    return Work(steps, prefill, rows, kv, kv + prefill * 500)


def fitted(costs: dict[str, float], observations: int, cost: StepCost | None = None, noise: float = 0.0) -> StepCost:
    cost, dice = cost or StepCost(), random.Random(1)
    for _ in range(observations):
        work = some_work(dice)
        cost.observe(work, took(work, costs) * (1 + dice.uniform(-noise, noise)))
    return cost


def worst_error(cost: StepCost, costs: dict[str, float]) -> float:
    dice = random.Random(2)
    works = [some_work(dice) for _ in range(50)]
    return max(abs(cost.rates.seconds(work) / took(work, costs) - 1) for work in works)


def test_a_few_steps_are_enough_to_predict_the_next():
    assert worst_error(fitted(TRUE, 60), TRUE) < 0.1


START = [Work(1, 585, 0, 585, 57_330), Work(1, 390, 38, 1600, 45_831), Work(1, 0, 56, 1625, 11_241)]
START += [Work(1, 0, 40, 1665, 8057), *[Work(1, 0, 8, 1600, 1600)] * 10, Work(1, 0, 2, 420, 420)]
START += [
    *(Work(1, 512, 0, 512 * part, 131_000 * (2 * part - 1)) for part in (1, 2, 3, 4)),
    Work(1, 550, 2, 2700, 10**6),
]
"""What an engine's first steps may hold: a few short prompts and their outputs, then a long one."""


@pytest.mark.parametrize("speed", [0.2, 1.0, 5.0])
def test_the_first_steps_mislead_nobody(speed: float):
    costs = {name: cost / speed for name, cost in TRUE.items() if name != "attended"} | {"attended": 2e-7 / speed}
    cost, dice = StepCost(), random.Random(4)
    for number, work in enumerate(START):
        if number >= 3:
            assert 0.5 < cost.rates.seconds(work) / took(work, costs) < 2.0
        cost.observe(work, took(work, costs) * dice.choice([1.0, 1.1, 1.3]))
    for rows in (1, 2, 5, 12, 32):
        work = Work(1, 0, rows, 2100, rows * 2100)
        assert 0.5 < cost.rates.seconds(work) / took(work, costs) < 2.0


def test_noise_is_averaged_out():
    assert worst_error(fitted(TRUE, 400, noise=0.3), TRUE) < 0.15


def test_an_engine_that_becomes_slower_is_followed():
    slower = {name: 3 * value for name, value in TRUE.items()}
    cost = fitted(slower, 400, fitted(TRUE, 400))
    assert worst_error(cost, slower) < 0.15


def test_steps_of_one_kind_do_not_unlearn_what_the_others_cost():
    cost = fitted(TRUE, 200)
    for _ in range(20_000):
        work = Work(1, 0, 1, 500, 500)
        cost.observe(work, took(work, TRUE))
    assert worst_error(cost, TRUE) < 0.2


def test_a_new_engine_begins_with_what_another_one_has_learned():
    first = fitted(TRUE, 200)
    assert StepCost(first).rates.seconds(Work(1, 512, 8, 4000, 9000)) == pytest.approx(
        first.rates.seconds(Work(1, 512, 8, 4000, 9000))
    )


def test_rows_are_nearly_free_while_a_step_reads_and_cost_what_they_compute_beyond():
    rates = Rates(step=0.008, prefill=0.0006, decode=0.0008, read=0.0, attend=1e-7)
    one, four, many, more = (rates.seconds(Work(1, 0, rows, 0, 0)) for rows in (1, 4, 100, 110))
    assert four < 1.1 * one
    assert more - many == pytest.approx(10 * rates.decode, rel=0.01)


SPARED = 0.004
"""Seconds of reading that steps of few rows are spared."""


def fitted_where_few_rows_read_less() -> StepCost:
    cost, dice = StepCost(), random.Random(3)
    for _ in range(150):
        rows = dice.choice([1, 2, 5, 7, 8, 12, 30, 200])
        cost.observe(Work(1, 0, rows, 0, 0), few_rows_took(rows))
    return cost


def few_rows_took(rows: int) -> float:
    return math.hypot(0.008 - SPARED * (rows <= FEW_ROWS), 0.0008 * rows)


def test_few_rows_may_read_less():
    rates = fitted_where_few_rows_read_less().rates
    for rows in (1, 4, 7, 8, 20):
        assert rates.seconds(Work(1, 0, rows, 0, 0)) == pytest.approx(few_rows_took(rows), rel=0.1)


def test_where_no_step_of_few_rows_was_seen_they_are_taken_to_read_as_long():
    cost = StepCost()
    for rows in [8, 30, 200] * 50:
        cost.observe(Work(1, 0, rows, 0, 0), math.hypot(0.008, 0.0008 * rows))
    assert cost.rates.reading(1) == pytest.approx(cost.rates.step)


def test_a_short_step_has_room_for_few_rows_alone():
    rates = Rates(step=0.008, prefill=0.0006, decode=0.0008, read=0.0, attend=0.0, few=0.004)
    assert rates.room(0.005, row=0.0008) == pytest.approx(0.003)
    assert rates.room(0.0079, row=0.0008) == pytest.approx(FEW_ROWS * 0.0008)
    assert rates.room(0.0079) == pytest.approx(FEW_ROWS * 0.0006)
    assert rates.room(0.0125, row=0.0008) == pytest.approx(math.sqrt(0.0125**2 - 0.008**2))
    assert rates.seconds(Work(1, 0, 7, 0, 0)) < 0.007 < 0.01 < rates.seconds(Work(1, 0, 8, 0, 0))


def test_room_is_what_may_be_computed_in_a_step_of_some_length():
    rates = Rates(step=0.003, prefill=0.001, decode=0.001, read=0.0, attend=0.0)
    assert rates.room(0.005) == pytest.approx(0.004)
    assert rates.seconds(Work(1, 4, 0, 0, 0)) == pytest.approx(0.005)
    assert rates.room(0.002) == 0.0
    assert rates.room(math.inf) == math.inf


def test_what_seems_to_cost_nothing_is_found_again():
    """Memory that took no time, and then does."""
    cost = fitted({**TRUE, "steps": 0.0}, 400)
    assert worst_error(fitted(TRUE, 800, cost), TRUE) < 0.15


AMOUNTS = st.floats(0, 1e6)


@given(st.lists(st.tuples(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, st.floats(0, 1e3)), max_size=30))
def test_whatever_is_observed_predictions_are_finite_and_not_negative(observed: list[tuple[float, ...]]):
    cost = StepCost()
    for *amounts, seconds in observed:
        cost.observe(Work(1, *amounts), seconds)
    rates = cost.rates
    for value in (*dataclasses.astuple(rates), rates.seconds(Work(1, 1, 1, 1, 1))):
        assert 0 <= value < 1e9
