"""Running ahead: who is read while an input is still being written, where, and what comes of it in trouble."""

from typing import Any

import pytest
from machine_world import World, only, request, returned, withdrawn

from parrotserve.errors import EngineFailed
from parrotserve.graph.decisions import (
    CancelSequence,
    CompleteSequence,
    Decision,
    OpenSequence,
    UpdateSequence,
)
from parrotserve.graph.events import NewRequest
from parrotserve.graph.placements import PlacedBy
from parrotserve.ids import RequestId, VariableId
from parrotserve.sampling import Sampling
from parrotserve.segments import Input, Output, Text
from parrotserve.switches import Switches
from parrotserve.transforms import Transform


def world(*engines: str, switches: Switches = Switches(), **fields: Any) -> World:
    made = World(switches=switches)
    for engine in engines or ("e",):
        made.join(engine, **{"late": True, "places": 64} | fields)
    return made


def ahead(decisions: list[Decision]) -> dict[str, str]:
    return {one.request: one.engine for one in only(decisions, OpenSequence) if one.ahead}


def opened(decisions: list[Decision]) -> dict[str, str]:
    return {one.request: one.engine for one in only(decisions, OpenSequence) if not one.ahead}


def test_who_reads_what_is_being_written_is_opened_beside_its_writer():
    here = world("e", "f")
    here.submit("other: -> o")
    decisions = here.submit("write: -> code", "test: code -> test")
    assert opened(decisions).keys() == ahead(decisions).keys() - {"test"} | {"write"}
    assert ahead(decisions) == {"test": opened(decisions)["write"]}
    assert here.state("test") == "waiting"
    (update,) = only(decisions, UpdateSequence)
    assert (update.request, update.stream, update.follow) == ("write", frozenset(), {"code"})


def test_it_is_completed_where_it_was_read_when_its_last_input_is_known():
    here = world()
    here.submit("write: -> code", "test: code -> test", waits=["test"])
    decisions = here.produce("write", "code")
    (complete,) = only(decisions, CompleteSequence)
    assert (complete.request, complete.engine, complete.epoch, complete.objective) == ("test", "e", 0, "latency")
    assert opened(decisions) == {}
    assert here.state("test") == "running"
    placement = here.machine.request(RequestId("test")).placement
    assert placement is not None
    assert placement.by is PlacedBy.AHEAD


def test_a_reader_that_another_model_is_to_answer_is_opened_where_that_one_runs():
    here = world()
    here.join("big", model="n", late=True)
    decisions = here.submit("write: -> code", request("test: code -> test", model="n"))
    assert (opened(decisions), ahead(decisions)) == ({"write": "e"}, {"test": "big"})
    (update,) = only(decisions, UpdateSequence)
    assert (update.request, update.engine, update.follow) == ("write", "e", {"code"})


def test_a_reader_that_comes_later_is_opened_at_once():
    here = world()
    here.submit("write: -> code")
    assert ahead(here.submit("test: code -> test")) == {"test": "e"}


def test_who_waits_for_a_native_call_is_read_where_the_call_s_input_was_written():
    here = world("e", "f")
    here.submit("other: -> o")
    where = opened(here.submit("write: -> query", "answer: found -> text", calls=["search: query -> found"]))["write"]
    assert ahead(here.produce("write", "query")) == {"answer": where}
    assert here.state("answer") == "waiting"
    (complete,) = only(here.answer("search", "what was found"), CompleteSequence)
    assert (complete.request, complete.engine) == ("answer", where)


def test_a_native_call_that_reads_nothing_written_lets_its_reader_be_read_where_the_fewest_run():
    here = world("e", "f")
    busy = opened(here.submit("other: -> o"))["other"]
    assert ahead(here.submit("answer: found -> text", calls=["search: -> found"])) == {
        "answer": "f" if busy == "e" else "e"
    }


def test_nobody_is_read_for_a_native_call_that_has_not_begun():
    here = world()
    assert ahead(here.submit("write: -> query", "answer: found -> text", calls=["search: query -> found"])) == {}


def test_a_reader_whose_native_call_fails_is_read_no_more():
    here = world()
    here.submit("answer: found -> text", calls=["search: -> found"])
    (cancel,) = only(here.answer("search", error="down"), CancelSequence)
    assert (cancel.request, cancel.engine) == ("answer", "e")


def test_the_first_input_that_is_missing_decides():
    here = world()
    here.submit("one: -> a", "two: b0 -> b", "both: a b -> c", "reversed: b a -> d")
    assert here.machine.request(RequestId("both")).ahead == "e"
    assert here.machine.request(RequestId("reversed")).ahead is None
    decisions = here.set("b0")
    assert ahead(decisions) == {"reversed": "e"}


