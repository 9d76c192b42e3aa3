"""Where requests run, and when: with their group, where there is room, where it harms least."""

from dataclasses import replace
from math import hypot

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine_world import World, only
from placing import CODE, POEM, asking, by, places, steps, two_engines, waits

from parrotserve.bounds import Bounds
from parrotserve.criteria import Criteria
from parrotserve.errors import EngineFailed
from parrotserve.graph.decisions import (
    UpdateSequence,
)
from parrotserve.graph.events import NewRequest, TenantWeighed
from parrotserve.graph.placements import PlacedBy
from parrotserve.ids import RequestId, TenantId, VariableId
from parrotserve.sampling import Sampling, Usage
from parrotserve.segments import Output
from parrotserve.switches import Switches


class TestGroups:
    @staticmethod
    def map_reduce(world: World, count: int, *prompt: str, tokens: int = 20, name: str = "m") -> dict[str, str]:
        """Submit maps and a reduce that somebody waits for; where the maps go."""
        maps = [asking(f"{name}{n}", *prompt, f"chunk {n}", tokens=tokens) for n in range(count)]
        reduce = asking(f"{name}-reduce", "sum up", reads=[f"o-{name}{n}" for n in range(count)])
        return places(world.submit(*maps, reduce, waits=waits(f"{name}-reduce")))

    def test_members_are_placed_as_one_unit(self):
        world = two_engines()
        where = self.map_reduce(world, 8, POEM)
        assert len(where) == 8
        assert by(world, "m3") is PlacedBy.GROUP

    def test_a_group_is_split_where_that_ends_sooner(self):
        world = two_engines()
        where = self.map_reduce(world, 16, tokens=200)
        assert list(where.values()).count("e") == 8

    def test_and_stays_together_where_reading_its_beginning_twice_would_take_longer(self):
        world = two_engines()
        where = self.map_reduce(world, 4, POEM * 5, tokens=2)
        assert len(set(where.values())) == 1

    def test_an_engine_that_is_busy_gets_less_of_it(self):
        world = two_engines()
        busy = places(world.submit(asking("x", CODE * 5, tokens=2000)))["x"]
        where = list(self.map_reduce(world, 6).values())
        assert where.count(busy) < 3

    def test_a_group_begins_though_requests_that_are_waited_for_alone_never_end_to_come(self):
        world, chats, began = World(), list[str](), dict[str, float]()
        world.join("e", batch=4)
        while world.waiting() < 8:
            chats.append(f"chat{len(chats)}")
            world.submit(asking(chats[-1], "x"), waits=waits(chats[-1]))
            if len(chats) == 6:
                self.map_reduce(world, 4, "read")
        for number in range(100):
            running = sorted(world.running())
            began |= {name: world.now for name in running if name not in (*began, *chats)}
            steps(world, rows=len(running), seconds=0.2)
            world.run(running[number % 4])
            chats.append(f"chat{len(chats)}")
            world.submit(asking(chats[-1], "x"), waits=waits(chats[-1]))
        assert sorted(began) == ["m-reduce", "m0", "m1", "m2", "m3"]
        assert min(began.values()) >= 5.0, "who is waited for alone goes first, for as long as that is bearable"

    def test_what_has_no_room_waits_and_comes_next(self):
        world = World()
        world.join("e", batch=4)
        assert len(self.map_reduce(world, 6)) == 4
        world.submit(asking("later", "x"))
        assert list(places([*world.run("m0"), *world.run("m1")])) == ["m4", "m5"]

    def test_without_the_switch_they_are_placed_one_by_one(self):
        world = World("e", switches=Switches(groups=False))
        self.map_reduce(world, 3)
        assert by(world, "m1") is not PlacedBy.GROUP


