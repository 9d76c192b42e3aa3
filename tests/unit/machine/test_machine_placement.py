"""Where requests run, and when: with their group, with who begins alike, where it harms least, and who makes room."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine_world import World, asked, only

from parrotserve.bounds import Bounds
from parrotserve.criteria import Criteria
from parrotserve.errors import EngineFailed
from parrotserve.graph.decisions import (
    Decision,
    OpenSequence,
    PauseSequence,
    ReleasePrefix,
    ResumeSequence,
    RetainPrefix,
    UpdateSequence,
)
from parrotserve.graph.events import NewRequest, StepsRun, TenantWeighed
from parrotserve.graph.placements import PlacedBy
from parrotserve.ids import EngineId, RequestId, TenantId, VariableId
from parrotserve.sampling import Sampling, Usage
from parrotserve.segments import Input, Output, Text
from parrotserve.switches import Switches

POEM = "You write poems in the manner of the old masters. " * 40
CODE = "You are an expert in every programming language. " * 40


def asking(name: str, *parts: str, reads: Iterable[str] = (), tokens: int = 20) -> NewRequest:
    """A request of constant texts, then inputs, then one output that has the request's name behind `o-`."""
    segments = (*map(Text, parts), *(Input(VariableId(one)) for one in reads))
    output = Output(VariableId(f"o-{name}"), Sampling(seed=0, max_tokens=tokens, ignore_eos=True))
    return NewRequest(id=RequestId(name), function="f", model="m", segments=(*segments, output))


def places(decisions: list[Decision]) -> dict[str, str]:
    return {one.request: one.engine for one in only(decisions, OpenSequence)}


def paused(decisions: list[Decision]) -> list[str]:
    return [one.request for one in only(decisions, PauseSequence)]


def resumed(decisions: list[Decision]) -> list[str]:
    return [one.request for one in only(decisions, ResumeSequence)]


def by(world: World, request: str) -> PlacedBy:
    placement = world.machine.request(RequestId(request)).placement
    assert placement is not None
    return placement.by


def waits(*names: str, criteria: Criteria = Criteria.LATENCY) -> list[object]:
    return [asked(f"o-{name}", criteria) for name in names]


def two_engines(**fields: object) -> World:
    world = World()
    for engine in ("e", "f"):
        world.join(engine, **fields)
    return world


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
    def test_a_step_takes_so_many_and_no_more(self):
        world = World()
        world.join("e", places=100, batch=3)
        decisions = world.submit(*(asking(f"r{n}", "x") for n in range(5)))
        assert len(places(decisions)) == 3
        assert world.machine.waiting("m") == 2

    def test_the_cache_takes_so_many_tokens_and_what_is_shared_once(self):
        world = World()
        world.join("e", cache_tokens=1200)  # two different prompts of 500 tokens, or one shared beginning
        assert len(places(world.submit(*(asking(f"a{n}", str(n), POEM) for n in range(4))))) == 2
        world = World()
        world.join("e", cache_tokens=1200)
        assert len(places(world.submit(*(asking(f"a{n}", POEM, str(n)) for n in range(4))))) == 4

    def test_who_is_alone_is_always_admitted(self):
        world = World()
        world.join("e", cache_tokens=16)
        assert places(world.submit(asking("huge", POEM), asking("small", "x"))) == {"huge": "e"}
        assert places(world.run("huge")) == {"small": "e"}

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
    assert world.machine.waiting("m") == 0


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

    @pytest.mark.parametrize(("tpot", "engine"), [(1.0, "a"), (0.003, "b")])
    def test_engines_on_which_it_would_write_more_slowly_than_is_set_are_taken_last(self, tpot: float, engine: str):
        world = World("a", bounds=Bounds(tpot=tpot))
        names = [f"chat{number}" for number in range(4)]
        world.submit(*(asking(name, POEM, name) for name in names), waits=waits(*names))
        world.tick(10.0)
        world.join("b")
        assert places(world.submit(asking("last", POEM, "last"), waits=waits("last"))) == {"last": engine}

    def test_bulk_work_does_not(self):
        world = World("e")
        world.submit(asking("one", "x"), waits=waits("one", criteria=Criteria.THROUGHPUT))
        assert world.objectives() == {"one": "throughput"}


def steps(world: World, engine: str = "e", *, rows: int = 4, seconds: float = 0.1) -> list[Decision]:
    world.now += seconds
    return world.handle(
        StepsRun(engine=EngineId(engine), steps=1, prefill_tokens=0, decode_rows=rows, kv_tokens=100, attended=100,
                 seconds=seconds)
    )  # fmt: skip


