"""When an engine is taken for one that hangs."""

from parrotserve.engines.base import Heartbeat
from parrotserve.engines.pulse import Pulse

IDLE = Heartbeat(running=0, steps=7)
BUSY = Heartbeat(running=1, steps=7)


def pulse() -> Pulse:
    return Pulse(heartbeat=1.0, stuck_after=5.0, missed=3)


def test_three_looks_without_a_sign_are_too_many():
    watched = pulse()
    assert [watched.look(IDLE, alive=False) for _ in range(3)] == [None, None, "3 heartbeats in a row did not come"]


def test_any_sign_of_life_begins_the_count_anew():
    watched = pulse()
    for _ in range(3):
        assert [watched.look(IDLE, alive=alive) for alive in (False, False, True)] == [None] * 3


def test_work_without_a_step_is_too_long_once_it_has_been_seen_for_as_long():
    watched = pulse()
    told = [watched.look(BUSY, alive=True) for _ in range(6)]
    assert told == [None] * 5 + ["a step took more than 5 s"]


def test_a_step_or_a_rest_ends_being_stuck():
    watched = pulse()
    for beat in (BUSY, IDLE, BUSY, Heartbeat(running=1, steps=8)):
        assert [watched.look(beat, alive=True) for _ in range(4)] == [None] * 4


def test_an_engine_that_rests_may_do_so_for_ever():
    watched = pulse()
    assert {watched.look(IDLE, alive=True) for _ in range(100)} == {None}


def test_what_an_engine_could_not_tell_is_not_held_against_it():
    watched = pulse()
    for _ in range(3):
        assert [watched.look(BUSY, alive=False) for _ in range(2)] == [None, None]
        watched.excuse()
