"""Sessions: leases, their end, what they share, and that nothing of them stays."""

import gc
import pickle
from collections.abc import Callable

import pytest
from machine_world import World, call, only, withdrawn

from parrotserve.errors import Cancelled, UnknownObject
from parrotserve.graph.decisions import (
    CancelSequence,
    Decision,
    ForgetRequest,
    ForgetSession,
    OpenSequence,
    PublishFailure,
    RevokeCall,
)
from parrotserve.graph.events import NewVariable
from parrotserve.graph.objects import Call, Request, Session, Variable


class TestLeases:
    def test_a_session_without_contact_ends_when_its_lease_does(self):
        world = World("e")
        world.submit("write: -> code", lease=30.0)
        assert world.machine.next_deadline() == 30.0
        assert world.tick(29.9) == []
        decisions = world.tick(30.0)
        assert only(decisions, CancelSequence) == [CancelSequence(request="write", engine="e", epoch=0)]
        (failure,) = only(decisions, PublishFailure)
        assert str(failure.error) == "'Write' (write) was cancelled: its session ended (lease expired)"
        assert decisions[-1] == ForgetSession("s", ("code",))
        assert world.machine.next_deadline() is None

    def test_contact_starts_the_lease_anew(self):
        world = World()
        world.submit("write: task -> code", lease=30.0)
        contacts = [lambda: world.touch(0), world.submit, lambda: world.wait("code"), lambda: world.set("task"),
                    lambda: world.retry("code"), lambda: world.cancel("code")]  # fmt: skip
        for number, contact in enumerate(contacts, start=1):
            world.now = 10.0 * number
            contact()
            assert world.machine.next_deadline() == world.now + 30.0

    def test_it_does_not_run_while_a_client_is_attached(self):
        world = World()
        world.submit(lease=30.0)
        world.touch(attached=2)
        assert world.machine.next_deadline() is None
        world.tick(1000.0)
        world.touch(attached=1)
        assert world.machine.next_deadline() is None
        world.touch(attached=0)
        assert world.machine.next_deadline() == 1030.0

    def test_the_lease_of_the_first_submit_holds(self):
        world = World()
        world.submit(lease=30.0)
        world.submit(lease=5.0)
        assert world.machine.next_deadline() == 30.0

    def test_sessions_end_one_by_one(self):
        world = World()
        for number, lease in enumerate([20.0, 10.0, 30.0]):
            world.submit(session=f"s{number}", lease=lease)
        assert world.tick(10.0) == [ForgetSession("s1", ())]
        assert [one.session for one in only(world.tick(40.0), ForgetSession)] == ["s0", "s2"]


