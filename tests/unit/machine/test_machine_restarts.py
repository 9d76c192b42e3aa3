"""A machine that dies at any moment: what the recorder wrote of it brings back all that was known, and no more runs
than was unfinished."""

from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis.stateful import rule
from machine_world import World
from memory_journal import MemoryJournal
from test_machine_random import AnyOrder

from parrotserve.errors import RequestRefused
from parrotserve.graph.decisions import (
    Decision,
    ForgetRequest,
    ForgetSession,
    OpenSequence,
    PublishFailure,
    PublishValue,
)
from parrotserve.graph.events import Event, Retried
from parrotserve.graph.graph import Graph
from parrotserve.ids import SessionId
from parrotserve.store.journal import Journal
from parrotserve.store.recorder import Recorder
from parrotserve.store.recovery import recovered


class DiesAtAnyMoment(AnyOrder):
    """Random clients and engines, and a service that is killed and started again."""

    def __init__(self) -> None:
        super().__init__()
        self.journal = MemoryJournal()
        self.recorder = self.recorder_of([])

    def recorder_of(self, sessions: list[SessionId]) -> Recorder:
        recorder = Recorder(self.world.machine.graph)
        recorder.begin(cast("Journal", self.journal))
        for session in sessions:
            recorder.goes_on(session)
        return recorder

    def happens(self, event: Event) -> None:
        """As before; what the machine accepts is noted first."""
        machine, now = self.world.machine, self.world.now
        back = self.revived(event) if isinstance(event, Retried) else []
        try:
            decisions = machine.handle(event, now)
        except RequestRefused:
            return
        self.recorder.heard(event)
        for variable in back:
            self.recorder.reopened(cast("Retried", event).session, variable)
        for decision in decisions:
            self.carry_out(decision)

    def revived(self, event: Retried) -> list[Any]:
        try:
            return [one.id for one in self.world.machine.revival(event.session, event.tenant, event.variable).variables]
        except RequestRefused:
            return []

    def carry_out(self, decision: Decision) -> None:
        match decision:
            case PublishValue():
                self.recorder.made(decision.variable, reason=decision.reason, logprobs=(), tokens=())
            case PublishFailure():
                self.recorder.fell(decision.variable)
            case ForgetRequest():
                self.recorder.used(decision.request)
            case ForgetSession():
                self.recorder.ended(decision.session)
            case _:
                pass
        super().carry_out(decision)

    @rule()
    def is_killed(self) -> None:
        before, published = self.world.machine.graph, self.published
        assert self.journal.entries.keys() == before.sessions.keys()
        now, self.world = self.world.now, World(at_once=self.at_once)
        self.world.now = now
        self.recorder = Recorder(self.world.machine.graph)
        self.engines, self.open, self.early, self.leaving, self.offered, self.published = {}, {}, {}, {}, {}, {}
        self.paused, self.kept = set(), set()
        for _, entries in self.journal.sessions():
            for decision in self.world.machine.handle(recovered(entries).event, now):
                assert not isinstance(decision, OpenSequence)
                self.carry_out(decision)
        self.recorder = self.recorder_of(list(self.journal.entries))
        settled = {name for name, one in before.variables.items() if one.settled}
        assert self.published == {name: value for name, value in published.items() if name in settled}
        assert known(self.world.machine.graph) == known(before)

    @rule()
    def is_killed_with_engines_at_hand(self) -> None:
        self.is_killed()
        self.bring_up("e0", 8, batch=2, pauses=True, late=True, retains=True, cache_tokens=1000)


def known(graph: Graph) -> dict[str, Any]:
    """What must be the same after a restart."""
    producers = {**graph.requests, **graph.calls}
    fallen = [one for one in producers.values() if one.fallen]
    return {
        "variables": {name: (one.state, one.value, one.reason, one.holders) for name, one in graph.variables.items()},
        "errors": {one.id: (type(one.error), str(one.error)) for one in fallen},
        "by input": {one.id for one in fallen if one.fell_by_input},
        "done": {name for name, one in producers.items() if all(output.ready for output in one.outputs)},
        "attempts": {name: call.attempt for name, call in graph.calls.items()},
        "held": dict(graph.held),
    }


TestDiesAtAnyMoment = pytest.mark.timeout(900)(DiesAtAnyMoment.TestCase)
TestDiesAtAnyMoment.settings = settings(stateful_step_count=40)
