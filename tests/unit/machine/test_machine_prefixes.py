"""Requests that begin alike: placed together and where their beginning is resident, which is retained for them."""

from machine_world import World, only
from placing import CODE, POEM, asking, by, places, two_engines

from parrotserve.graph.decisions import (
    ReleasePrefix,
    RetainPrefix,
)
from parrotserve.graph.events import NewRequest
from parrotserve.graph.placements import PlacedBy
from parrotserve.ids import RequestId, VariableId
from parrotserve.sampling import Sampling
from parrotserve.segments import Input, Output, Text
from parrotserve.switches import Switches


class TestPrefixes:
    def test_a_resident_prefix_attracts(self):
        world = two_engines()
        first = places(world.submit(asking("p1", POEM, "a cat")))["p1"]
        other = places(world.submit(asking("c1", CODE, "a sort")))["c1"]
        assert first != other
        assert places(world.submit(asking("c2", CODE, "a map"))) == {"c2": other}
        assert places(world.submit(asking("p2", POEM, "a dog"))) == {"p2": first}
        assert by(world, "p2") is PlacedBy.RESIDENT

    def test_it_stays_when_the_request_has_ended(self):
        world = two_engines()
        first = places(world.submit(asking("p1", POEM, "a cat")))["p1"]
        world.submit(asking("c1", CODE, "a sort"))
        world.run("p1")
        assert places(world.submit(asking("p2", POEM, "a dog"))) == {"p2": first}

    def test_it_goes_with_its_engine(self):
        world = two_engines()
        first = places(world.submit(asking("p1", POEM, "a cat")))["p1"]
        world.run("p1")
        world.lose(first)
        world.join(first)
        placement = world.submit(asking("p2", POEM, "a dog")) and world.machine.request(RequestId("p2")).placement
        assert placement is not None
        assert placement.chosen.cached_tokens == 0

    def test_it_goes_when_the_cache_has_to_make_room(self):
        world = World()
        world.join("e", cache_tokens=1000)  # a prompt is some 500 tokens
        world.submit(asking("p1", POEM, "a cat"))
        world.run("p1")
        for number in range(3):
            world.submit(asking(f"c{number}", str(number), CODE))
            world.run(f"c{number}")
        world.submit(asking("p2", POEM, "a dog"))
        placement = world.machine.request(RequestId("p2")).placement
        assert placement is not None
        assert placement.chosen.cached_tokens == 0

    def test_crowding_repels_more_than_a_prefix_attracts(self):
        world = two_engines(places=64)
        crowd = places(world.submit(*(asking(f"p{n}", POEM, str(n), tokens=400) for n in range(64))))
        assert set(crowd.values()) == {"e", "f"}

    def test_queued_requests_that_begin_alike_are_placed_together(self):
        world = World()
        world.join("e", batch=2)
        world.submit(asking("x1", "x"), asking("x2", "y"))
        world.submit(asking("p1", POEM, "a cat"), asking("c1", CODE, "a sort"), asking("p2", POEM, "a dog"))
        decisions = [*world.run("x1"), *world.run("x2")]
        assert list(places(decisions)) == ["p1", "c1"], "one at a time there is nothing to choose"
        world.submit(asking("c2", CODE, "a map"), asking("p3", POEM, "a cow"))
        assert list(places([*world.run("p1"), *world.run("c1")])) == ["p2", "c2"]

    def test_several_places_at_once_go_to_requests_that_begin_alike(self):
        world = World()
        world.submit(asking("p1", POEM, "a cat"), asking("c1", CODE, "a sort"), asking("p2", POEM, "a dog"))
        assert list(places(world.join("e", batch=2))) == ["p1", "p2"]
        assert by(world, "p2") is PlacedBy.SHARERS
        assert list(places(world.run("p1"))) == ["c1"], "the oldest is next: nobody is overtaken for ever"

    def test_the_next_turn_of_a_conversation_goes_where_the_last_one_ran(self):
        world = two_engines()
        first = NewRequest(
            id=RequestId("t1"), function="f", model="m",
            segments=(Text(POEM), Output(VariableId("a"), Sampling(seed=0, max_tokens=200))),
        )  # fmt: skip
        where = places(world.submit(first))["t1"]
        world.produce("t1", "a", "An answer. " * 60)
        world.end("t1")
        world.submit(asking("c1", CODE, "a sort"))
        second = NewRequest(
            id=RequestId("t2"), function="f", model="m",
            segments=(Text(POEM), Input(VariableId("a")), Text(" And?"), Output(VariableId("b"), Sampling(seed=0))),
        )  # fmt: skip
        assert places(world.submit(second)) == {"t2": where}
        placement = world.machine.request(RequestId("t2")).placement
        assert placement is not None
        assert placement.chosen.cached_tokens > 0.9 * placement.prompt_tokens

    def test_without_the_switch_nothing_is_known_of_them(self):
        world = World(switches=Switches(prefix=False))
        world.submit(asking("p1", POEM, "a cat"), asking("c1", CODE, "a sort"), asking("p2", POEM, "a dog"))
        assert list(places(world.join("e", batch=2))) == ["p1", "c1"]
        assert by(world, "p1") is PlacedBy.HARM


