"""What a client may not do is refused with the right error, and a refused event leaves no trace."""

import dataclasses

import pytest
from machine_world import World, asked, call, request, retried, returned, session_ended, value_set, waited, withdrawn

from parrotserve.errors import AlreadyProduced, ForeignVariable, InvalidGraph, UnknownObject
from parrotserve.graph.events import Event, NewRequest, NewVariable, SessionTouched
from parrotserve.segments import Text


@pytest.fixture
def world() -> World:
    world = World("e")
    world.submit("write: task -> code", "test: code -> tests", values={"task": "snake"}, calls=["check: tests -> ok"])
    return world


class TestBatches:
    def test_a_cycle_is_named_along_its_path(self, world: World):
        batch = world.batch("a: x -> y", "b: y -> z", "c: z -> x")
        world.refuses(InvalidGraph, batch, match=r"'A' \(a\) -> 'B' \(b\) -> 'C' \(c\) -> 'A' \(a\)")

    def test_a_request_may_not_need_its_own_output(self, world: World):
        world.refuses(InvalidGraph, world.batch("a: x -> x"), match=r"'A' \(a\) -> 'A' \(a\)")

    def test_a_cycle_through_an_earlier_batch_is_found(self, world: World):
        world.submit("a: x -> y")
        batch = world.batch("b: y -> z", calls=["c: z -> x"])
        world.refuses(InvalidGraph, batch, match=r"in a cycle: .*native call 'C' \(c\)")

    def test_a_cycle_through_what_has_failed_is_found_too(self, world: World):
        world.submit("a: x bad -> y")
        world.cancel("bad")
        world.refuses(InvalidGraph, world.batch("b: y -> x"), match="cycle")

    @pytest.mark.parametrize("other", ["w: -> code", "w: task -> new code"])
    def test_a_variable_has_one_producer(self, world: World, other: str):
        error = world.refuses(InvalidGraph, world.batch(other), match=r"Both 'Write' \(write\) and 'W' \(w\) produce")
        assert error.details == {"variable": "code"}

    def test_in_one_batch_too(self, world: World):
        world.refuses(InvalidGraph, world.batch("a: -> x", calls=["b: -> x"]), match="Both")

    @pytest.mark.parametrize("values", [{}, {"x": "text"}])
    def test_what_has_a_value_cannot_be_produced(self, world: World, values: dict[str, str]):
        output = "x" if values else "task"
        world.refuses(AlreadyProduced, world.batch(f"w: -> {output}", values=values), match="has a value")

    def test_what_was_cancelled_cannot_be_produced(self, world: World):
        world.submit(variables=[NewVariable("x")])
        world.cancel("x")
        world.refuses(AlreadyProduced, world.batch("w: -> x"), match="was cancelled")

    def test_an_output_is_used_once_in_a_request(self, world: World):
        world.refuses(InvalidGraph, world.batch("w: -> x y x"), match="'x' twice")

    def test_a_request_has_an_output(self, world: World):
        empty = NewRequest(id="w", function="W", model="m", segments=(Text("hello"),))
        world.refuses(InvalidGraph, world.batch(empty), match="no output")

    def test_variables_are_declared(self, world: World):
        batch = world.batch("w: nowhere -> x", variables=[NewVariable("x")])
        error = world.refuses(UnknownObject, batch, match="'nowhere'")
        assert error.details == {"variable": "nowhere"}

    def test_a_wait_for_what_is_not_there_refuses_the_whole_batch(self, world: World):
        world.refuses(UnknownObject, world.batch("w: -> x", waits=["nowhere"]), match="'nowhere'")

    def test_the_model_is_served(self, world: World):
        error = world.refuses(UnknownObject, world.batch(request("w: -> x", model="gpt")), match="'gpt'; there are: m")
        assert error.details == {"model": "gpt"}

    def test_the_first_mistake_refuses_what_is_right_around_it(self, world: World):
        batch = world.batch("a: -> x", "b: x -> x", "c: x -> z", values={"new": "text"}, waits=["code"])
        world.refuses(InvalidGraph, batch)

    def test_a_refused_batch_makes_no_session(self, world: World):
        world.refuses(InvalidGraph, world.batch("b: x -> x", session="other"))
        world.refuses(UnknownObject, session_ended("other"))


