"""Requests run as their inputs become known, and values reach whoever needs them."""

import pytest
from machine_world import World, asked, only, request

from parrotserve.criteria import Criteria, Objective, Precedence
from parrotserve.graph.decisions import ForgetRequest, OpenSequence, PublishValue, UpdateSequence
from parrotserve.graph.events import NewVariable
from parrotserve.ids import VariableId
from parrotserve.sampling import FinishReason, Sampling, Usage

SNAKE_GAME = ("write: task -> code", "test: task code -> tests")


def opened(decisions: list) -> list[str]:
    return [one.request for one in only(decisions, OpenSequence)]


def test_a_request_whose_inputs_are_known_is_opened_at_once():
    world = World("e")
    decisions = world.submit("write: task -> code", values={"task": "a snake game"})
    assert decisions == [
        PublishValue(variable=VariableId("task"), value="a snake game", reason=None),
        OpenSequence(
            request="write",
            engine="e",
            epoch=0,
            objective=Objective.THROUGHPUT,
            precedence=Precedence(place=1, submission=1),
        ),
    ]
    assert world.states() == {"task": "ready", "code": "producing", "write": "running"}


def test_a_request_follows_its_producer_without_a_word_from_the_client():
    world = World("e")
    assert opened(world.submit(*SNAKE_GAME, values={"task": "snake"})) == ["write"]
    decisions = world.produce("write", "code", "print()")
    assert decisions[0] == PublishValue(variable="code", value="print()", reason=FinishReason.STOP)
    assert opened(decisions) == ["test"]
    assert [variable.value for variable in world.machine.request("test").inputs] == ["snake", "print()"]


def test_it_starts_at_the_output_it_needs_and_not_at_the_end_of_its_producer():
    world = World("e")
    world.submit("joke: -> setup punchline", "explain: setup -> why")
    assert opened(world.produce("joke", "setup")) == ["explain"]
    assert world.state("joke") == "running"


def test_a_value_reaches_all_its_consumers_and_a_request_waits_for_all_its_inputs():
    world = World("e")
    world.submit(
        "plan: -> idea", "code: idea -> c", "draw: idea -> d", "ship: c d -> game", calls=["check: idea -> ok"]
    )
    assert opened(world.produce("plan", "idea")) == ["code", "draw"]
    assert world.state("check") == "offered"
    assert opened(world.run("draw")) == []
    assert opened(world.run("code")) == ["ship"]


def test_a_request_that_reads_a_variable_twice_waits_for_it_once():
    world = World("e")
    world.submit("write: task task -> code")
    assert opened(world.set("task")) == ["write"]


def test_a_finished_request_is_done_and_what_is_kept_to_rerun_it_is_forgotten():
    world = World("e")
    world.submit("write: -> code")
    world.produce("write", "code")
    assert world.end("write", usage=Usage(prompt_tokens=3, output_tokens=5)) == [ForgetRequest("write")]
    view = world.machine.session_view("s", "t").requests[0]
    assert (view.state, view.usage, view.engine, view.error) == ("done", Usage(3, 0, 5), "e", None)


def test_consumers_may_be_submitted_before_their_producer():
    world = World("e")
    assert opened(world.submit("test: code -> tests")) == []
    assert world.state("code") == "empty"
    assert opened(world.submit("write: -> code")) == ["write"]
    assert opened(world.produce("write", "code")) == ["test"]


def test_a_client_may_set_what_nothing_produces():
    world = World("e")
    world.submit("write: task -> code")
    assert world.state("write") == "waiting"
    assert opened(world.set("task", "chess")) == ["write"]


def test_a_chain_of_any_length_runs_without_recursion():
    world, length = World("e", check=False), 2000
    world.submit(*(f"r{n}: v{n} -> v{n + 1}" for n in range(length)))
    world.set("v0")
    for n in range(length):
        world.run(f"r{n}")
    world.machine.check_integrity()
    assert set(world.states().values()) == {"ready", "done"}


def test_an_empty_batch_only_makes_the_session():
    world = World()
    assert world.submit() == []
    assert world.states() == {}


def test_times_are_told_since_the_session_began():
    world = World("e", places=1)
    world.now = 100.0
    world.submit("a: -> x", "b: x -> y")
    world.now = 101.0
    world.produce("a", "x")
    world.now = 103.0
    world.end("a")
    timings = world.machine.session_view("s", "t").requests[1].timings
    assert (timings.submitted, timings.ready, timings.started, timings.ended) == (0.0, 1.0, 3.0, None)