class TestTheEnd:
    def test_everything_unfinished_is_cancelled_and_everything_forgotten(self):
        world = World("e", places=2)
        world.submit("a: -> x", "b: -> y", "c: -> z", "d: z -> w", calls=["check: x -> ok"], values={"v": "1"})
        world.submit(variables=[NewVariable("empty")])
        world.run("a")
        decisions = world.end_session()
        assert [one.request for one in only(decisions, CancelSequence)] == ["b", "c"]
        assert [one.call for one in only(decisions, RevokeCall)] == ["check"]
        failures = {one.variable: one.error for one in only(decisions, PublishFailure)}
        assert failures.keys() == {"y", "z", "w", "ok"}
        assert {type(error) for error in failures.values()} == {Cancelled}
        assert [one.request for one in only(decisions, ForgetRequest)] == ["b", "c", "d"]
        assert isinstance(decisions[-1], ForgetSession)
        assert set(decisions[-1].variables) == {"x", "y", "z", "w", "ok", "v", "empty"}

    def test_a_second_end_is_refused(self):
        world = World()
        world.submit()
        world.end_session()
        world.refuses(UnknownObject, withdrawn("code"))

    def test_late_events_of_a_forgotten_session_are_ignored(self):
        world = World("e")
        world.submit("write: -> code")
        world.end_session()
        assert world.produce("write", "code", epoch=0) == world.end("write", epoch=0) == []

    def test_its_engine_places_go_to_others(self):
        world = World("e", places=1)
        world.submit("a: -> x", session="one")
        world.submit("b: -> y", session="two")
        world.end_session("one")
        assert world.state("b", "two") == "running"

    def test_an_id_may_be_used_anew_afterwards(self):
        world = World("e")
        world.submit("write: -> code")
        world.end_session()
        world.submit("write: -> code")
        assert world.states() == {"code": "producing", "write": "running"}

    def test_a_thousand_sessions_leave_the_machine_empty(self):
        world = World("e", places=50, check=False)
        for number in range(1100):  # what is remembered of functions is full then
            self.live_and_die(world, f"w{number:04}-", drop=0)
        before, size = self.objects(), len(pickle.dumps(world.machine))
        for number in range(1000):
            self.live_and_die(world, f"x{number:04}-", drop=number % 3)
        assert len(only(world.tick(29.0), ForgetSession)) == 0
        assert len(only(world.let_go(world.tick(31.0)), ForgetSession)) == 333
        world.machine.check_integrity()
        assert (world.waiting(), world.machine.next_deadline()) == (0, None)
        assert self.objects() == before
        assert len(pickle.dumps(world.machine)) < size + 1000

    def test_what_has_ended_goes_without_a_look_for_garbage(self):
        world = World("e")
        before = self.objects()
        gc.disable()
        try:
            for number in range(9):
                self.live_and_die(world, f"x{number}-", drop=number % 3)
            world.tick(100.0)
            assert self.held() == before
        finally:
            gc.enable()

    @pytest.mark.parametrize("runs", [False, True])
    def test_so_do_task_groups(self, runs: bool):
        world = World("e", places=2)
        before = self.objects()
        gc.disable()
        try:
            world.submit(*(f"map{number}: -> x{number}" for number in range(3)), "sum: x0 x1 x2 -> y", waits=["y"])
            for name in ("map0", "map1", "map2", "sum") if runs else ():
                world.run(name)
            world.end_session()
            assert self.held() == before
        finally:
            gc.enable()

    @staticmethod
    def held() -> int:
        return sum(isinstance(one, (Session, Variable, Request, Call)) for one in gc.get_objects())

    @staticmethod
    def objects() -> int:
        gc.collect()
        return TestTheEnd.held()

    @staticmethod
    def live_and_die(world: World, prefix: str, *, drop: int) -> list[Decision]:
        """One session that finishes, one that is ended in the middle, and one that is left to its lease."""
        session = f"s{prefix}"
        world.submit(f"{prefix}a: {prefix}v -> {prefix}x", f"{prefix}b: {prefix}x -> {prefix}y", session=session,
                     values={f"{prefix}v": "1"}, calls=[call(f"{prefix}c: {prefix}x -> {prefix}z", timeout=9.0)],
                     waits=[f"{prefix}y"])  # fmt: skip
        if drop == 0:
            world.run(f"{prefix}a")
            world.run(f"{prefix}b")
        return world.let_go(world.end_session(session)) if drop < 2 else []


class TestSetValuesAreShared:
    def test_a_set_value_may_be_used_in_any_session_of_its_tenant(self):
        world = World("e")
        world.submit(values={"task": "snake"}, session="one")
        world.submit("write: task -> code", session="two")
        assert world.state("write", "two") == "running"
        assert world.state("task", "two") == "ready"

    def test_it_lives_as_long_as_a_session_that_uses_it(self):
        world = World("e")
        world.submit(values={"task": "snake"}, session="one")
        world.submit("write: task -> code", session="two")
        assert world.end_session("one") == [ForgetSession("one", ())]
        world.submit("test: task -> tests", session="two")
        assert world.machine.request("test").inputs[0].value == "snake"
        decisions = world.end_session("two")
        (forgotten,) = only(decisions, ForgetSession)
        assert set(forgotten.variables) == {"task", "code", "tests"}

    def test_declaring_it_again_elsewhere_is_using_it(self):
        world = World("e")
        shared = NewVariable("task", "task", "snake")
        world.submit(variables=[shared], session="one")
        assert world.submit(variables=[shared], session="two") == []
        world.end_session("one")
        assert world.state("task", "two") == "ready"

    def test_looking_at_it_does_not_keep_it(self):
        world = World("e")
        world.submit(values={"task": "snake"}, session="one")
        world.submit(session="two")
        assert world.variable("task", session="two").value == "snake"
        assert world.end_session("one") == [ForgetSession("one", ("task",))]


class TestTheSameIdsAgain:
    @pytest.mark.parametrize("ends", [lambda world: world.run("write"), lambda world: world.cancel("code")])
    def test_after_their_session_has_ended_they_are_of_a_later_epoch(self, ends: Callable[[World], object]):
        """An engine remembers which (request, epoch) has ended, and does not run it again."""
        world, epochs = World("e"), list[int]()
        for _ in range(3):
            (opening,) = only(world.submit("write: -> code"), OpenSequence)
            epochs.append(opening.epoch)
            ends(world)
            world.end_session()
        assert epochs == [0, 1, 2]
