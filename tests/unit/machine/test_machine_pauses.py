"""Who makes room for whom, and when it goes on."""

import pytest
from machine_world import World, returned
from placing import CODE, POEM, asking, paused, places, resumed, steps, waits

from parrotserve.errors import EngineFailed
from parrotserve.graph.decisions import (
    PauseSequence,
)
from parrotserve.ids import RequestId
from parrotserve.switches import Switches


class TestPauses:
    @staticmethod
    def full(rows: int = 4, **fields: object) -> World:
        world = World()
        world.join("e", batch=rows, pauses=True, **fields)
        world.submit(*(asking(f"bulk{n}", str(n)) for n in range(rows)))
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

    def test_what_came_first_goes_on_first(self):
        world = self.full()
        decisions = world.submit(asking("chat1", "x"), asking("chat2", "x"), waits=waits("chat1", "chat2"))
        assert paused(decisions) == ["bulk3", "bulk2"]
        assert resumed(world.run("chat1")) == ["bulk2"]
        assert resumed(world.run("chat2")) == ["bulk3"]

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

    def test_what_those_share_that_pause_together_is_room_too(self):
        world = World()
        world.join("e", cache_tokens=1000, pauses=True)
        world.submit(asking("a", POEM, "1"), asking("b", POEM, "2"))  # 500 tokens, once
        decisions = world.submit(asking("chat", CODE * 2, tokens=10), waits=waits("chat"))
        assert (paused(decisions), places(decisions)) == (["b", "a"], {"chat": "e"})

    def test_nobody_pauses_for_a_room_that_is_what_the_other_one_begins_with_itself(self):
        world = World()
        world.join("e", cache_tokens=1000, pauses=True)
        world.submit(asking("chat", "x", tokens=450), waits=waits("chat"))
        world.submit(asking("a", POEM, "1"))
        assert paused(world.submit(asking("next", POEM, "2", tokens=200), waits=waits("next"))) == []

    def test_one_that_was_read_ahead_is_made_room_for_where_its_engine_takes_no_more(self):
        world = self.full(3, places=4, late=True)
        read = asking("chat", "x", reads=["found"])
        world.submit(read, calls=["search: -> found"], waits=waits("chat"), session="s2")
        assert world.machine.request(RequestId("chat")).ahead == "e"
        assert paused(world.handle(returned("search", "what was found", session="s2"))) == ["bulk2"]

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
        for _ in range(1500):
            load = world.machine._scheduler._pools["m"].loads["e"]  # type: ignore[attr-defined]
            active = [name for name in load.aboard if name not in load.paused]
            bulk = [name for name in active if not name.startswith("chat")]
            for name in active:
                left[name] = left.get(name, 20) - 1
            decoded.append((world.now, len(bulk), len(active)))
            steps(world, rows=len(active))
            for name in active:
                if left[name] == 0:
                    world.run(name)
            while world.waiting() < 203:
                chats += 1
                world.submit(asking(f"chat{chats}", "x"), waits=waits(f"chat{chats}"))
        starts = [when for when, *_ in decoded if when + 10 <= decoded[-1][0]]
        assert len(starts) > 100
        for start in starts:
            window = [(some, total) for when, some, total in decoded if start <= when < start + 10]
            assert sum(some for some, _ in window) >= 0.1 * sum(total for _, total in window)
        pressing = sum(total - some for _, some, total in decoded) / sum(total for *_, total in decoded)
        assert pressing > 0.6, "and no more than that is given up"

    def test_on_one_engine_it_holds_nobody_back_on_others(self):
        """Its share is owed where it paused; an engine that is free is for whoever comes."""
        world = World()
        world.join("e", batch=1, pauses=True)
        world.submit(asking("bulk", "b", tokens=2000))
        world.submit(asking("chat", "x", tokens=2000), waits=waits("chat"))
        for second in range(6):
            world.now = float(second)
            steps(world, "e", rows=10, seconds=0.5)
        world.join("f", batch=2, pauses=True)
        decisions = world.submit(asking("next", "n"), asking("then", "t"), waits=waits("next", "then"))
        assert places(decisions) == {"next": "f", "then": "f"}
        assert resumed(world.run("chat")) == ["bulk"]

    def test_room_for_it_is_made_on_one_engine_and_others_go_on_elsewhere(self):
        world = World()
        for engine in ("e", "f"):
            world.join(engine, cache_tokens=1000)
        chats = [asking(f"chat{number}", f"{number}", tokens=300) for number in range(8)]
        where = places(world.submit(*chats[:5], waits=waits(*(f"chat{number}" for number in range(5)))))
        assert list(where.values()) == ["e", "f", "e", "f", "e"]
        for _ in range(10):
            steps(world, "e", rows=3)
            steps(world, "f", rows=2)
        world.submit(asking("bulk", "b", tokens=600))
        world.submit(*chats[5:], waits=waits("chat5", "chat6", "chat7"), session="s2")
        assert world.waiting() == 4
        assert places(world.run("chat0")) == {"chat5": "e"}
        assert places(world.run("chat2")) == {"chat6": "e"}
        assert places(world.run("chat1")) == {"bulk": "f"}
