"""Cancelling a variable: its producer, what is downstream, and what upstream nothing else needs."""

from machine_world import World, asked, only

from parrotserve.criteria import Criteria
from parrotserve.errors import Cancelled
from parrotserve.graph.decisions import CancelSequence, OpenSequence, PublishFailure, RevokeCall, SettleRequest
from parrotserve.ids import RequestId
from parrotserve.sampling import Usage


def stopped(decisions: list) -> list[str]:
    return [one.request for one in only(decisions, CancelSequence)]


def test_a_running_request_is_stopped_and_its_place_goes_to_the_next():
    world = World("e", places=1)
    world.submit("write: -> code", "other: -> text")
    decisions = world.cancel("code")
    assert [type(decision) for decision in decisions] == [CancelSequence, SettleRequest, PublishFailure, OpenSequence]
    assert decisions[0] == CancelSequence(request="write", engine="e", epoch=0)
    assert str(world.error("code")) == "'Write' (write) was cancelled"
    assert type(world.error("code")) is Cancelled


def test_a_queued_request_leaves_the_queue():
    world = World("e", places=1)
    world.submit("first: -> x", "second: -> y")
    world.cancel("y")
    assert world.waiting() == 0
    assert only(world.run("first"), OpenSequence) == []


def test_what_is_downstream_is_cancelled_with_the_cause():
    world = World("e")
    world.submit("write: -> code", "test: code -> tests")
    world.cancel("code")
    assert world.state("test") == "cancelled"
    assert str(world.error("tests")) == "'Test' (test) was not run: 'Write' (write) was cancelled"


def test_producers_upstream_that_nothing_else_needs_are_cancelled_too():
    world = World("e")
    world.submit("plan: -> idea", "write: idea -> code", "test: code -> tests")
    assert stopped(world.cancel("tests")) == ["plan"]
    assert set(world.states().values()) == {"cancelled"}
    assert "nothing needs it any more: 'Test' (test) was cancelled" in str(world.error("idea"))


def test_a_producer_with_another_consumer_goes_on():
    world = World("e")
    world.submit("plan: -> idea", "write: idea -> code", "draw: idea -> picture")
    assert stopped(world.cancel("code")) == []
    assert stopped(world.cancel("picture")) == ["plan"]


def test_a_producer_that_somebody_waits_for_goes_on():
    world = World("e")
    world.submit("plan: -> idea", "write: idea -> code", waits=[asked("idea", Criteria.THROUGHPUT)])
    assert stopped(world.cancel("code")) == []
    assert world.state("plan") == "running"


def test_a_producer_of_something_else_that_is_needed_goes_on():
    world = World("e")
    world.submit("plan: -> idea title", "write: idea -> code", waits=["title"])
    assert stopped(world.cancel("code")) == []


def test_what_only_the_cancelled_things_consumers_needed_goes_too():
    world = World("e")
    world.submit("a: -> x", "b: -> y", "merge: x y -> z")
    assert stopped(world.cancel("x")) == ["a", "b"]


def test_values_that_are_ready_stay():
    world = World("e")
    world.submit("joke: -> setup punchline")
    world.produce("joke", "setup")
    world.cancel("punchline")
    assert world.states() == {"setup": "ready", "punchline": "cancelled", "joke": "cancelled"}


def test_cancelling_what_is_settled_changes_nothing():
    world = World("e")
    world.submit("write: -> code", "other: -> text")
    world.run("write")
    assert world.cancel("code") == []
    world.cancel("text")
    assert world.cancel("text") == []


def test_cancelling_what_nothing_produces_cancels_what_waits_for_it():
    world = World("e")
    world.submit("plan: -> idea", "write: task idea -> code")
    assert stopped(world.cancel("task")) == ["plan"]
    assert world.state("task") == "cancelled"
    assert str(world.error("code")) == (
        "'Write' (write) was not run: variable task was cancelled before anything produced it"
    )


def test_an_offered_call_is_revoked():
    world = World()
    world.submit(calls=["check: code -> ok"])
    world.set("code")
    assert only(world.cancel("ok"), RevokeCall) == [RevokeCall(session="s", call="check")]


def test_late_events_of_a_cancelled_request_are_ignored():
    world = World("e")
    world.submit("write: -> code")
    world.cancel("code")
    assert world.produce("write", "code") == world.end("write", cancelled=True) == []
    assert world.state("code") == "cancelled"


def test_who_has_made_all_it_was_to_make_is_not_cancelled_with_its_reader():
    world = World("e")
    world.submit("write: -> code", "test: code -> tests")
    world.produce("write", "code")
    assert stopped(world.cancel("tests")) == ["test"]
    world.end("write", usage=Usage(prompt_tokens=5, output_tokens=7))
    assert (world.state("write"), world.state("code")) == ("done", "ready")
    assert world.machine.request(RequestId("write")).usage.output_tokens == 7
