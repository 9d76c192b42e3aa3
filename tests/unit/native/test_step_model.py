"""The engine's model of what steps take, and the bound that follows from it."""

import math
import random
from collections.abc import Iterator

import pytest

from parrotserve.bounds import SLOWDOWN
from parrotserve.engines.native.pace import Pace, StepModel
from parrotserve.engines.native.timing import StepShape
from parrotserve.step_cost import FEW_ROWS


def true_seconds(step: StepShape, speed: float = 1.0) -> float:
    computing = 0.0003 * step.prefill_tokens + 0.0002 * step.decode_rows + 1e-7 * step.attended
    return math.hypot(0.006, computing) / speed


def steps(count: int, *, prefill: bool = True, seed: int = 0) -> Iterator[StepShape]:
    generator = random.Random(seed)
    for _ in range(count):
        rows, tokens = generator.randint(1, 64), generator.choice([0, 64, 512]) if prefill else 0
        yield StepShape(
            prefill_tokens=tokens, decode_rows=rows, attended=generator.randint(100, 2000) * (rows + tokens)
        )


# --- The model ----------------------------------------------------------------------------------------------


def test_the_model_learns_what_steps_take():
    model = StepModel()
    for step in steps(60):
        model.learn(step, true_seconds(step))
    for step in steps(20, seed=1):
        assert model.seconds(step) == pytest.approx(true_seconds(step), rel=0.1)


def test_what_has_not_been_seen_for_long_is_not_forgotten():
    model = StepModel()
    for step in [*steps(60), *steps(2000, prefill=False)]:
        model.learn(step, true_seconds(step))
    prompt = StepShape(prefill_tokens=512, attended=100_000)
    assert model.seconds(prompt) == pytest.approx(true_seconds(prompt), rel=0.2)


def test_the_model_follows_a_machine_that_becomes_slower():
    model = StepModel()
    for step in steps(100):
        model.learn(step, true_seconds(step))
    for step in steps(200, seed=1):
        model.learn(step, true_seconds(step, speed=0.5))
    step = StepShape(decode_rows=16, attended=16_000)
    assert model.seconds(step) == pytest.approx(true_seconds(step, speed=0.5), rel=0.1)


def test_nothing_is_ever_expected_to_save_time():
    model = StepModel()
    for rows, seconds in ((64, 0.01), (1, 0.02), (32, 0.005)) * 10:
        model.learn(StepShape(decode_rows=rows), seconds)
    rates = model.rates()
    assert min(rates.step, rates.prefill, rates.decode, rates.attend) >= 0


def test_what_one_sequence_takes_alone_is_measured_where_nearly_all_steps_are_full():
    """Steps of few rows read shorter weights here, but do not compute meanwhile: the model knows no such form."""
    model, generator = StepModel(), random.Random(1)
    for number in range(600):
        rows = 1 if number % 16 == 0 else generator.randint(4, 12)
        seconds = 0.0036 + 0.0009 * rows if rows <= FEW_ROWS else math.hypot(0.0066, 0.0009 * rows)
        model.learn(StepShape(decode_rows=rows), seconds)
    assert model.seconds(StepShape(decode_rows=1)) > 1.1 * 0.0045
    assert model.alone == pytest.approx(0.0045, rel=0.05)


def test_long_steps_do_not_drown_what_short_ones_take():
    """A machine whose steps take longer than in proportion to their rows, and are off by a tenth."""
    model, dice = StepModel(), random.Random(1)
    for place in range(120):
        if place % 4:
            model.learn(StepShape(decode_rows=3, attended=1500), 0.0105 * dice.uniform(0.9, 1.1))
        else:
            model.learn(StepShape(prefill_tokens=500, attended=125_000), 0.34 * dice.uniform(0.9, 1.1))
    assert model.seconds(StepShape(decode_rows=3, attended=1500)) == pytest.approx(0.0105, rel=0.1)


# --- The bound ----------------------------------------------------------------------------------------------


def test_the_bound_is_some_times_what_one_sequence_takes_alone():
    pace = Pace()
    assert pace.bound == math.inf
    for step in steps(60):
        pace.learn(step, true_seconds(step))
    assert pace.bound == pytest.approx(SLOWDOWN * 0.006, rel=0.1)


def test_without_a_bound_it_is_still_known_what_rows_cost():
    pace = Pace(adapt=False)
    for step in steps(60):
        pace.learn(step, true_seconds(step))
    assert pace.bound == math.inf
    assert pace.model.rates().decode == pytest.approx(0.0002, rel=0.2)


def test_the_bound_can_be_set_and_turned_off():
    assert Pace(tpot=0.05).bound == 0.05
    assert Pace(tpot=0.05, adapt=False).bound == math.inf
