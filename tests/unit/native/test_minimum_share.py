"""The minimum share of throughput work: what it is owed, and when it starves."""

import tracemalloc

import pytest

from parrotserve.engines.native.minimum_share import MinimumShare


def test_throughput_work_is_owed_what_it_lacks_of_its_share():
    share = MinimumShare(0.1, window=10.0)
    assert share.owed(0.0, 40) == 0
    share.note(1.0, got=5, others=95)
    assert share.owed(1.0, 40) == 4
    share.note(2.0, got=6, others=0)
    assert share.owed(2.0, 40) == 0
    share.note(3.0, got=0, others=100)
    assert share.owed(12.5, 40) == 4
    assert share.owed(13.5, 40) == 0  # all is forgotten


@pytest.mark.parametrize("seconds", [0.1, 3.0])
def test_throughput_work_starves_when_others_have_decoded_alone_for_nearly_the_window(seconds: float):
    share, now = MinimumShare(0.1, window=10.0), 5.0
    share.note(1.0, got=0, others=0)  # a prompt
    while now < 13.9:
        share.note(now, got=0, others=1)
        assert not share.starves(13.9)
        now += seconds
    assert share.starves(14.0)
    share.note(14.5, got=1, others=0)
    assert not share.starves(14.5)


def test_who_finds_no_room_lets_later_ones_go_in_its_stead_for_nearly_the_window():
    share = MinimumShare(0.1, window=10.0)
    for now in range(9):
        assert not share.keep_out(1, float(now))
    share.let_in(2)
    assert share.keep_out(1, 9.0)
    share.let_in(1)
    assert not share.keep_out(1, 9.0)
    assert not share.keep_out(2, 18.0)


def test_nobody_starves_after_a_rest():
    share = MinimumShare(0.1, window=10.0)
    share.note(1.0, got=0, others=1)
    assert not share.starves(30.0)
    share.note(30.0, got=0, others=1)
    assert not share.starves(30.0)


def test_what_is_owed_is_not_forgotten_while_a_prompt_is_read():
    share, now = MinimumShare(0.1, window=10.0), 0.0
    for _ in range(10):
        share.note(now := now + 1.0, got=0, others=1)
    for _ in range(5):  # a long prompt
        share.note(now := now + 4.0, got=0, others=0, seconds=4.0)
        assert share.starves(now)
        assert share.owed(now, 10) == 1
    share.note(now := now + 1.0, got=1, others=0)
    assert not share.starves(now)
    assert share.owed(now, 10) == 0


def test_steps_of_work_of_one_kind_are_forgotten_too_once_their_time_is_over():
    share = MinimumShare(0.1, window=10.0)
    tracemalloc.start()
    for now in range(20_000):
        share.note(float(now), got=0, others=1000)  # nobody asks, for nobody can be owed anything
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100_000
