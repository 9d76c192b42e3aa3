"""What requests that end badly cost their tenant: what the engine says that they took, once it says so."""

from collections import Counter

import pytest
from machine_world import World, session_ended, withdrawn
from placing import steps

from parrotserve.errors import EngineFailed
from parrotserve.graph.events import RequestEnded
from parrotserve.graph.objects import Request
from parrotserve.graph.states import ProducerState
from parrotserve.ids import TenantId
from parrotserve.sampling import Usage

NOTHING = Usage()


def took(seconds: float) -> Usage:
    return Usage(prompt_tokens=10, output_tokens=10, engine_seconds=seconds)


class Contended(World):
    """An engine with one place, for which Ann, who cancels all that runs, and Bob always have requests waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.join("e", places=1)
        self.made = 0
        self.turns: Counter[str] = Counter()
        for tenant in ("ann", "bob", "ann", "bob"):
            self.asks(tenant)

    def asks(self, tenant: str) -> None:
        self.made += 1
        self.submit(f"r{self.made}: -> x{self.made}", session=f"s-{tenant}", tenant=TenantId(tenant))

    @property
    def running(self) -> Request:
        (found,) = [one for one in self.machine.graph.requests.values() if one.aboard]
        return found

    def cancels(self) -> tuple[str, int]:
        """Ann cancels what runs of hers; which run that was."""
        request = self.running
        self.handle(withdrawn(request.outputs[0].id, session="s-ann", tenant="ann"))
        return request.id, request.epoch

    def takes_turns(self, rounds: int, *, ann: Usage, bob: Usage, fails: bool = False) -> None:
        """With `fails`, Ann's requests end badly by themselves."""
        for _ in range(rounds):
            request, tenant = self.running, self.running.session.tenant
            self.turns[tenant] += 1
            if tenant == "ann" and fails:
                self.end(request.id, EngineFailed("no prompt"), usage=ann)
            elif tenant == "ann":
                name, epoch = self.cancels()
                self.end(name, epoch=epoch, cancelled=True, usage=ann)
            else:
                self.produce(request.id, request.outputs[0].id)
                self.end(request.id, usage=bob)
            self.asks(tenant)


def test_who_cancels_just_before_the_end_gets_no_more_than_others():
    world = Contended()
    world.takes_turns(20, ann=took(10.0), bob=took(10.0))
    assert world.turns["ann"] <= world.turns["bob"] + 1


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("used", [took(0.001), NOTHING])
def test_what_ends_early_pays_for_what_was_run(used: Usage, fails: bool):
    world = Contended()
    world.takes_turns(100, ann=used, bob=took(2.0), fails=fails)
    assert world.turns["bob"] <= 2


@pytest.mark.parametrize("fails", [False, True])
def test_an_engine_that_does_not_say_how_long_it_ran_something_is_paid_what_was_expected(fails: bool):
    world = Contended()
    world.takes_turns(100, ann=Usage(prompt_tokens=10, output_tokens=10), bob=took(0.2), fails=fails)
    assert world.turns["bob"] > 20


def test_what_fails_before_its_engine_knows_is_charged_when_the_engine_has_let_go_of_it():
    world = Contended()
    name, epoch = world.running.id, world.running.epoch
    fails = RequestEnded(request=name, epoch=epoch, usage=None, error=EngineFailed("no prompt"))
    world.handle(fails)
    world.handle(fails)
    assert world.machine.request(name).state is ProducerState.FAILED
    world.end(name, epoch=epoch, cancelled=True, usage=took(10.0))
    world.asks("ann")
    world.takes_turns(6, ann=took(1.0), bob=took(1.0))
    assert world.turns == {"bob": 6}


def test_only_the_end_of_its_run_settles_a_charge_and_only_once():
    world = Contended()
    name, epoch = world.cancels()
    world.end(name, epoch=epoch + 1, cancelled=True, usage=took(100.0))
    world.end("another", epoch=epoch, cancelled=True, usage=took(100.0))
    world.end(name, epoch=epoch, cancelled=True, usage=took(0.5))
    world.end(name, epoch=epoch, cancelled=True, usage=took(100.0))
    world.takes_turns(10, ann=took(1.0), bob=took(1.0))
    assert abs(world.turns["ann"] - world.turns["bob"]) <= 1


def test_what_is_retried_meanwhile_is_charged_by_itself():
    world = World("e", places=2)
    world.submit("write: -> code")
    world.cancel("code")
    world.retry("code")
    world.end("write", epoch=0, cancelled=True, usage=took(5.0))
    assert world.state("write") == "running"
    world.run("write")


def test_an_engine_that_is_lost_leaves_no_charge_open():
    world = World("e", "f", places=1)
    world.submit("write: -> code", "other: -> text")
    where = world.machine.request("write").engine
    world.cancel("code")
    world.lose(str(where))
    world.end("write", epoch=0, cancelled=True, usage=took(5.0))
    world.join("e", places=1)
    world.join("f", places=1)


def test_what_an_engine_did_before_it_was_lost_is_no_service_received():
    world = Contended()
    steps(world, rows=1, seconds=3.0)
    lines = world.machine._scheduler._pools["m"].lines  # type: ignore[attr-defined]
    received = {name: lines.line_of(name).received for name in ("ann", "bob")}
    assert received == {"ann": pytest.approx(3.0), "bob": 0.0}
    world.lose("e")
    assert lines.line_of("ann").received == pytest.approx(0.0)


def test_a_session_that_ended_is_charged_yet():
    world = Contended()
    name, epoch = world.running.id, world.running.epoch
    world.handle(session_ended("s-ann", "ann"))
    world.end(name, epoch=epoch, cancelled=True, usage=took(10.0))
    world.asks("ann")
    world.asks("ann")
    world.takes_turns(6, ann=took(1.0), bob=took(1.0))
    assert world.turns == {"bob": 6}
    assert world.variable("x4", "s-bob", "bob").state == "ready"