class TestIds:
    @pytest.mark.parametrize(
        "again",
        [
            {"variables": [NewVariable("task", value="chess")]},
            {"variables": [NewVariable("task", "other", "snake")]},
            {"variables": [NewVariable("x"), NewVariable("x", "other")]},
        ],
    )
    def test_a_variable_is_one_thing(self, world: World, again: dict):
        world.refuses(InvalidGraph, world.batch(**again), match="stands for something else")

    @pytest.mark.parametrize("again", ["write: -> code", "write: task -> other"])
    def test_a_request_is_one_thing(self, world: World, again: str):
        world.refuses(InvalidGraph, world.batch(again), match="request id 'write' stands for something else")

    def test_a_native_call_is_one_thing(self, world: World):
        batch = world.batch(calls=[call("check: tests -> ok", timeout=3.0)])
        world.refuses(InvalidGraph, batch, match="native call id 'check'")

    def test_a_request_of_another_session_is_another_thing(self, world: World):
        batch = world.batch(world.machine.request("write").spec, session="s2", variables=[NewVariable("own")])
        world.refuses(InvalidGraph, batch, match="request id")


class TestOtherSessions:
    def test_what_another_session_produces_is_foreign(self, world: World):
        world.refuses(ForeignVariable, world.batch("w: code -> x", session="s2"), match="another session")

    def test_even_when_it_is_ready(self, world: World):
        world.run("write")
        world.refuses(ForeignVariable, world.batch("w: code -> x", session="s2"))

    def test_an_unset_variable_of_another_session_is_foreign(self, world: World):
        world.submit("w: later -> x")
        world.refuses(ForeignVariable, world.batch("w2: later -> y", session="s2"))

    def test_it_cannot_be_waited_for_set_or_cancelled_either(self, world: World):
        world.submit(session="s2")
        for event in (waited("code", session="s2"), value_set("code", session="s2"), withdrawn("code", session="s2")):
            world.refuses(ForeignVariable, event)


class TestOtherTenants:
    """What belongs to another tenant cannot be told from what is not there."""

    EVENTS = (waited("code"), value_set("code"), retried("code"), withdrawn("code"), session_ended(),
              returned("check", "yes"), SessionTouched(session="s", tenant="t", attached=1))  # fmt: skip

    @pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
    def test_its_session_is_unknown(self, event: Event):
        foreign, absent = World("e"), World("e")
        foreign.submit("write: -> code", calls=["check: code -> ok"])
        event = dataclasses.replace(event, tenant="thief")
        messages = {str(world.refuses(UnknownObject, event)) for world in (foreign, absent)}
        assert len(messages) == 1

    def test_its_session_cannot_be_added_to(self, world: World):
        world.refuses(UnknownObject, world.batch(tenant="thief"))

    def test_its_set_values_are_unknown(self, world: World):
        world.refuses(UnknownObject, world.batch("w: task -> x", session="s2", tenant="thief"), match="'task'")

    def test_its_views_are_refused(self, world: World):
        with pytest.raises(UnknownObject):
            world.machine.session_view("s", "thief")
        with pytest.raises(UnknownObject):
            world.machine.revival("s", "thief", "code")


class TestSettingAndReturning:
    def test_a_produced_variable_cannot_be_set(self, world: World):
        world.refuses(AlreadyProduced, value_set("code"), match=r"produced by 'Write' \(write\)")

    def test_a_set_variable_cannot_be_set_to_something_else(self, world: World):
        world.refuses(AlreadyProduced, value_set("task"), match="has a value")

    def test_setting_a_variable_again_to_what_it_is_changes_nothing(self, world: World):
        assert world.set("task", "snake") == []
        world.submit(variables=[NewVariable("x")])
        world.set("x", "first")
        assert world.set("x", "first") == []
        world.refuses(AlreadyProduced, value_set("x", "second"), match="has a value")

    def test_what_was_produced_cannot_be_set_even_to_what_it_is(self, world: World):
        world.produce("write", "code", "print()")
        world.refuses(AlreadyProduced, value_set("code", "print()"), match="produced by")

    def test_a_cancelled_variable_cannot_be_set(self, world: World):
        world.submit(variables=[NewVariable("x")])
        world.cancel("x")
        world.refuses(AlreadyProduced, value_set("x"), match="was cancelled")

    def test_a_native_call_that_was_not_handed_out_cannot_return(self, world: World):
        world.refuses(InvalidGraph, returned("check", "yes"), match="inputs are not known")

    @pytest.mark.parametrize("result", [{}, {"value": "yes", "error": "no"}])
    def test_a_result_is_a_value_or_an_error(self, world: World, result: dict[str, str]):
        world.run("write")
        world.run("test")
        world.refuses(InvalidGraph, returned("check", **result), match="either")

    def test_an_unknown_call_is_unknown(self, world: World):
        world.refuses(UnknownObject, returned("nothing", "yes"))

    def test_one_bad_wait_spoils_the_others(self, world: World):
        event = waited("code")
        world.refuses(UnknownObject, type(event)(session="s", tenant="t", waits=(*event.waits, asked("nowhere"))))
