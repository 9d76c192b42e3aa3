"""A retry runs again what failed upstream, and what failed downstream because of it."""

from machine_world import World, only, withdrawn

from parrotserve.errors import EngineFailed
from parrotserve.graph.decisions import OfferCall, OpenSequence

OOM = EngineFailed("out of memory")


def back(world: World, variable: str) -> tuple[set[str], set[str]]:
    """The variables and the producers that a retry would bring back."""
    revival = world.machine.revival("s", "t", variable)
    return {one.id for one in revival.variables}, {one.id for one in revival.producers}


def opened(decisions: list) -> list[tuple[str, int]]:
    return [(one.request, one.epoch) for one in only(decisions, OpenSequence)]


def test_a_failed_request_runs_again_as_a_new_epoch():
    world = World("e")
    world.submit("write: -> code")
    world.end("write", OOM)
    assert opened(world.retry("code")) == [("write", 1)]
    assert world.variable("code").error is None
    world.run("write")
    assert world.state("code") == "ready"


def test_late_events_of_the_run_before_are_ignored():
    world = World("e")
    world.submit("write: -> code")
    world.end("write", OOM)
    world.retry("code")
    assert world.produce("write", "code", epoch=0) == world.end("write", OOM, epoch=0) == []
    assert world.state("write") == "running"


def test_from_below_it_reaches_the_first_failure_and_all_between():
    world = World("e")
    world.submit("a: -> x", "b: x -> y", "c: y -> z")
    world.end("a", OOM)
    assert opened(world.retry("z")) == [("a", 1)]
    for name in "abc":
        world.run(name)
    assert world.state("z") == "ready"


def test_from_above_it_brings_back_what_failed_because_of_it():
    world = World("e")
    world.submit("a: -> x", "b: x -> y", "c: y -> z")
    world.end("a", OOM)
    world.retry("x")
    assert (world.state("b"), world.state("c")) == ("waiting", "waiting")


def test_what_failed_of_itself_downstream_stays_failed():
    world = World("e")
    world.submit("a: -> x more", "b: x -> y")
    world.produce("a", "x")
    world.end("b", OOM)
    world.end("a", OOM)
    world.retry("more")
    assert (world.state("a"), world.state("b")) == ("running", "failed")


def test_what_another_failure_holds_back_waits_for_that_to_be_retried_too():
    world = World("e")
    world.submit("a: -> x", "b: -> y", "merge: x y -> z")
    world.end("a", OOM)
    world.end("b", OOM)
    world.retry("x")
    assert world.state("merge") == "failed"
    world.retry("y")
    assert world.state("merge") == "waiting"


def test_the_whole_of_a_diamond_comes_back():
    world = World("e")
    world.submit("top: -> t", "left: t -> l", "right: t -> r", "bottom: l r -> z")
    world.end("top", OOM)
    world.retry("t")
    assert [world.state(name) for name in ("top", "left", "right", "bottom")] == ["running", *["waiting"] * 3]


def test_outputs_that_were_ready_are_not_produced_again():
    world = World("e")
    world.submit("joke: -> setup punchline")
    world.produce("joke", "setup", "kept")
    world.end("joke", OOM)
    world.retry("punchline")
    assert world.produce("joke", "setup", "other") == []
    world.run("joke")
    assert world.variable("setup").value == "kept"


def test_what_was_cancelled_comes_back_with_what_was_cancelled_for_it():
    world = World("e")
    world.submit("plan: -> idea", "write: idea -> code")
    world.handle(withdrawn("code"))
    assert opened(world.retry("code")) == [("plan", 1)]
    assert world.state("write") == "waiting"


def test_what_was_cancelled_because_nothing_needed_it_comes_back_alone():
    world = World("e")
    world.submit("plan: -> idea", "write: idea -> code")
    world.cancel("code")
    world.retry("idea")
    assert (world.state("plan"), world.state("write")) == ("running", "cancelled")


def test_a_cancelled_variable_without_producer_is_empty_again():
    world = World("e")
    world.submit("write: task -> code")
    world.cancel("task")
    world.retry("code")
    assert (world.state("task"), world.state("write")) == ("empty", "waiting")
    assert opened(world.set("task")) == [("write", 1)]


def test_retrying_what_has_not_failed_changes_nothing():
    world = World("e")
    world.submit("write: task -> code")
    assert world.retry("code") == world.retry("task") == []
    world.set("task")
    world.run("write")
    assert world.retry("code") == []


def test_a_native_call_is_offered_again():
    world = World()
    world.submit(calls=["check: -> ok"])
    world.answer("check", error="ZeroDivisionError")
    assert [one.call for one in only(world.retry("ok"), OfferCall)] == ["check"]
    world.answer("check", "fine")
    assert world.state("ok") == "ready"


def test_what_was_asked_for_is_as_urgent_as_before():
    world = World("e")
    world.submit("a: -> x", "b: x -> y")
    world.end("a", OOM)
    world.submit("c: y -> z", waits=["z"])
    world.retry("z")
    assert world.objectives() == {"a": "latency", "b": "latency", "c": "latency"}


def test_what_would_come_back_is_told_before_it_does():
    world = World("e")
    world.submit("a: -> x", "b: x -> y", "c: y -> z", "other: -> o", calls=["check: z -> ok"])
    world.end("a", OOM)
    world.end("other", OOM)
    assert back(world, "y") == ({"x", "y", "z", "ok"}, {"a", "b", "c", "check"})
    assert (world.state("a"), world.state("x")) == ("failed", "failed")


def test_what_another_failure_holds_back_is_not_told():
    world = World("e")
    world.submit("a: task -> x", "b: -> y", "merge: x y -> z")
    world.end("b", OOM)
    world.cancel("task")
    assert back(world, "task") == ({"task", "x"}, {"a"})
    assert back(world, "z") == ({"task", "x", "y", "z"}, {"a", "b", "merge"})


def test_outputs_that_were_ready_do_not_come_back():
    world = World("e")
    world.submit("joke: -> setup punchline")
    world.produce("joke", "setup", "kept")
    assert back(world, "punchline") == back(world, "setup") == (set(), set())
    world.end("joke", OOM)
    assert back(world, "punchline") == ({"punchline"}, {"joke"})
    assert back(world, "setup") == (set(), set())
