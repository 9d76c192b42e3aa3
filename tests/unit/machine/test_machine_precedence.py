"""Which of an engine's requests of one objective goes first: what was submitted earlier."""

from machine_world import World, only
from placing import asking, waits

from parrotserve.criteria import NO_PRECEDENCE, Precedence
from parrotserve.graph.decisions import CompleteSequence, Decision, OpenSequence, UpdateSequence
from parrotserve.ids import TenantId
from parrotserve.switches import Switches


def precedences(decisions: list[Decision]) -> dict[str, Precedence]:
    return {one.request: one.precedence for one in only(decisions, OpenSequence)}


def job(world: World, name: str, tenant: str = "local") -> dict[str, Precedence]:
    """Two maps and a reduce, submitted together."""
    maps = [asking(f"{name}{part}", f"{name} {part}") for part in (1, 2)]
    reduce = asking(f"{name}-reduce", "sum up", reads=[f"o-{name}1", f"o-{name}2"])
    return precedences(world.submit(*maps, reduce, session=name, tenant=TenantId(tenant)))


def test_what_is_submitted_together_goes_together():
    first = job(World("e"), "a")
    assert first["a1"] == first["a2"]


def test_what_is_submitted_later_goes_later():
    world = World("e")
    assert job(world, "a")["a1"] < job(world, "b")["b1"]


def test_later_steps_of_earlier_work_go_before_first_steps_of_later_work():
    world = World("e")
    maps, others = job(world, "a"), job(world, "b")
    world.run("a1")
    reduce = precedences(world.run("a2"))["a-reduce"]
    assert reduce < others["b1"]
    assert reduce >= maps["a1"]


def test_engines_are_told_how_many_stages_follow():
    world = World("e")
    chain = asking("first", "begin"), asking("then", "go on", reads=["o-first"])
    begun = precedences(world.submit(*chain, asking("alone", "x"), waits=waits("then", "alone")))
    assert {name: one.stages for name, one in begun.items()} == {"first": 1, "alone": 0}
    assert precedences(world.run("first"))["then"].stages == 0


def test_after_a_pause_other_tenants_keep_their_places():
    world = World("e")
    world.submit(asking("waits", "sum up", reads=["late"]))
    bob = job(world, "b", "bob")
    later = job(world, "c", "t")
    waiting = precedences(world.set("late"))["waits"]
    assert bob["b1"] < waiting < later["c1"]


def test_a_long_job_lets_another_tenants_go_before_what_it_has_still_to_come():
    world = World()
    world.join("e", batch=4)
    world.submit(*(asking(f"a{part}", f"a {part}", tokens=500) for part in range(40)), tenant="ann", session="a")
    bob = precedences(world.submit(asking("b", "b"), tenant="bob", session="b") + world.run("a0"))["b"]
    later = [precedences(world.run(f"a{part}"))[f"a{part + 3}"] for part in range(1, 30)]
    assert later[0] < bob
    assert all(one > bob for one in later[10:])


def test_one_that_ran_ahead_goes_where_it_was_submitted():
    world = World()
    world.join("e", late=True)
    world.submit(asking("a1", "a", tokens=200), asking("a2", "b", reads=["o-a1"]), session="a")
    later = precedences(world.submit(asking("b1", "c"), session="b"))
    (completed,) = only(world.run("a1"), CompleteSequence)
    assert completed.precedence < later["b1"]


def test_without_groups_engines_go_by_arrival():
    world = World("e", switches=Switches(groups=False))
    assert set(job(world, "a").values()) == {NO_PRECEDENCE}


def test_engines_are_told_how_many_stages_follow_once_somebody_waits():
    world = World("e")
    world.submit(asking("first", "begin"), asking("then", "go on", reads=["o-first"]))
    (update,) = only(world.wait("o-then"), UpdateSequence)
    assert update.precedence is not None
    assert (update.request, update.precedence.stages) == ("first", 1)
