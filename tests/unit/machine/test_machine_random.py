"""Whatever happens to the machine, in whatever order: its integrity holds, and with an engine everything finishes."""

import pickle
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from machine_world import (
    World,
    asked,
    call,
    only,
    request,
    retried,
    returned,
    session_ended,
    value_set,
    waited,
    withdrawn,
)

from parrotserve.criteria import Criteria
from parrotserve.errors import EngineFailed, RequestRefused
from parrotserve.graph.decisions import (
    CancelSequence,
    CompleteSequence,
    Decision,
    ForgetRequest,
    ForgetSession,
    OfferCall,
    OpenSequence,
    PauseSequence,
    PublishFailure,
    PublishValue,
    ReleasePrefix,
    ResumeSequence,
    RetainPrefix,
    RevokeCall,
    UpdateSequence,
)
from parrotserve.graph.events import Continued, Event, NewVariable, SessionTouched, StepsRun, Ticked
from parrotserve.sampling import Usage
from parrotserve.scheduler.scheduler import AT_ONCE

SESSIONS = ["s0", "s1", "s2"]
TENANTS = {"s0": "t", "s1": "t", "s2": "other"}
ENGINES = ["e0", "e1", "e2"]
ROOM = st.sampled_from([100, 1000, 100_000])


class AnyOrder(RuleBasedStateMachine):
    """Random clients and engines, and a runtime that carries decisions out and checks that they make sense."""

    at_once = AT_ONCE

    def __init__(self) -> None:
        super().__init__()
        self.world = World(at_once=self.at_once)
        self.made = 0
        self.engines: dict[str, int] = {}
        """Their credits."""
        self.open: dict[str, tuple[str, int]] = {}
        """Request -> (engine, epoch) of what engines run."""
        self.early: dict[str, tuple[str, int]] = {}
        """The same, of what they are told to read ahead."""
        self.leaving: dict[tuple[str, int], str] = {}
        """Run -> engine, of what was cancelled and has not ended."""
        self.paused: set[str] = set()
        self.kept: set[tuple[str, str]] = set()
        self.offered: dict[str, str] = {}
        """Native call -> session."""
        self.published: dict[str, str] = {}
        """Variable -> its value, or "" once it fell."""

    # --- The runtime -----------------------------------------------------------------------------------------

    def happens(self, event: Event) -> None:
        """Tell the machine; a refusal must leave no trace."""
        before = pickle.dumps(self.world.machine)
        try:
            decisions = self.world.machine.handle(event, self.world.now)
        except RequestRefused:
            assert pickle.dumps(self.world.machine) == before
            return
        for decision in decisions:
            self.carry_out(decision)

    def carry_out(self, decision: Decision) -> None:
        match decision:
            case OpenSequence():
                assert decision.engine in self.engines
                assert decision.request not in self.open.keys() | self.early.keys()
                where = self.early if decision.ahead else self.open
                where[decision.request] = (decision.engine, decision.epoch)
                aboard = [engine for engine, _ in (*self.open.values(), *self.early.values())].count(decision.engine)
                assert aboard <= self.engines[decision.engine]
                known = all(one.ready for one in self.world.machine.request(decision.request).inputs)
                assert known != decision.ahead
            case CompleteSequence():
                assert self.early.pop(decision.request) == (decision.engine, decision.epoch)
                self.open[decision.request] = (decision.engine, decision.epoch)
                assert all(one.ready for one in self.world.machine.request(decision.request).inputs)
            case PauseSequence():
                assert self.open[decision.request] == (decision.engine, decision.epoch)
                assert decision.request not in self.paused
                self.paused.add(decision.request)
            case ResumeSequence():
                assert self.open[decision.request] == (decision.engine, decision.epoch)
                self.paused.remove(decision.request)
            case RetainPrefix():
                assert (decision.engine, decision.key) not in self.kept
                self.kept.add((decision.engine, decision.key))
            case ReleasePrefix():
                self.kept.remove((decision.engine, decision.key))
            case UpdateSequence():
                assert self.open[decision.request] == (decision.engine, decision.epoch)
                assert decision.objective is not None or decision.stream or decision.follow
            case CancelSequence():
                held = self.open if decision.request in self.open else self.early
                assert held.pop(decision.request) == (decision.engine, decision.epoch)
                self.paused.discard(decision.request)
                self.leaving[decision.request, decision.epoch] = decision.engine
            case PublishValue():
                assert not self.published.get(decision.variable), "a value never changes"
                self.published[decision.variable] = decision.value
            case PublishFailure():
                assert not self.published.get(decision.variable), "a value is not taken back"
                self.published[decision.variable] = ""
            case OfferCall():
                assert decision.call not in self.offered
                self.offered[decision.call] = decision.session
            case RevokeCall():
                assert self.offered.pop(decision.call) == decision.session
            case ForgetRequest():
                assert decision.request not in self.open
            case ForgetSession():
                assert decision.session not in self.offered.values()
                for variable in decision.variables:
                    self.published.pop(variable, None)

    # --- Clients ---------------------------------------------------------------------------------------------

    def owned(self, session: str) -> list[str]:
        found = self.world.machine.graph.sessions.get(session)
        return [*found.variables] if found is not None else []

    def variable(self, data: st.DataObject) -> dict[str, Any]:
        """Some session's variable, and whose it is."""
        session = data.draw(st.sampled_from([name for name in SESSIONS if self.owned(name)]))
        return {
            "variable": data.draw(st.sampled_from(self.owned(session))),
            "session": session,
            "tenant": TENANTS[session],
        }

    def fresh(self, kind: str) -> str:
        self.made += 1
        return f"{kind}{self.made}"

    @rule(data=st.data(), session=st.sampled_from(SESSIONS), lease=st.sampled_from([6.0, 20.0]))
    def submits(self, data: st.DataObject, session: str, lease: float) -> None:
        """A batch that is right but for a rare cycle: it may feed what waits already, and refer to itself."""
        fresh = [self.fresh("v") for _ in range(data.draw(st.integers(3, 8)))]
        values = {self.fresh("set"): "text" for _ in range(data.draw(st.integers(0, 1)))}
        pool = [*values, *fresh, *self.owned(session)]
        graph = self.world.machine.graph
        free = [*fresh, *(name for name in self.owned(session) if graph.variables[name].state == "empty")]
        requests, calls = [], []
        for _ in range(data.draw(st.integers(1, 5))):
            if not free:
                break
            outputs = [free.pop() for _ in range(min(len(free), data.draw(st.integers(1, 2))))]
            others = st.sampled_from([name for name in pool if name not in outputs] or pool)
            inputs = " ".join(data.draw(st.lists(others, max_size=3)))
            if data.draw(st.integers(0, 3)):
                requests.append(request(f"{self.fresh('r')}: {inputs} -> {' '.join(outputs)}"))
            else:
                timeout = data.draw(st.sampled_from([None, 2.0]))
                calls.append(call(f"{self.fresh('c')}: {inputs} -> {outputs[0]}", timeout=timeout))
        waits = data.draw(st.lists(st.sampled_from(pool), max_size=2))
        self.happens(
            self.world.batch(
                *requests,
                calls=calls,
                variables=[NewVariable(name, value=values.get(name)) for name in (*fresh, *values)],
                waits=[asked(name, stream=data.draw(st.booleans())) for name in waits],
                session=session,
                tenant=TENANTS[session],
                lease=lease,
            )
        )

    @rule(data=st.data(), session=st.sampled_from(SESSIONS))
    def blunders(self, data: st.DataObject, session: str) -> None:
        """A batch made of whatever names there are: most are refused, for one reason or another."""
        known = [one.id for one in self.world.machine.graph.variables.values()]
        names = st.sampled_from([*known, "nowhere", self.fresh("v")])
        lines = [
            f"{self.fresh('r')}: {data.draw(names)} {data.draw(names)} -> {data.draw(names)}"
            for _ in range(data.draw(st.integers(1, 2)))
        ]
        self.happens(self.world.batch(*lines, session=session, tenant=TENANTS[session]))

    @precondition(lambda self: any(self.owned(name) for name in SESSIONS))
    @rule(data=st.data(), kind=st.sampled_from(["set", "wait", "stream", "bulk"]))
    def asks(self, data: st.DataObject, kind: str) -> None:
        where = self.variable(data)
        match kind:
            case "set":
                self.happens(value_set(**where))
            case "bulk":
                self.happens(waited(**where, criteria=Criteria.THROUGHPUT))
            case _:
                self.happens(waited(**where, stream=kind == "stream"))

    @precondition(lambda self: any(self.owned(name) for name in SESSIONS))
    @rule(data=st.data(), again=st.booleans())
    def changes_its_mind(self, data: st.DataObject, again: bool) -> None:
        self.happens((retried if again else withdrawn)(**self.variable(data)))

    @precondition(lambda self: any(one.fallen for one in self.world.machine.graph.variables.values()))
    @rule(data=st.data())
    def retries(self, data: st.DataObject) -> None:
        graph = self.world.machine.graph
        choices = [(name, session.id) for session in graph.sessions.values() for name, one in session.variables.items()
                   if one.fallen]  # fmt: skip
        name, session = data.draw(st.sampled_from(choices))
        told = self.world.machine.revival(session, TENANTS[session], name)
        things = [*graph.variables.values(), *graph.requests.values(), *graph.calls.values()]
        before = [one for one in things if one.fallen]
        self.happens(retried(name, session=session, tenant=TENANTS[session]))
        assert {one for one in before if not one.fallen} == {*told.variables, *told.producers}

    @precondition(lambda self: any(self.owned(name) for name in SESSIONS))
    @rule(session=st.sampled_from(SESSIONS), attached=st.integers(0, 1))
    def is_in_contact(self, session: str, attached: int) -> None:
        self.happens(SessionTouched(session=session, tenant=TENANTS[session], attached=attached))

    @precondition(lambda self: len(self.world.machine.graph.sessions) > 1)
    @rule(session=st.sampled_from(SESSIONS))
    def ends_a_session(self, session: str) -> None:
        self.happens(session_ended(session, TENANTS[session]))

    @precondition(lambda self: self.offered)
    @rule(data=st.data(), fails=st.booleans())
    def answers(self, data: st.DataObject, fails: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.offered)))
        session = self.offered.pop(name)
        result = {"error": "boom"} if fails else {"value": "result"}
        self.happens(returned(name, **result, session=session, tenant=TENANTS[session]))

    @initialize(batch=st.integers(1, 2), cache=ROOM)
    def begins_with_an_engine(self, batch: int, cache: int) -> None:
        self.bring_up("e0", 8, batch=batch, pauses=True, late=True, retains=True, cache_tokens=cache)

    # --- Engines and the clock -------------------------------------------------------------------------------

    @precondition(lambda self: len(self.engines) < len(ENGINES))
    @rule(data=st.data(), places=st.integers(1, 8), batch=st.integers(0, 3), able=st.booleans(), cache=ROOM)
    def joins(self, data: st.DataObject, places: int, batch: int, able: bool, cache: int) -> None:
        engine = data.draw(st.sampled_from([name for name in ENGINES if name not in self.engines]))
        self.bring_up(engine, places, batch=batch, pauses=able, late=able, cache_tokens=cache)

    def bring_up(self, engine: str, places: int, **fields: Any) -> None:
        self.engines[engine] = places
        for decision in self.world.join(engine, places=places, **fields):
            self.carry_out(decision)

    @precondition(lambda self: self.engines)
    @rule(data=st.data())
    def dies(self, data: st.DataObject) -> None:
        self.take_down(data.draw(st.sampled_from(sorted(self.engines))))

    def take_down(self, engine: str) -> None:
        self.engines.pop(engine, None)
        self.open = {name: where for name, where in self.open.items() if where[0] != engine}
        self.early = {name: where for name, where in self.early.items() if where[0] != engine}
        self.paused &= self.open.keys()
        self.kept = {(where, key) for where, key in self.kept if where != engine}
        self.leaving = {run: where for run, where in self.leaving.items() if where != engine}
        for decision in self.world.lose(engine):
            self.carry_out(decision)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), late=st.booleans())
    def produces(self, data: st.DataObject, late: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.open)))
        output = data.draw(st.sampled_from(self.world.machine.request(name).outputs))
        others = self.world.machine.unfinished
        decisions = self.world.produce(name, output.id, "value", epoch=self.open[name][1] - late)
        assert not (late and decisions and not others), "what an earlier run did no longer counts"
        for decision in decisions:
            self.carry_out(decision)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), how=st.sampled_from(["done", "done", "failed", "cancelled", "short"]))
    def ends(self, data: st.DataObject, how: str) -> None:
        self.finish(data.draw(st.sampled_from(sorted(self.open))), how)

    def finish(self, name: str, how: str = "done") -> None:
        epoch = self.open[name][1]
        if how == "done":
            for output in self.world.machine.request(name).outputs:
                for decision in self.world.produce(name, output.id, "value", epoch=epoch):
                    self.carry_out(decision)
        del self.open[name]
        self.paused.discard(name)
        error = EngineFailed("boom") if how == "failed" else None
        for decision in self.world.end(name, error, epoch=epoch, cancelled=how == "cancelled"):
            self.carry_out(decision)

    @precondition(lambda self: self.early)
    @rule(data=st.data(), failed=st.booleans())
    def gives_up_what_it_reads_ahead(self, data: st.DataObject, failed: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.early)))
        _, epoch = self.early.pop(name)
        error = EngineFailed("boom") if failed else None
        for decision in self.world.end(name, error, epoch=epoch, cancelled=not failed):
            self.carry_out(decision)

    @precondition(lambda self: self.leaving)
    @rule(data=st.data(), seconds=st.sampled_from([0.0, 1.0]))
    def lets_go(self, data: st.DataObject, seconds: float) -> None:
        """Of what was cancelled."""
        name, epoch = data.draw(st.sampled_from(sorted(self.leaving)))
        del self.leaving[name, epoch]
        usage = Usage(engine_seconds=seconds)
        others = self.world.machine.unfinished
        decisions = self.world.end(name, epoch=epoch, cancelled=True, usage=usage)
        assert others or not decisions, "nothing follows for anybody else"
        for decision in decisions:
            self.carry_out(decision)

    @precondition(lambda self: self.engines)
    @rule(data=st.data(), rows=st.integers(1, 8), seconds=st.sampled_from([0.01, 0.5]))
    def makes_steps(self, data: st.DataObject, rows: int, seconds: float) -> None:
        engine = data.draw(st.sampled_from(sorted(self.engines)))
        self.world.now += seconds
        self.happens(StepsRun(engine=engine, steps=1, prefill_tokens=0, decode_rows=rows, kv_tokens=rows * 10,
                              attended=rows * 10, seconds=seconds))  # fmt: skip

    @precondition(lambda self: self.world.machine.next_deadline() is not None)
    @rule(seconds=st.sampled_from([0.5, 2.0, 4.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds
        self.happens(Ticked())
        deadline = self.world.machine.next_deadline()
        assert deadline is None or deadline > self.world.now

    @precondition(lambda self: self.world.machine.unfinished)
    @rule()
    def goes_on(self) -> None:
        self.happens(Continued())

    # --- What always holds -----------------------------------------------------------------------------------

    @invariant()
    def holds_together(self) -> None:
        self.world.machine.check_integrity()

    @invariant()
    def the_runtime_and_the_machine_agree(self) -> None:
        graph = self.world.machine.graph
        running = {name: (one.engine, one.epoch) for name, one in graph.requests.items() if one.aboard}
        assert running == self.open
        early = {name: (one.ahead, one.epoch) for name, one in graph.requests.items() if one.ahead is not None}
        assert early == self.early
        assert {name for name, one in graph.calls.items() if one.aboard} == self.offered.keys()
        settled = {name: one.value or "" for name, one in graph.variables.items() if one.settled}
        assert settled.items() <= self.published.items()

    def teardown(self) -> None:
        """An engine that works, clients that answer: all that can run does, and then every session leaves nothing."""
        self.take_down("e0")
        self.bring_up("e0", 2)
        graph = self.world.machine.graph
        while self.open or self.offered or self.world.machine.unfinished:
            self.happens(Continued())
            for name in [name for name in self.open if name not in self.paused]:
                self.finish(name)
            for name in list(self.offered):
                session = self.offered.pop(name)
                self.happens(returned(name, "result", session=session, tenant=TENANTS[session]))
        for producer in (*graph.requests.values(), *graph.calls.values()):
            starved = any(variable.state == "empty" or not_run(variable) for variable in producer.inputs)
            assert producer.finished or starved, f"{producer} is {producer.state}"
        self.world.machine.check_integrity()
        self.world.now += 1000.0
        for session in [*graph.sessions.values()]:
            self.happens(SessionTouched(session=session.id, tenant=session.tenant, attached=0))
        self.world.now += 1000.0
        self.happens(Ticked())
        left = (graph.sessions, graph.variables, graph.requests, graph.calls, self.published)
        assert left == ({}, {}, {}, {}, {})
        assert (self.world.machine.next_deadline(), self.world.waiting()) == (None, 0)


def not_run(variable: Any) -> bool:
    """Its producer waits, in the end, for what a client has not set."""
    return variable.state == "producing" and variable.producer.state == "waiting"


class OneByOne(AnyOrder):
    """The same, where every event takes in one request that is to be queued, and leaves the others for later."""

    at_once = 1


TestAnyOrder = pytest.mark.timeout(900)(AnyOrder.TestCase)  # minutes, where the long profile searches
TestAnyOrder.settings = settings(stateful_step_count=40)
TestOneByOne = pytest.mark.timeout(900)(OneByOne.TestCase)
TestOneByOne.settings = settings(stateful_step_count=40)


def test_the_same_events_give_the_same_decisions():
    def decisions() -> list[Decision]:
        world = World("e", "f", places=1)
        told = world.submit("a: -> x", "b: -> y", "c: x y -> z", waits=["z"])
        return [*told, *world.run("b"), *world.lose("e"), *world.run("a"), *world.run("c"), *world.end_session()]

    assert str(decisions()) == str(decisions())
    assert only(decisions(), ForgetSession)