def test_text_flows_for_the_next_missing_input_too():
    here = world()
    here.submit("one: -> a", "two: -> b", "both: a b -> c")
    (update,) = only(here.produce("one", "a"), UpdateSequence)
    assert (update.request, update.follow) == ("two", {"b"})


@pytest.mark.parametrize(("transform", "flows"), [("strip", False), ("lines", True)])
def test_text_flows_only_through_what_does_not_need_the_whole(transform: str, flows: bool):
    here = world()
    transforms = (Transform(transform, (1, 2) if transform == "lines" else ()),)
    reader = NewRequest(
        id=RequestId("r"), function="f", model="m",
        segments=(Text("Read "), Input(VariableId("code"), transforms), Output(VariableId("x"), Sampling(seed=0))),
    )  # fmt: skip
    decisions = here.submit("write: -> code", reader)
    assert ahead(decisions) == {"r": "e"}
    assert bool(only(decisions, UpdateSequence)) == flows


def test_it_takes_no_place_of_those_that_can_run():
    here = world(batch=1)
    here.submit("write: -> code", "test: code -> test", "other: -> o")
    assert here.state("other") == "queued"
    decisions = here.run("write")
    assert only(decisions, CompleteSequence) or opened(decisions)
    assert len(here.running()) == 1


def test_one_that_finds_no_room_where_it_was_read_goes_elsewhere():
    here = world("e", "f", batch=1)
    decisions = here.submit("write: -> code", "test: code -> test", waits=["test"])
    where = ahead(decisions)["test"]
    decisions = here.produce("write", "code")  # its writer has not ended: its engine is full
    (cancel,) = only(decisions, CancelSequence)
    assert (cancel.request, cancel.engine, cancel.epoch) == ("test", where, 0)
    (opening,) = only(decisions, OpenSequence)
    assert opening.engine != where
    assert opening.epoch == 1


@pytest.mark.parametrize("fields", [{"late": False}, {"places": 3}])
def test_only_an_engine_that_can_and_has_room_is_asked_to(fields: dict[str, Any]):
    here = world(**fields)
    assert ahead(here.submit("write: -> code", "test: code -> test")) == {}


def test_nor_without_the_switch():
    here = world(switches=Switches(ahead=False))
    assert ahead(here.submit("write: -> code", "test: code -> test")) == {}


def test_an_engine_reads_only_so_many_ahead():
    here = world(places=1000)
    readers = [f"r{number}: code -> x{number}" for number in range(100)]
    assert len(ahead(here.submit("write: -> code", *readers))) == 16


class TestSlowCalls:
    """Native calls may take for ever, and what is to read their results is read by then."""

    @pytest.fixture
    def here(self) -> World:
        """All places are taken by those who wait for calls."""
        made = world(places=1000)
        self.ask(made, 20, tenant="t")
        return made

    def ask(self, here: World, count: int, *, tenant: str) -> list[Decision]:
        return here.submit(
            *(f"{tenant}-r{number}: {tenant}-f{number} -> {tenant}-x{number}" for number in range(count)),
            calls=[f"{tenant}-slow{number}: -> {tenant}-f{number}" for number in range(count)],
            session=f"of-{tenant}",
            tenant=tenant,
        )

    def test_who_reads_what_is_being_written_takes_a_place_of_theirs(self, here: World):
        decisions = here.submit("write: -> code", "test: code -> test")
        assert ahead(decisions) == {"test": "e"}
        (cancel,) = only(decisions, CancelSequence)
        assert (cancel.request, cancel.engine, cancel.epoch) == ("t-r0", "e", 0)
        assert here.machine.request(RequestId("t-r0")).ahead is None

    def test_and_who_lost_it_runs_when_its_call_has_ended(self, here: World):
        here.submit("write: -> code", "test: code -> test")
        (opening,) = only(here.handle(returned("t-slow0", "found", session="of-t")), OpenSequence)
        assert (opening.request, opening.ahead, opening.epoch) == ("t-r0", False, 1)

    def test_other_tenants_get_as_many_places_for_theirs(self, here: World):
        assert len(ahead(self.ask(here, 20, tenant="u"))) == 8
        assert len(ahead(self.ask(here, 20, tenant="v"))) == 6
        assert ahead(self.ask(here, 3, tenant="w")).keys() == {"w-r0", "w-r1", "w-r2"}

    def test_but_none_of_those_who_read_what_is_being_written(self):
        here = world(places=1000)
        here.submit("write: -> code", *(f"r{number}: code -> x{number}" for number in range(20)))
        assert ahead(self.ask(here, 20, tenant="u")) == {}

    def test_nor_of_those_that_are_about_to_run(self):
        here = world("e", places=1000, batch=1)
        self.ask(here, 16, tenant="t")
        here.submit("write: -> code")
        for number in range(16):
            here.handle(returned(f"t-slow{number}", "found", session="of-t"))
        assert ahead(here.submit("test: code -> test")) == {}


