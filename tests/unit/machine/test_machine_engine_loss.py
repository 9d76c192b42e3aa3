"""When an engine dies its requests run again elsewhere; one aboard two deaths is a suspect."""

from machine_world import World, only
from placing import asking, paused, resumed, waits

from parrotserve.errors import EngineFailed
from parrotserve.graph.decisions import CancelSequence, Decision, ForgetRequest, OpenSequence, PublishFailure
from parrotserve.ids import RequestId
from parrotserve.sampling import Usage


def opened(decisions: list[Decision]) -> list[tuple[str, str, int]]:
    return [(one.request, one.engine, one.epoch) for one in only(decisions, OpenSequence)]


def suspect_world(places: int = 4) -> World:
    """`bad` has killed two engines and waits; no engine is left."""
    world = World("e1", places=places)
    world.submit("bad: -> x")
    world.lose("e1", "segfault")
    world.join("e2", places=places)
    world.lose("e2", "hung")
    return world


def test_its_requests_run_elsewhere_as_a_new_epoch():
    world = World("e", "f", places=2)
    world.submit("a: -> x", "b: -> y")
    assert opened(world.lose("e")) == [("a", "f", 1)]
    assert world.state("b") == "running"


def test_they_wait_where_no_engine_is_left():
    world = World("e")
    world.submit("a: -> x")
    assert world.lose("e") == []
    assert world.state("a") == "queued"
    assert opened(world.join("e")) == [("a", "e", 1)]


def test_they_come_before_what_was_submitted_later():
    world = World("e", places=1)
    world.submit("a: -> x", "b: -> y")
    world.lose("e")
    assert opened(world.join("f", places=1)) == [("a", "f", 1)]


def test_an_engine_that_joins_again_has_lost_what_it_ran():
    world = World("e")
    world.submit("a: -> x")
    assert opened(world.join("e")) == [("a", "e", 1)]


def test_a_request_whose_outputs_were_all_there_does_not_run_again():
    world = World("e")
    world.submit("a: -> x")
    world.produce("a", "x")
    assert world.lose("e") == [ForgetRequest("a")]
    assert world.state("a") == "done"


def test_late_events_of_the_lost_engine_are_ignored():
    world = World("e", "f", places=1)
    world.submit("a: -> x")
    world.lose("e")
    assert world.produce("a", "x", epoch=0) == world.end("a", epoch=0) == []
    assert world.state("x") == "producing"


def test_the_loss_of_an_unknown_engine_is_nothing():
    world = World("e")
    assert world.lose("nobody") == []


