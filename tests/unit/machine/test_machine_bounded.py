"""An event that lets very many requests run takes in a part of them; what follows takes in the rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine_world import World, asked, only, value_set
from test_machine_cost import lines_of

from parrotserve.graph.decisions import OpenSequence
from parrotserve.graph.events import Continued, Waited
from parrotserve.ids import SessionId, TenantId


def readers(count: int, *, at_once: int, places: int = 4, tenant: str = "t") -> World:
    """So many requests wait for one document."""
    world = World("e", places=places, check=False, at_once=at_once)
    world.submit(*(f"r{number}: doc -> x{number}" for number in range(count)), tenant=tenant)
    return world


def test_the_rest_goes_on_by_itself_event_by_event():
    world = readers(10, at_once=3, places=100)
    assert len(only(world.set("doc"), OpenSequence)) == 3
    opened = list[int]()
    while world.machine.unfinished:
        opened.append(len(only(world.handle(Continued()), OpenSequence)))
        world.machine.check_integrity()
    assert opened == [3, 3, 1]
    assert world.handle(Continued()) == [], "where nothing is left, nothing happens"


def test_who_brings_little_does_not_wait_behind_who_brought_much():
    world = readers(100, at_once=3, places=100, tenant="much")
    world.handle(value_set("doc", tenant="much"))
    (opened,) = [one.request for one in only(world.submit("small: -> y", session="s2", tenant="other"), OpenSequence)
                 if one.request == "small"]  # fmt: skip
    assert opened == "small"
    assert world.machine.unfinished


def test_who_asks_for_much_that_is_queued_has_it_ranked_event_by_event():
    world = World(at_once=3)
    names = [f"x{number}" for number in range(10)]
    world.submit(*(f"r{number}: -> {name}" for number, name in enumerate(names)))
    while world.machine.unfinished:
        world.handle(Continued())
    world.handle(Waited(session=SessionId("s"), tenant=TenantId("t"), waits=tuple(map(asked, names))))
    events = 0
    while world.machine.unfinished:
        world.handle(Continued())
        events += 1
    assert events == 3
    assert set(world.objectives().values()) == {"latency"}
    assert [one.request for one in only(world.join("e", places=100), OpenSequence)] == [f"r{n}" for n in range(10)]


def test_what_ends_before_it_was_taken_in_is_not_run():
    world = readers(10, at_once=3, places=100)
    world.set("doc")
    world.cancel("x9")
    world.end_session()
    world.machine.check_integrity()
    assert not world.machine.unfinished
    assert world.waiting() == 0


def test_an_event_costs_the_same_whether_a_thousand_or_three_thousand_can_run():
    few, many = (lines_of(lambda one: one.set("doc"), readers(size, at_once=50)) for size in (1000, 3000))
    (whole,) = (lines_of(lambda one: one.set("doc"), readers(size, at_once=5000)) for size in (1000,))
    marking = (many - few) / 2000
    assert marking < 30, "that a request can run is noted at once, which is little"
    assert whole / 1000 > 5 * marking, "the bound is on what is much"


GRAPHS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6), st.booleans()), min_size=1, max_size=5)
"""Stages: which value of the last stage they read, how many requests they have, and whether somebody waits for them."""


@given(stages=GRAPHS, at_once=st.integers(1, 4), places=st.integers(1, 5))
def test_in_the_end_it_is_as_if_everything_had_been_taken_in_at_once(
    stages: list[tuple[int, int, bool]], at_once: int, places: int
):
    assert outcome(stages, at_once, places) == outcome(stages, 1000, places)


def outcome(stages: list[tuple[int, int, bool]], at_once: int, places: int) -> dict[str, str]:
    """The states that everything ends in; every request ran once."""
    world = World("e", "f", places=places, at_once=at_once)
    lines, waits, last = list[str](), list[str](), ["v"]
    for stage, (reads, count, awaited) in enumerate(stages):
        source = last[reads % len(last)]
        last = [f"v{stage}.{number}" for number in range(count)]
        lines += [f"r{stage}.{number}: {source} -> {name}" for number, name in enumerate(last)]
        waits += last if awaited else []
    decisions = [*world.submit(*lines, waits=waits), *world.set("v")]
    ran = list[str]()
    while decisions or world.machine.unfinished:
        opened = [one.request for one in only(decisions, OpenSequence) if not one.ahead]
        ran += opened
        decisions = [*world.handle(Continued()), *(one for name in opened for one in world.run(name))]
    assert sorted(ran) == sorted(line.partition(":")[0] for line in lines)
    return world.states()


@pytest.mark.parametrize("at_once", [1, 2, 1000])
def test_requests_of_a_lost_engine_come_back_whatever_is_left_to_take_in(at_once: int):
    world = readers(6, at_once=at_once, places=3)
    world.set("doc")
    world.lose("e")
    world.machine.check_integrity()
    world.join("f", places=100)
    while world.machine.unfinished:
        world.handle(Continued())
    world.machine.check_integrity()
    assert sum(one.aboard for one in world.machine.graph.requests.values()) == 6