class TestPauses:
    @staticmethod
    def full(places: int = 4, **fields: object) -> World:
        world = World()
        world.join("e", batch=places, pauses=True, **fields)
        world.submit(*(asking(f"bulk{n}", str(n)) for n in range(places)))
        return world

    def test_throughput_work_pauses_for_who_is_waited_for_and_goes_on_afterwards(self):
        world = self.full()
        decisions = world.submit(asking("chat", "x"), waits=waits("chat"))
        assert paused(decisions) == ["bulk3"], "the latest has least to lose"
        assert places(decisions) == {"chat": "e"}
        assert type(decisions[0]) is PauseSequence, "room is made before it is taken"
        assert resumed(world.run("chat")) == ["bulk3"]

    def test_it_goes_on_before_new_work_of_its_kind_begins(self):
        world = self.full()
        world.submit(asking("chat", "x"), waits=waits("chat"))
        world.submit(asking("bulk9", "9"))
        decisions = world.run("bulk0")
        assert (resumed(decisions), places(decisions)) == (["bulk3"], {})

    def test_only_an_engine_that_can_pause_is_asked_to(self):
        world = World()
        world.join("e", batch=2)
        world.submit(asking("a", "x"), asking("b", "x"))
        decisions = world.submit(asking("chat", "x"), waits=waits("chat"))
        assert decisions == []
        assert places(world.run("a")) == {"chat": "e"}

    def test_nor_without_the_switch(self):
        world = World(switches=Switches(preemption=False))
        world.join("e", batch=1, pauses=True)
        world.submit(asking("a", "x"))
        assert world.submit(asking("chat", "x"), waits=waits("chat")) == []

    def test_room_in_the_cache_is_made_too(self):
        world = World()
        world.join("e", cache_tokens=1200, pauses=True)
        world.submit(asking("a", "1", POEM), asking("b", "2", POEM))
        decisions = world.submit(asking("chat", "3", POEM), waits=waits("chat"))
        assert (paused(decisions), places(decisions)) == (["b"], {"chat": "e"})

    def test_who_is_waited_for_is_not_paused(self):
        world = World()
        world.join("e", batch=2, pauses=True)
        world.submit(asking("a", "x"), asking("b", "x"), waits=waits("a", "b"))
        assert world.submit(asking("chat", "x"), waits=waits("chat")) == []

    def test_paused_work_that_is_waited_for_now_goes_on_at_once(self):
        world = self.full()
        world.submit(asking("chat", "x"), waits=waits("chat"))
        assert resumed(world.wait("o-bulk3")) == ["bulk3"]

    def test_paused_work_can_be_cancelled_fail_and_lose_its_engine(self):
        for happens in (
            lambda world: world.cancel("o-bulk3"),
            lambda world: world.end("bulk3", EngineFailed("boom")),
            lambda world: world.lose("e"),
            lambda world: world.end_session(),
        ):
            world = self.full()
            world.submit(asking("chat", "x"), waits=waits("chat"))
            happens(world)
            world.machine.check_integrity()

    @pytest.mark.parametrize("fair", [True, False])
    def test_a_tenant_that_is_behind_makes_no_room_for_one_that_is_ahead(self, fair: bool):
        world = World(switches=Switches(fairness=fair))
        world.join("e", batch=1, pauses=True)
        world.submit(asking("chat1", "x", tokens=4000), tenant="rich", session="r", waits=waits("chat1"))
        world.submit(asking("bulk", "y"), tenant="poor", session="p")
        world.submit(asking("chat2", "x"), tenant="rich", session="r", waits=waits("chat2"))
        assert list(places(world.run("chat1"))) == (["bulk"] if fair else ["chat2"])
        assert list(places(world.run("bulk" if fair else "chat2"))) == (["chat2"] if fair else ["bulk"])

    def test_a_minimum_share_is_kept_when_latency_sensitive_work_never_ends(self):
        world = self.full(4)
        decoded: list[tuple[float, int, int]] = []
        world.submit(*(asking(f"more{n}", str(n)) for n in range(200)))
        chats = 0
        left: dict[str, int] = {}
        machine = world.machine
        for _ in range(1500):
            (engine,) = machine.engines()
            pool = machine._scheduler._pools["m"]  # type: ignore[attr-defined]
            active = [name for name in engine.running if name not in pool.loads["e"].paused]
            bulk = [name for name in active if not name.startswith("chat")]
            for name in active:
                left[name] = left.get(name, 20) - 1
            decoded.append((world.now, len(bulk), len(active)))
            steps(world, rows=len(active))
            for name in active:
                if left[name] == 0:
                    world.run(name)
            while machine.waiting("m") < 203:
                chats += 1
                world.submit(asking(f"chat{chats}", "x"), waits=waits(f"chat{chats}"))
        for start, *_ in decoded:
            window = [(some, total) for when, some, total in decoded if start <= when < start + 10]
            if start + 10 <= decoded[-1][0]:
                assert sum(some for some, _ in window) >= 0.1 * sum(total for _, total in window)
        pressing = sum(total - some for _, some, total in decoded) / sum(total for *_, total in decoded)
        assert pressing > 0.6, "and no more than that is given up"


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
        assert pool.estimates.chars_per_token == pytest.approx(2.0, rel=0.05)
