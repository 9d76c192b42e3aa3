"""Who is big and waited for holds nobody up on other engines, and is held up by nobody for ever."""

import pytest
from machine_world import World, withdrawn
from placing import POEM, asking, places, steps, waits

from parrotserve.criteria import Criteria
from parrotserve.graph.decisions import Decision
from parrotserve.graph.events import TenantWeighed
from parrotserve.graph.placements import Lack
from parrotserve.ids import RequestId, TenantId
from parrotserve.switches import Switches

BIG = {"tokens": 250}
"""With the poem, 750 tokens of the 800 that an engine takes."""


def world(*engines: str, **fields: object) -> World:
    """Engines, each with one request of which the first one is the longest."""
    made = World(switches=Switches.without(["prefix"]))
    for number, engine in enumerate(engines):
        made.join(engine, cache_tokens=800, **fields)
        name = f"on-{engine}"
        assert places(urgent(made, name, tokens=650 - 250 * number)) == {name: engine}
    return made


def urgent(made: World, name: str, *parts: str, tokens: int = 100, tenant: str = "t") -> list[Decision]:
    """Ask for a request that somebody waits for."""
    return made.submit(asking(name, *parts, tokens=tokens), session=tenant, tenant=tenant, waits=waits(name))


def state(made: World, name: str) -> str:
    return made.machine.request(RequestId(name)).state


def test_those_behind_it_go_on_elsewhere_and_not_where_it_will_have_room_first():
    here = world("e", "f")
    urgent(here, "big", POEM, **BIG)
    where = places([one for number in range(4) for one in urgent(here, f"small{number}")])
    assert where == {"small0": "e"}, "the other engine has room for two, which the big one waits for"
    assert places(here.run("on-f")) == {"big": "f"}


@pytest.mark.parametrize(("weight", "goes"), [(100.0, {}), (0.01, {"small": "f"})])
def test_other_tenants_take_that_room_only_if_they_add_less_to_steps_there(weight: float, goes: dict[str, str]):
    here = world("e", "f")
    here.handle(TenantWeighed(TenantId("t"), weight))
    assert places(urgent(here, "theirs", tokens=50, tenant="other")) == {"theirs": "f"}
    urgent(here, "big", POEM, **BIG)
    assert places(urgent(here, "small", tokens=160, tenant="other")) == goes


def test_it_has_room_in_the_end_however_many_small_ones_come():
    here = world("e", "f")
    urgent(here, "big", POEM, **BIG)
    for number in range(20):
        urgent(here, f"small{number}", tokens=60)
        if number == 10:
            here.run("on-f")
        elif running := here.running("e") - {"on-e"}:
            here.run(min(running))
    assert state(here, "big") == "running"
    assert state(here, "small19") == "running"


def test_nor_does_work_for_which_nobody_waits_take_the_room():
    here = world("e", pauses=False)
    urgent(here, "big", POEM, **BIG)
    assert places(here.submit(asking("bulk", "x", tokens=50))) == {}
    assert places(here.run("on-e")) == {"big": "e"}
    assert places(here.run("big")) == {"bulk": "e"}


def test_unless_it_can_be_taken_back():
    here = world("e", pauses=True)
    urgent(here, "big", POEM, **BIG)
    assert places(here.submit(asking("bulk", "x", tokens=50))) == {"bulk": "e"}


def test_or_is_its_minimum_share():
    here = world("e", pauses=False)
    urgent(here, "big", POEM, **BIG)
    here.submit(asking("bulk", "x", tokens=50), waits=waits("bulk", criteria=Criteria.THROUGHPUT))
    assert state(here, "bulk") == "queued"
    assert places(steps(here, rows=1, seconds=1.0)) == {"bulk": "e"}


@pytest.mark.parametrize(("tenant", "more"), [("t", {}), ("other", {"big2": "f"})])
def test_one_engine_is_kept_for_each_tenant_that_has_such_requests(tenant: str, more: dict[str, str]):
    here = world("e", "f", "g")
    urgent(here, "big", POEM, **BIG)
    urgent(here, "big2", POEM, **BIG, tenant=tenant)
    kept = here.machine._scheduler._pools["m"].kept_for  # type: ignore[attr-defined]
    assert {request.id: load.id for request, load in kept.items()} == {"big": "g"} | more


def test_who_is_waited_for_alone_goes_before_a_member_of_a_group_that_is_big():
    here = world("e")
    parts = [asking("m0", POEM, **BIG), asking("m1", POEM, **BIG)]
    here.submit(*parts, asking("reduce", "sum up", reads=["o-m0", "o-m1"]), session="t", waits=waits("reduce"))
    assert places(urgent(here, "chat")) == {"chat": "e"}
    urgent(here, "next", POEM, **BIG)
    assert places(urgent(here, "small", tokens=60)) == {}
    here.run("chat")
    assert places(here.run("on-e")) == {"next": "e"}


def test_but_not_for_ever():
    here = world("e")
    parts = [asking("m0", POEM, **BIG), asking("m1", POEM, **BIG)]
    here.submit(*parts, asking("reduce", "sum up", reads=["o-m0", "o-m1"]), session="t", waits=waits("reduce"))
    for number in range(12):
        steps(here, rows=1, seconds=0.5)
        urgent(here, f"chat{number}")
        here.run(min(here.running() - {"on-e"}, default="on-e"))
        urgent(here, f"more{number}")
    assert state(here, "m0") == "running"


def test_what_is_cancelled_holds_nobody_up_any_more():
    here = world("e", "f")
    urgent(here, "big", POEM, **BIG)
    urgent(here, "small")
    urgent(here, "next", tokens=300)
    assert state(here, "next") == "queued"
    assert places(here.handle(withdrawn("o-big", session="t"))) == {"next": "f"}


def test_where_the_engine_is_lost_that_was_kept_another_one_is():
    here = world("e", "f")
    urgent(here, "big", POEM, **BIG)
    here.lose("f")
    assert places(here.run("on-e")) == {"on-f": "e"}
    assert places(urgent(here, "small")) == {}
    assert places(here.run("on-f")) == {"big": "e"}


def test_members_of_a_group_go_past_one_that_is_big():
    here = world("e", "f")
    parts = [asking("m0", POEM, **BIG), asking("m1", "x", tokens=100)]
    reduce = asking("reduce", "sum up", reads=["o-m0", "o-m1"])
    assert places(here.submit(*parts, reduce, session="t", waits=waits("reduce"))) == {"m1": "e"}
    assert places(here.run("on-f")) == {"m0": "f"}


def lacks(made: World, name: str) -> dict[str, Lack | None]:
    """Why a request could not begin on the engines that were not chosen."""
    placement = made.machine.request(RequestId(name)).placement
    assert placement is not None
    return {one.engine: one.lacks for one in placement.others}


def test_why_an_engine_was_not_taken_is_told():
    here = world("e", "f")
    urgent(here, "big", POEM, **BIG)
    urgent(here, "small")
    assert lacks(here, "small") == {"f": Lack.KEPT}
    here.run("on-f")
    assert lacks(here, "big") == {"e": Lack.ROOM}


def test_and_so_it_is_where_its_tenant_may_add_no_more():
    here = World("e")
    urgent(here, "ann", tenant="ann")
    here.join("f")
    for number in range(40):
        urgent(here, f"bob{number}", tenant="bob")
    assert lacks(here, "bob39") == {"e": Lack.TENANT}