class TestSendingAgain:
    def test_the_same_batch_changes_nothing(self):
        world = World("e")
        batch = world.batch(*SNAKE_GAME, values={"task": "snake"}, calls=["check: tests -> verdict"])
        world.handle(batch)
        before = world.machine.session_view("s", "t")
        assert world.handle(batch) == []
        assert world.machine.session_view("s", "t") == before

    def test_a_batch_that_is_partly_new_adds_what_is_new(self):
        world = World("e")
        world.submit("write: task -> code", values={"task": "snake"})
        world.submit("write: task -> code", "test: code -> tests")
        assert world.state("test") == "waiting"

    def test_seeds_that_the_service_drew_do_not_count(self):
        world = World("e")
        world.submit(request("write: -> code", sampling=Sampling(seed=1)))
        assert world.submit(request("write: -> code", sampling=Sampling(seed=2))) == []

    def test_a_variable_may_be_declared_again_after_it_was_set(self):
        world = World()
        world.submit(variables=[NewVariable("task", "task")])
        world.set("task")
        assert world.submit(variables=[NewVariable("task", "task")]) == []

    def test_once_in_one_batch_is_as_good_as_twice(self):
        world = World("e")
        assert opened(world.submit("write: -> code", "write: -> code")) == ["write"]


class TestStreams:
    def test_an_output_that_is_streamed_from_the_start_is_opened_so(self):
        world = World("e")
        (sequence,) = only(world.submit("joke: -> setup punchline", waits=[asked("setup", stream=True)]), OpenSequence)
        assert sequence.stream == {"setup"}

    def test_a_running_request_is_told_once_of_what_is_streamed_now(self):
        world = World("e")
        world.submit("write: -> code", waits=["code"])
        (update,) = only(world.wait("code", stream=True), UpdateSequence)
        assert (update.request, update.engine, update.epoch) == ("write", "e", 0)
        assert (update.objective, update.stream) == (None, {"code"})
        assert world.wait("code", stream=True) == []

    def test_a_rerun_streams_what_was_streamed_and_is_not_ready(self):
        world = World("e")
        world.submit("joke: -> setup punchline", waits=[asked("setup", stream=True), asked("punchline", stream=True)])
        world.produce("joke", "setup")
        world.lose("e")
        (sequence,) = only(world.join("f"), OpenSequence)
        assert (sequence.epoch, sequence.stream) == (1, {"punchline"})

    def test_waiting_for_what_is_ready_tells_nothing_new(self):
        world = World("e")
        world.submit(values={"task": "snake"})
        assert world.wait("task", stream=True) == []


class TestObjectives:
    @pytest.mark.parametrize("criteria", [Criteria.LATENCY, Criteria.TTFT, Criteria.TPOT])
    def test_what_somebody_waits_for_urgently_is_latency_sensitive_with_all_before_it(self, criteria: Criteria):
        world = World()
        world.submit(*SNAKE_GAME, waits=[asked("tests", criteria)])
        assert world.objectives() == {"write": "latency", "test": "latency"}

    def test_what_nobody_waits_for_is_there_for_throughput(self):
        world = World()
        world.submit(*SNAKE_GAME, waits=[asked("code", Criteria.THROUGHPUT)])
        assert world.objectives() == {"write": "throughput", "test": "throughput"}

    def test_a_running_request_is_upgraded_the_moment_somebody_waits(self):
        world = World("e")
        world.submit("write: -> code", "test: code -> tests")
        (update,) = only(world.wait("tests"), UpdateSequence)
        assert (update.request, update.objective, update.stream) == ("write", Objective.LATENCY, frozenset())
        assert world.wait("tests") == []
        (sequence,) = only(world.produce("write", "code"), OpenSequence)
        assert sequence.objective is Objective.LATENCY

    def test_a_producer_that_comes_after_the_wait_is_as_urgent(self):
        world = World()
        world.submit("test: code -> tests", waits=["tests"])
        world.submit("plan: -> idea", "write: idea -> code")
        assert world.objectives() == {"test": "latency", "write": "latency", "plan": "latency"}

    def test_parallel_requests_of_a_stage_are_a_group(self):
        world = World()
        world.submit("a: -> x", "b: -> y", "merge: x y -> z", waits=["z"])
        assert world.objectives() == {"a": "group", "b": "group", "merge": "latency"}