class TestSuspects:
    def test_a_suspect_runs_alone_on_an_empty_engine(self):
        world = suspect_world()
        assert opened(world.join("e3", places=4)) == [("bad", "e3", 2)]
        assert opened(world.submit("a: -> y", "b: -> z")) == []
        assert opened(world.run("bad")) == [("a", "e3", 0), ("b", "e3", 0)]

    def test_others_go_to_other_engines_meanwhile(self):
        world = suspect_world()
        world.join("e3")
        world.join("e4")
        assert opened(world.submit("a: -> y", "b: -> z")) == [("a", "e4", 0), ("b", "e4", 0)]

    def test_without_an_empty_engine_one_is_emptied_for_it(self):
        world = World("e1", "e2", places=4)
        world.submit("bad: -> x")
        world.lose("e1")  # bad runs on e2 now
        world.submit("a: -> y", "b: -> z")
        world.join("e3", places=4)
        world.submit("c: -> w")
        assert (world.running("e2"), world.running("e3")) == ({"bad", "a", "b"}, {"c"})
        assert opened(world.lose("e2")) == []  # a and b may not go where the suspect is to run alone
        assert world.state("a") == "queued"
        assert opened(world.run("c")) == [("bad", "e3", 2)]
        assert opened(world.run("bad")) == [("a", "e3", 1), ("b", "e3", 1)]

    def test_an_engine_that_empties_for_it_takes_up_what_is_paused_there(self):
        world = World()
        world.join("e1", places=1, pauses=True)
        world.submit(asking("bad"), waits=waits("bad"))
        world.lose("e1")
        world.join("e1", places=1, pauses=True)
        world.join("e2", batch=1, pauses=True)
        world.submit(asking("bulk"))
        decisions = world.submit(asking("chat"), waits=waits("chat"))
        assert paused(decisions) == ["bulk"]
        assert opened(world.lose("e1")) == []  # e2 is to be emptied for the suspect
        assert resumed(world.run("chat")) == ["bulk"]
        assert opened(world.run("bulk")) == [("bad", "e2", 2)]

    def test_nothing_is_read_ahead_either_where_it_runs(self):
        world = World()
        world.join("e1", late=True)
        world.submit("bad: -> x")
        world.lose("e1")
        world.join("e2", late=True)
        world.join("e3", late=True)
        world.submit("third: -> w", "answer: found -> z", calls=["search: w -> found"])
        assert world.running("e3") == {"third"}
        world.produce("third", "w")
        assert world.machine.request(RequestId("answer")).ahead == "e3"
        assert opened(world.lose("e2")) == []
        decisions = world.run("third")
        assert opened(decisions) == [("bad", "e3", 2)]
        (cancelled,) = only(decisions, CancelSequence)
        assert (cancelled.request, cancelled.engine) == ("answer", "e3")
        world.let_go(decisions)
        assert opened(world.answer("search", "what was found")) == []
        assert opened(world.run("bad")) == [("answer", "e3", 1)]

    def test_suspects_run_one_after_the_other(self):
        world = World("e1", places=4)
        world.submit("bad: -> x", "worse: -> y", "worst: -> z")
        world.lose("e1")
        world.join("e2", places=4)
        world.lose("e2")
        assert opened(world.join("e3", places=4)) == [("bad", "e3", 2)]
        assert opened(world.run("bad")) == [("worse", "e3", 2)]
        assert opened(world.run("worse")) == [("worst", "e3", 2)]

    def test_it_fails_at_the_third_death_naming_all(self):
        world = suspect_world()
        world.submit("next: x -> y")
        world.join("e3")
        failures = only(world.lose("e3", "segfault again"), PublishFailure)
        assert [failure.variable for failure in failures] == ["x", "y"]
        error = failures[0].error
        assert type(error) is EngineFailed
        assert "e1: segfault; e2: hung; e3: segfault again" in str(error)
        assert error.details["engine"] == "e3"

    def test_a_suspect_that_is_cancelled_holds_nobody_back(self):
        world = World("e1", "e2", places=4)
        world.submit("bad: -> x")
        world.lose("e1")
        world.submit("a: -> y")
        world.join("e3", places=1)
        world.submit("b: -> z")
        world.lose("e2")
        assert world.state("a") == "queued"
        world.run("b")
        assert world.state("bad") == "running"
        assert opened(world.cancel("x")) == [("a", "e3", 1)]

    def test_a_cancelled_suspect_that_still_waited_holds_nobody_back_either(self):
        world = World("e1", "e2", places=4)
        world.submit("bad: -> x")
        world.lose("e1")
        world.join("e3", places=4)
        world.submit("b: -> z")
        world.lose("e2")
        assert opened(world.submit("c: -> w")) == []
        assert opened(world.cancel("x")) == [("c", "e3", 0)]

    def test_retried_it_still_runs_alone(self):
        world = suspect_world()
        world.join("e3")
        world.lose("e3")
        world.join("e4")
        assert opened(world.submit("a: -> y")) == [("a", "e4", 0)]
        assert opened(world.retry("x")) == []
        assert opened(world.run("a")) == [("bad", "e4", 4)]


class TestSuspectsOfOneTenant:
    """Ann has many suspects, and Bob requests that are none, on one engine after the other."""

    def world(self) -> World:
        world = World("e1")
        world.submit(*(f"bad{number}: -> x{number}" for number in range(9)), session="s-ann", tenant="ann")
        world.lose("e1")
        world.join("e2")
        world.lose("e2")
        world.submit(*(f"good{number}: -> y{number}" for number in range(9)), session="s-bob", tenant="bob")
        return world

    def test_take_turns_with_others(self):
        world, order = self.world(), list[str]()
        decisions = world.join("e3", places=1)
        for _ in range(8):
            ((name, _, _),) = opened(decisions)
            order.append(name[:3])
            for output in world.machine.request(name).outputs:
                world.produce(name, output.id)
            decisions = world.end(name, usage=Usage(prompt_tokens=1, output_tokens=1, engine_seconds=1.0))
        assert order.count("bad") == order.count("goo") == 4

    def test_that_engines_die_of_take_turns_with_others(self):
        world, dead, done = self.world(), 0, 0
        decisions = world.join("e3", places=1)
        while dead < 3:
            ((name, _, _),) = opened(decisions)
            if name.startswith("bad"):
                dead += 1
                world.lose(f"e{dead + 2}")
                decisions = world.join(f"e{dead + 3}", places=1)
            else:
                done += 1
                world.produce(name, f"y{name[-1]}")
                decisions = world.end(name, usage=Usage(prompt_tokens=1, output_tokens=1, engine_seconds=0.5))
        assert done >= 4

    def test_run_where_others_leave_an_engine(self):
        world = self.world()
        engines = ("e3", "e4", "e5")
        for engine in engines:
            world.join(engine, places=9)
        assert sorted(len(world.running(engine)) for engine in engines) == [1, 1, 9]