class TestTrouble:
    @pytest.fixture
    def here(self) -> World:
        made = world()
        made.submit("write: -> code", "test: code -> test", waits=["test"])
        return made

    def test_a_cancelled_reader_is_cancelled_there(self, here: World):
        (cancel,) = [one for one in only(here.cancel("test"), CancelSequence) if one.request == "test"]
        assert (cancel.engine, cancel.epoch) == ("e", 0)

    def test_a_failed_writer_takes_its_readers_along(self, here: World):
        decisions = here.end("write", EngineFailed("boom"))
        assert [one.request for one in only(decisions, CancelSequence)] == ["test"]
        assert here.state("test") == "failed"

    def test_and_a_retry_brings_both_back(self, here: World):
        here.end("write", EngineFailed("boom"))
        decisions = here.retry("test")
        assert (opened(decisions), ahead(decisions)) == ({"write": "e"}, {"test": "e"})
        assert here.epoch("test") > 1

    def test_a_lost_engine_is_no_death_of_who_was_only_read(self, here: World):
        here.lose("e")
        assert here.machine.request(RequestId("test")).deaths == ()
        decisions = here.join("e", late=True)
        assert (opened(decisions), ahead(decisions)) == ({"write": "e"}, {"test": "e"})
        (update,) = only(decisions, UpdateSequence)
        assert (update.request, update.epoch, update.follow) == ("write", 1, {"code"})

    def test_what_an_engine_does_not_like_ahead_is_tried_again_when_it_can_run(self, here: World):
        here.end("test", EngineFailed("too long"))
        assert here.state("test") == "waiting"
        assert opened(here.produce("write", "code")) == {"test": "e"}
        here.end("test", EngineFailed("too long"))
        assert here.state("test") == "failed"

    def test_late_events_of_what_was_read_ahead_elsewhere_are_ignored(self, here: World):
        here.lose("e")
        assert here.end("test", EngineFailed("late"), epoch=0) == []

    def test_the_end_of_a_session_ends_it(self, here: World):
        cancelled = [one.request for one in only(here.end_session(), CancelSequence)]
        assert sorted(cancelled) == ["test", "write"]


def test_what_comes_back_by_a_retry_is_read_while_its_input_is_being_written():
    here = world()
    here.submit("write: -> code", "test: code -> test", "review: code -> review")
    here.cancel("review")
    assert here.state("write") == "running"
    assert ahead(here.retry("review")) == {"review": "e"}


def test_a_reader_that_leaves_for_a_suspect_may_be_placed_elsewhere_in_the_same_pass():
    here = world("e", "f", "g", places=8, batch=1)
    here.submit("write: -> code", "tell: run -> end", calls=["test: code -> run"])
    here.run("write")
    read_on = here.machine.request(RequestId("tell")).ahead
    here.submit("one: -> x", "two: -> y", session="others")
    here.submit("bad: -> z", session="bad")
    here.lose("g")
    here.join("g", late=True, places=8, batch=1)
    here.lose("g")
    here.answer("test", "fine")
    assert (here.state("tell"), here.machine.request(RequestId("tell")).ahead) == ("queued", read_on)
    decisions = here.end_session("others")
    assert opened(decisions).keys() == {"bad", "tell"}
    assert [one.request for one in only(decisions, CancelSequence)].count("tell") == 1
    assert {here.state("tell"), here.state("bad", "bad")} == {"running"}


@pytest.mark.parametrize("leaves", range(20))
def test_of_many_engines_one_that_a_reader_leaves_is_seen_to_have_room(leaves: int):
    here = world(*(f"e{number}" for number in range(20)), places=4, batch=4)
    for number in range(20):
        here.submit(f"a{number}: -> x{number}", session=f"s{number}")
    for number in range(20):
        here.submit(f"b{number}: x{number} -> y{number}", session=f"s{number}")
    for number in range(40):
        here.submit(f"c{number}: -> z{number}", session=f"t{number}")
    here.submit("next: -> last", session="next")
    assert here.state("next", "next") == "queued"
    here.handle(withdrawn(f"y{leaves}", session=f"s{leaves}"))
    assert here.state("next", "next") == "running"
