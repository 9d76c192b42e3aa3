"""Native calls are handed to the session's client when their inputs are known, and time out."""

from dataclasses import replace

import pytest
from machine_world import World, call, only, returned

from parrotserve.errors import InvalidGraph, NativeCallFailed
from parrotserve.graph.decisions import OfferCall, OpenSequence, PublishFailure, PublishValue, RevokeCall, RunCall
from parrotserve.graph.events import CallRan
from parrotserve.ids import CallId, VariableId
from parrotserve.native_calls import SandboxedCall, Slot


def test_a_call_is_offered_with_its_inputs_in_their_order():
    world = World()
    world.submit(calls=["join: a b a -> c"], values={"a": "1", "b": "2"})
    world.submit(calls=["again: c -> d"])
    decisions = world.answer("join", "121")
    assert decisions[0] == PublishValue(variable="c", value="121", reason=None)
    assert only(decisions, OfferCall) == [OfferCall(session="s", call="again", function="Again", inputs=("121",))]


def test_requests_and_calls_feed_each_other():
    world = World("e")
    world.submit("write: -> code", "fix: report -> better", calls=["check: code -> report"])
    assert [one.inputs for one in only(world.run("write"), OfferCall)] == [("<code>",)]
    assert [one.request for one in only(world.answer("check", "ok"), OpenSequence)] == ["fix"]


def test_an_error_fails_the_call_and_what_is_downstream():
    world = World("e")
    world.submit("fix: report -> better", calls=["check: -> report"])
    failures = only(world.answer("check", error="ValueError: no code"), PublishFailure)
    assert [type(failure.error) for failure in failures] == [NativeCallFailed] * 2
    assert str(failures[1].error) == (
        "'Fix' (fix) was not run: native call 'Check' (check) failed: ValueError: no code"
    )
    assert failures[1].error.details == {"request": "fix", "function": "Fix", "upstream": "check"}


def test_an_error_of_any_length_is_told_briefly_wherever_it_is_told():
    world = World("e")
    world.submit(*(f"r{number}: report -> o{number}" for number in range(50)), calls=["check: -> report"])
    failures = only(world.answer("check", error="bad " * 100_000), PublishFailure)
    assert len(failures) == 51
    assert {str(failure.error).count("bad") for failure in failures} == {1000}


@pytest.mark.parametrize("where", ["client", "sandbox"])
def test_what_a_call_is_given_has_a_bound(where: str):
    world = World("e")
    sandboxed = replace(SHOUT, arguments=("[", Slot(VariableId("long")), ",", Slot(VariableId("code"))) * 40)
    name = "check: " + "long code " * 40 + "-> ok"
    made = call("check: long code -> ok", sandboxed=sandboxed) if where == "sandbox" else call(name)
    other = call("see: long code -> seen")
    world.submit("write: -> code", "use: ok -> end", calls=[made, other], values={"long": "x" * (1 << 20)})
    decisions = world.run("write")
    assert [one.call for one in only(decisions, OfferCall)] == ["see"]
    assert only(decisions, RunCall) == []
    for name in ("ok", "end"):
        assert type(world.error(name)) is NativeCallFailed
        assert "would be given 41,943,280 characters" in str(world.error(name))
    world.retry("end")
    assert "would be given" in str(world.error("end"))


def test_a_second_answer_is_ignored():
    world = World()
    world.submit(calls=["check: -> ok"])
    world.answer("check", "first")
    assert world.answer("check", "second") == world.answer("check", error="third") == []
    assert world.variable("ok").value == "first"


def test_the_timeout_counts_from_the_offer():
    world = World()
    world.submit(calls=[call("check: code -> ok", timeout=5.0)])
    world.touch(attached=1)
    assert world.machine.next_deadline() is None
    world.now = 100.0
    world.set("code")
    assert world.machine.next_deadline() == 105.0
    assert world.tick(104.9) == []
    decisions = world.tick(105.0)
    assert only(decisions, RevokeCall) == [RevokeCall(session="s", call="check")]
    assert type(world.error("ok")) is NativeCallFailed
    assert "timeout of 5 s" in str(world.error("ok"))
    assert world.machine.next_deadline() is None


def test_an_answer_in_time_stops_the_clock():
    world = World()
    world.submit(calls=[call("check: -> ok", timeout=5.0)])
    world.answer("check", "yes")
    world.touch(attached=1)
    assert world.machine.next_deadline() is None


def test_a_retried_call_has_its_whole_timeout():
    world = World()
    world.submit(calls=[call("check: -> ok", timeout=5.0)])
    world.touch(attached=1)
    world.tick(5.0)
    world.retry("ok")
    assert world.machine.next_deadline() == 10.0