class TestRoom:
    def test_a_tenth_of_a_step_is_for_work_that_nobody_waits_for_however_many_wait(self):
        world = World()
        chats = [f"chat{number}" for number in range(20)]
        world.submit(
            asking("bulk", "x"), asking("more", "y"), *(asking(name, name) for name in chats), waits=waits(*chats)
        )
        placed = places(world.join("e", batch=10))
        assert len(placed) == 10
        assert placed.keys() & {"bulk", "more"} == {"bulk"}

    def test_a_step_takes_so_many_and_no_more(self):
        world = World()
        world.join("e", places=100, batch=3)
        decisions = world.submit(*(asking(f"r{n}", "x") for n in range(5)))
        assert len(places(decisions)) == 3
        assert world.waiting() == 2

    def test_the_cache_takes_so_many_tokens_and_what_is_shared_once(self):
        world = World()
        world.join("e", cache_tokens=1200)  # two different prompts of 500 tokens, or one shared beginning
        assert len(places(world.submit(*(asking(f"a{n}", str(n), POEM) for n in range(4))))) == 2
        world = World()
        world.join("e", cache_tokens=1200)
        assert len(places(world.submit(*(asking(f"a{n}", POEM, str(n)) for n in range(4))))) == 4

    def test_who_may_write_more_than_a_context_takes_no_more_room_than_that(self):
        world = World()
        world.join("e", context_length=1000, cache_tokens=4010)
        endless = [asking(f"r{number}", str(number), tokens=1_000_000) for number in range(5)]
        assert len(places(world.submit(*endless, waits=waits("r0")))) == 4

    def test_who_is_alone_is_always_admitted(self):
        world = World()
        world.join("e", cache_tokens=16)
        assert places(world.submit(asking("huge", POEM), asking("small", "x"))) == {"huge": "e"}
        assert places(world.run("huge")) == {"small": "e"}

    def test_of_many_engines_one_that_has_room_is_found_though_more_run_there(self):
        world = World()
        world.join("wide", batch=8)
        world.submit(*(asking(f"r{n}", "x") for n in range(3)))
        for number in range(10):
            world.join(f"narrow{number}", batch=1)
        for number in range(10):
            world.join(f"small{number}", cache_tokens=600)
        assert len(places(world.submit(*(asking(f"s{n}", f"{n} {POEM}") for n in range(20))))) == 20
        assert places(world.submit(asking("next", "x" * 2000))) == {"next": "wide"}

    def test_who_is_big_is_not_overtaken_for_ever(self):
        world = World()
        world.join("e", cache_tokens=800)
        world.submit(asking("a", "x", tokens=100), asking("big", POEM, tokens=250), asking("b", "y", tokens=100))
        assert world.state("b") == "queued"
        assert list(places(world.run("a"))) == ["big"]


REQUESTS = st.tuples(
    st.sampled_from([POEM, CODE, POEM + CODE, "short "]), st.integers(1, 400), st.booleans(), st.integers(0, 3)
)


@given(st.lists(REQUESTS, min_size=1, max_size=40), st.integers(1, 6), st.sampled_from([300, 1200, 4000]), st.data())
def test_no_placement_exceeds_what_an_engine_has_room_for(
    requests: list[tuple[str, int, bool, int]], batch: int, cache: int, data: st.DataObject
):
    """By rows, by tokens of KV (those that are shared once), and by credits; alone, everything is admitted."""
    world = World()
    for engine in ("e", "f"):
        world.join(engine, batch=batch, places=batch + 2, cache_tokens=cache, pauses=True)
    pool = world.machine._scheduler._pools["m"]  # type: ignore[attr-defined]
    for number, (beginning, tokens, urgent, ends) in enumerate(requests):
        world.submit(
            asking(f"r{number}", beginning, f"{number}", tokens=tokens), waits=waits(f"r{number}") if urgent else []
        )
        for _ in range(ends):
            running = [one.request.id for load in pool.loads.values() for one in load.aboard.values() if not one.paused]
            if running:
                world.end(data.draw(st.sampled_from(running)), EngineFailed("boom"))
        for load in pool.loads.values():
            assert load.active <= batch
            assert len(load.aboard) <= batch + 2
            assert load.kv_tokens <= cache or load.active == 1
    while left := [one.request.id for load in pool.loads.values() for one in load.aboard.values() if not one.paused]:
        world.end(left[0], EngineFailed("boom"))
    assert world.waiting() == 0


