"""Acting once, a moment after the last of a burst."""

from fake_time import FakeTime
from hypothesis import given
from hypothesis import strategies as st

from parrotserve.sdk.debounce import Debounce


def debounced() -> tuple[FakeTime, Debounce, list[float]]:
    time, acted = FakeTime(), list[float]()
    debounce = Debounce(seconds=5, act=lambda: acted.append(time.now()), timer=time)
    return time, debounce, acted


def test_it_acts_after_the_last_poke_not_the_first():
    time, debounce, acted = debounced()
    for _ in range(4):
        debounce.poke()
        time.advance(3)
    assert acted == []
    time.advance(2)
    assert acted == [14]


def test_a_burst_arms_one_timer():
    time, debounce, _ = debounced()
    for _ in range(100):
        debounce.poke()
    assert len(time.timers) == 1


def test_it_can_be_poked_again():
    time, debounce, acted = debounced()
    debounce.poke()
    time.advance(20)
    debounce.poke()
    time.advance(20)
    assert acted == [5, 25]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=20))
def test_it_acts_once_for_every_pause_of_at_least_its_length(gaps: list[int]):
    time, debounce, acted = debounced()
    expected: list[float] = []
    for gap in gaps:
        debounce.poke()
        if gap >= 5:
            expected.append(time.now() + 5)
        time.advance(gap)
    time.advance(100)
    last = sum(gaps[:-1]) + 5
    assert acted == sorted({*expected, last})