@pytest.mark.parametrize("late", [{"value": "old"}, {"error": "too slow"}])
def test_a_late_answer_to_an_earlier_attempt_is_ignored(late: dict[str, str]):
    world = World()
    world.submit(calls=[call("check: -> ok", timeout=5.0)])
    world.tick(5.0)
    assert [one.attempt for one in only(world.retry("ok"), OfferCall)] == [2]
    assert world.answer("check", **late, attempt=1) == []
    world.answer("check", "new", attempt=2)
    assert world.variable("ok").value == "new"


def test_a_late_answer_is_ignored_while_the_next_attempt_waits_for_inputs():
    world = World("e")
    world.submit("write: -> code", calls=["check: code -> ok"])
    world.run("write")
    world.cancel("ok")
    world.retry("ok")
    assert world.answer("check", "old", attempt=1) == []


def test_an_answer_that_names_no_attempt_is_to_the_last():
    world = World()
    world.submit(calls=["check: -> ok"])
    world.answer("check", error="no")
    world.retry("ok")
    world.answer("check", "yes")
    assert world.variable("ok").value == "yes"


def test_an_error_of_the_client_itself_needs_no_revocation():
    world = World()
    world.submit(calls=["check: -> ok"])
    assert only(world.answer("check", error="no"), RevokeCall) == []


def test_a_call_that_is_cancelled_stops_its_clock():
    world = World()
    world.submit(calls=[call("check: -> ok", timeout=5.0)])
    world.touch(attached=1)
    world.cancel("ok")
    assert world.machine.next_deadline() is None


TEXT = ('{"text":', Slot(VariableId("code")), "}")
SHOUT = SandboxedCall(name="shout", source="...", file="", line=1, arguments=TEXT)


class TestInTheSandbox:
    def world(self) -> World:
        world = World("e")
        world.submit("write: -> code", "fix: loud -> fixed", calls=[call("shout: code -> loud", sandboxed=SHOUT)])
        return world

    def ran(self, world: World, value: str | None = None, error: str | None = None) -> list[object]:
        return list(world.handle(CallRan(call=CallId("shout"), value=value, error=error)))

    def test_it_is_run_and_not_offered_when_its_inputs_are_known(self):
        decisions = self.world().run("write")
        assert only(decisions, OfferCall) == []
        assert only(decisions, RunCall) == [
            RunCall(session="s", tenant="t", call="shout", sandboxed=SHOUT, values={"code": "<code>"})
        ]

    def test_its_result_lets_its_consumers_run(self):
        world = self.world()
        world.run("write")
        decisions = world.handle(CallRan(call=CallId("shout"), value="LOUD"))
        assert only(decisions, PublishValue) == [PublishValue(variable="loud", value="LOUD", reason=None)]
        assert [one.request for one in only(decisions, OpenSequence)] == ["fix"]

    def test_its_error_fails_what_is_downstream(self):
        world = self.world()
        world.run("write")
        decisions = world.handle(CallRan(call=CallId("shout"), error="too long"))
        assert [one.variable for one in only(decisions, PublishFailure)] == ["loud", "fixed"]
        assert "native call 'Shout' (shout) failed: too long" in str(world.error("fixed"))

    def test_no_client_can_answer_it(self):
        world = self.world()
        world.run("write")
        world.refuses(InvalidGraph, returned("shout", "mine"), match="The service itself runs native call")

    def test_it_is_no_contact_with_the_client(self):
        world = self.world()
        world.now = 20.0
        world.run("write")
        world.handle(CallRan(call=CallId("shout"), value="LOUD"))
        assert world.machine.next_deadline() == 30.0

    def test_cancelled_it_is_revoked_and_a_late_result_is_ignored(self):
        world = self.world()
        world.run("write")
        assert only(world.cancel("loud"), RevokeCall) == [RevokeCall(session="s", call="shout")]
        assert self.ran(world, "late") == []
        assert type(world.error("loud")).__name__ == "Cancelled"

    def test_a_result_of_a_session_that_has_ended_is_ignored(self):
        world = self.world()
        world.run("write")
        assert only(world.end_session(), RevokeCall) == [RevokeCall(session="s", call="shout")]
        assert self.ran(world, "late") == []

    def test_it_can_be_retried(self):
        world = self.world()
        world.run("write")
        self.ran(world, error="not now")
        assert [one.values for one in only(world.retry("loud"), RunCall)] == [{"code": "<code>"}]
        assert only(world.handle(CallRan(call=CallId("shout"), value="LOUD")), PublishValue) != []