class TestRetention:
    @staticmethod
    def world(**fields: object) -> World:
        world = World()
        world.join("e", **{"batch": 1, "retains": True} | fields)
        return world

    def test_an_engine_keeps_what_queued_requests_begin_with_until_the_last_of_them_runs(self):
        world = self.world()
        world.submit(asking("p1", POEM, "a cat"), asking("c1", CODE, "a sort"), asking("p2", POEM, "a dog"))
        decisions = world.run("p1")
        (kept,) = only(decisions, RetainPrefix)
        assert list(places(decisions)) == ["c1"]
        assert (kept.engine, kept.request, kept.segments) == ("e", "p2", 1)
        (released,) = only(world.run("c1"), ReleasePrefix)
        assert (released.engine, released.key) == ("e", kept.key)
        assert only(world.run("p2"), RetainPrefix) == []

    def test_or_until_it_is_queued_no_more(self):
        world = self.world()
        world.submit(asking("p1", POEM, "a cat"), asking("c1", CODE, "a sort"), asking("p2", POEM, "a dog"))
        world.run("p1")
        assert len(only(world.cancel("o-p2"), ReleasePrefix)) == 1

    def test_it_keeps_what_requests_begin_with_that_wait_for_values(self):
        world = self.world()
        world.submit(asking("p1", POEM, "a cat"), asking("c1", CODE), asking("last", POEM, reads=["o-c1"]))
        (kept,) = only(world.run("p1"), RetainPrefix)
        assert (kept.request, kept.segments) == ("last", 1)
        (released,) = only(world.run("c1"), ReleasePrefix)
        assert released.key == kept.key

    def test_with_the_values_that_are_known_by_then(self):
        world = self.world()
        world.submit(
            asking("doc", "write"), asking("one", POEM, reads=["o-doc"]), asking("late", "z"),
            asking("two", POEM, reads=["o-doc", "o-late"]),
        )  # fmt: skip
        world.submit(asking("bulk", CODE))
        world.produce("doc", "o-doc", "It was a dark night. " * 40)
        world.end("doc")
        while world.state("one") != "running":
            world.run(next(name for name in ("late", "bulk") if world.state(name) == "running"))
        assert only(world.run("one"), RetainPrefix)[0].segments == 2

    def test_until_those_are_cancelled(self):
        world = self.world()
        world.submit(asking("p1", POEM, "a cat"), asking("c1", CODE), asking("last", POEM, reads=["o-c1"]))
        world.run("p1")
        assert len(only(world.cancel("o-last"), ReleasePrefix)) == 1

    def test_nothing_is_asked_for_what_runs_at_once(self):
        world = self.world()
        world.submit(asking("p1", POEM, "a cat"), asking("p2", POEM, "a dog"))
        assert only(world.run("p1"), RetainPrefix) == []

    def test_only_an_engine_that_can_is_asked(self):
        world = self.world(retains=False)
        world.submit(asking("p1", POEM, "a cat"), asking("c1", CODE, "a sort"), asking("p2", POEM, "a dog"))
        assert only(world.run("p1"), RetainPrefix) == []

    def test_a_lost_engine_keeps_nothing(self):
        world = self.world()
        world.submit(asking("p1", POEM, "a cat"), asking("c1", CODE, "a sort"), asking("p2", POEM, "a dog"))
        world.run("p1")
        world.lose("e")
        assert only(world.join("e", batch=2, retains=True), ReleasePrefix) == []
