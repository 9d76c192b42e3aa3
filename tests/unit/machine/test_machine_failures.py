"""Failures flow downstream and say what failed first."""

from machine_world import World, only

from parrotserve.errors import Cancelled, ContextExceeded, EngineFailed
from parrotserve.graph.decisions import CancelSequence, ForgetRequest, OpenSequence, PublishFailure

TOO_LONG = ContextExceeded("the prompt has 9 tokens, the context 8", tokens="9")


def test_the_outputs_of_a_failed_request_fail_with_its_error():
    world = World("e")
    world.submit("write: -> code")
    (failure,) = only(world.end("write", TOO_LONG), PublishFailure)
    assert type(failure.error) is ContextExceeded
    assert str(failure.error) == "'Write' (write) failed on engine e: the prompt has 9 tokens, the context 8"
    assert failure.error.details == {"tokens": "9", "request": "write", "function": "Write", "engine": "e"}


def test_whoever_waits_downstream_is_told_the_request_the_engine_and_what_failed_first():
    world = World("e")
    world.submit("write: -> code", "test: code -> tests", "report: tests -> page")
    failures = only(world.end("write", TOO_LONG), PublishFailure)
    assert [failure.variable for failure in failures] == ["code", "tests", "page"]
    error = failures[-1].error
    assert type(error) is ContextExceeded
    assert str(error) == (
        "'Report' (report) was not run: 'Write' (write) failed on engine e: the prompt has 9 tokens, the context 8"
    )
    assert error.details == {
        "tokens": "9", "request": "report", "function": "Report", "engine": "e", "upstream": "write"
    }  # fmt: skip
    assert world.states() == dict.fromkeys(["code", "tests", "page", "write", "test", "report"], "failed")


def test_outputs_that_were_ready_stay_ready_and_others_fail():
    world = World("e")
    world.submit("joke: -> setup punchline", "explain: setup -> why", "rate: punchline -> stars")
    world.produce("joke", "setup")
    failures = only(world.end("joke", TOO_LONG), PublishFailure)
    assert [failure.variable for failure in failures] == ["punchline", "stars"]
    assert (world.state("setup"), world.state("explain")) == ("ready", "running")


def test_an_error_after_the_last_output_hurts_nobody():
    world = World("e")
    world.submit("write: -> code")
    world.produce("write", "code")
    assert world.end("write", TOO_LONG) == [ForgetRequest("write")]
    assert world.state("write") == "done"


def test_an_engine_that_ends_a_request_without_its_outputs_has_failed():
    world = World("e")
    world.submit("joke: -> setup punchline")
    world.produce("joke", "setup")
    world.end("joke")
    assert type(world.error("punchline")) is EngineFailed
    assert "without variable punchline" in str(world.error("punchline"))


def test_an_engine_that_cancels_a_request_by_itself_cancels_it():
    world = World("e")
    world.submit("write: -> code")
    world.end("write", cancelled=True)
    assert str(world.error("code")) == "'Write' (write) was cancelled by engine e"
    assert type(world.error("code")) is Cancelled


def test_what_is_submitted_onto_a_failure_fails_at_once_for_the_same_cause():
    world = World("e")
    world.submit("write: -> code")
    world.end("write", TOO_LONG)
    failures = only(world.submit("test: code -> tests", "report: tests -> page"), PublishFailure)
    assert [failure.variable for failure in failures] == ["tests", "page"]
    assert failures[-1].error.details["upstream"] == "write"


def test_other_work_goes_on():
    world = World("e", places=1)
    world.submit("write: -> code", "other: -> text")
    assert [one.request for one in only(world.end("write", TOO_LONG), OpenSequence)] == ["other"]


def test_the_first_of_two_failures_is_the_cause():
    world = World("e")
    world.submit("a: -> x", "b: -> y", "merge: x y -> z")
    world.end("b", TOO_LONG)
    world.end("a", EngineFailed("out of memory"))
    assert world.error("z").details["upstream"] == "b"


def test_a_failure_cancels_nothing_that_still_runs():
    world = World("e")
    world.submit("a: -> x", "b: -> y", "merge: x y -> z")
    assert only(world.end("a", TOO_LONG), CancelSequence) == []
    assert world.state("b") == "running"


def test_events_about_what_is_over_are_ignored():
    world = World("e")
    world.submit("write: -> code other")
    world.produce("write", "code")
    world.end("write", TOO_LONG)
    before = world.machine.session_view("s", "t")
    assert world.produce("write", "other") == world.end("write") == []
    assert world.produce("nothing", "other", epoch=0) == world.end("nothing", epoch=0) == []
    assert world.machine.session_view("s", "t") == before


def test_an_output_is_produced_once():
    world = World("e")
    world.submit("write: -> code other")
    world.produce("write", "code", "first")
    assert world.produce("write", "code", "second") == []
    assert world.produce("write", "not its own") == []
    assert world.variable("code").value == "first"