class TestUrgency:
    def test_who_is_waited_for_goes_first(self):
        world = World()
        world.submit(asking("bulk", "x"), asking("chat", "y"), waits=waits("chat"))
        assert list(places(world.join("e", batch=1))) == ["chat"]

    def test_queued_work_is_upgraded_the_moment_somebody_waits(self):
        world = World()
        world.submit(asking("one", "x"), asking("two", "y"))
        world.wait("o-two")
        assert list(places(world.join("e", batch=1))) == ["two"]

    def test_running_work_is_too_and_its_engine_is_told(self):
        world = World("e")
        world.submit(asking("one", "x"))
        (update,) = only(world.wait("o-one", Criteria.TPOT), UpdateSequence)
        assert (update.request, update.objective) == ("one", "latency")

    @pytest.mark.parametrize("criteria", [Criteria.LATENCY, Criteria.TTFT, Criteria.TPOT])
    def test_every_criteria_but_throughput_makes_it_urgent(self, criteria: Criteria):
        world = World("e")
        world.submit(asking("one", "x"), asking("two", "y", reads=["o-one"]), waits=waits("two", criteria=criteria))
        assert world.objectives() == {"one": "latency", "two": "latency"}

    @pytest.mark.parametrize(("tpot", "engine"), [(1.0, "a"), (0.004, "b")])
    def test_engines_on_which_it_would_write_more_slowly_than_is_set_are_taken_last(self, tpot: float, engine: str):
        world = World("a", bounds=Bounds(tpot=tpot))
        names = [f"chat{number}" for number in range(4)]
        world.submit(*(asking(name, POEM, name) for name in names), waits=waits(*names))
        world.tick(10.0)
        world.join("b")
        assert places(world.submit(asking("last", POEM, "last"), waits=waits("last"))) == {"last": engine}

    def test_nobody_waits_for_the_prompt_of_a_request_that_was_cancelled(self):
        world = two_engines()
        world.submit(asking("a", "x"), asking("b", "y"))
        world.submit(asking("long", "z" * 10_000))
        world.cancel("o-long")
        world.submit(asking("next", "n"))
        placement = world.machine.request(RequestId("next")).placement
        assert placement is not None
        (other,) = placement.others
        assert other.seconds == pytest.approx(placement.chosen.seconds)

    def test_a_row_more_costs_others_what_it_makes_their_steps_longer(self):
        world = World("e")
        for number in range(200):
            rows = 1 + number % 40
            steps(world, rows=rows, seconds=hypot(0.008, 0.0008 * rows))
        harm: list[float] = []
        for number in range(40):
            world.submit(asking(f"chat{number}", "x", tokens=100), waits=waits(f"chat{number}"))
            placement = world.machine.request(RequestId(f"chat{number}")).placement
            assert placement is not None
            harm.append(placement.chosen.harm / max(number, 1))
        assert harm[1] < 100 * 0.0008 / 4  # while a step reads, it hardly does
        assert harm[39] == pytest.approx(100 * 0.0008, rel=0.1)

    def test_bulk_work_does_not(self):
        world = World("e")
        world.submit(asking("one", "x"), waits=waits("one", criteria=Criteria.THROUGHPUT))
        assert world.objectives() == {"one": "throughput"}


class TestTenants:
    def test_they_take_turns_by_weight_whatever_they_are_split_into(self):
        world = World()
        for n in range(12):
            world.submit(asking(f"a{n}", "x", tokens=2000), tenant="a", session=f"a{n}")
        for n in range(12):
            world.submit(asking(f"b{n}", "x", tokens=2000), tenant="b", session="b")
        world.handle(TenantWeighed(TenantId("b"), 3.0))
        order = list(places(world.join("e", batch=1)))
        while len(order) < 12:
            order += places(world.run(order[-1]))
        assert sum(name.startswith("b") for name in order) in (8, 9, 10)

    def test_who_begins_with_the_same_published_text_as_another_waits_for_a_turn_too(self):
        """Nobody is ahead of anybody by more than a request and a turn."""
        world = World()
        first = replace(asking("a", POEM, "x", tokens=4000), published=1)
        many = [replace(asking(f"b{n}", POEM, f"{n}", tokens=4000), published=1) for n in range(10)]
        world.submit(first, tenant="a", session="a")
        world.submit(*many, tenant="b", session="b")
        world.submit(*(asking(f"c{n}", f"{n}", tokens=4000) for n in range(10)), tenant="c", session="c")
        order = list(places(world.join("e", batch=7)))
        assert order[0] == "a"
        assert sorted(name[0] for name in order[1:]) == list("bbbccc")

    def test_without_the_switch_they_go_by_arrival(self):
        world = World(switches=Switches(fairness=False))
        world.submit(*(asking(f"a{n}", "x", tokens=2000) for n in range(3)), tenant="a", session="a")
        world.submit(asking("b", "x"), tenant="b", session="b")
        order = list(places(world.join("e", batch=1)))
        while len(order) < 4:
            order += places(world.run(order[-1]))
        assert order == ["a0", "a1", "a2", "b"]


class TestLearning:
    def test_what_a_function_writes_is_learned(self):
        world = World("e")
        spec = NewRequest(
            id=RequestId("r"), function="Say", model="m", segments=(Output(VariableId("o"), Sampling(seed=0)),)
        )
        world.submit(spec)
        world.produce("r", "o")
        world.end("r", usage=Usage(prompt_tokens=10, cached_tokens=0, output_tokens=7, engine_seconds=0.1))
        pool = world.machine._scheduler._pools["m"]  # type: ignore[attr-defined]
        assert pool.estimates.output_tokens(world.machine.request(RequestId("r"))) == 7

    def test_how_many_characters_make_a_token_is_learned(self):
        world = World("e")
        for number in range(200):
            world.submit(asking(f"r{number}", "x" * 1000))
            world.produce(f"r{number}", f"o-r{number}")
            world.end(f"r{number}", usage=Usage(prompt_tokens=500, cached_tokens=0, output_tokens=7))
        pool = world.machine._scheduler._pools["m"]  # type: ignore[attr-defined]
        assert pool.estimates.ratio(TenantId("t")).chars_per_token == pytest.approx(2.0, rel=0.05)
