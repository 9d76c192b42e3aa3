"""The machine: the service's deterministic core behind one façade.

It owns the graph of every session and the scheduler's picture of the engines, mutates only itself, and answers every
event with decisions, as data, that the runtime carries out in order. It does no I/O and reads no clock: `now` is an
argument, in seconds from an arbitrary start, and never decreases. The same events give the same decisions.
"""

from collections.abc import Iterable, Iterator

from parrotserve.analysis.objective import assign, deduce
from parrotserve.bounds import Bounds
from parrotserve.criteria import Precedence
from parrotserve.errors import AlreadyProduced, InvalidGraph, UnknownObject
from parrotserve.graph.changes import Changes
from parrotserve.graph.decisions import (
    Decision,
    UpdateSequence,
)
from parrotserve.graph.events import (
    CallRan,
    CallReturned,
    Continued,
    EngineJoined,
    EngineLost,
    Event,
    OutputProduced,
    RequestEnded,
    Restored,
    Retried,
    SessionEnded,
    SessionTouched,
    StepsRun,
    Submitted,
    TenantWeighed,
    Ticked,
    ValueSet,
    Waited,
    Withdrawn,
)
from parrotserve.graph.flow import ahead_stopped, cancel, end_call, fill, first_readers, recall, time_out
from parrotserve.graph.graph import Graph
from parrotserve.graph.growth import ask, end_session, grow
from parrotserve.graph.integrity import check_graph
from parrotserve.graph.objects import Producer, Request, Session, Variable
from parrotserve.graph.restoring import restore
from parrotserve.graph.revival import Revival, revival, revive
from parrotserve.graph.runs import engine_died, output_produced, request_ended
from parrotserve.graph.snapshots import SessionSnapshot, SessionSummary, picture_session, picture_sessions
from parrotserve.graph.states import ProducerState, VariableState
from parrotserve.graph.validation import plan_submit
from parrotserve.ids import CallId, EngineId, RequestId, SessionId, TenantId, VariableId, shown
from parrotserve.outcomes import decisions_of, reading_ahead
from parrotserve.scheduler.base import Placed, Scheduler
from parrotserve.scheduler.naive import NaiveScheduler
from parrotserve.scheduler.scheduler import AT_ONCE, AppScheduler
from parrotserve.switches import Switches
from parrotserve.transforms import WHOLE_VALUE

_WORTH_FOLLOWING = 32
"""Least `max_tokens` of an output that is followed by requests that run ahead: it takes less time to prefill a shorter
one at once than to report it piece by piece."""


class Machine:
    """Sessions, their graphs, and engines.

    `models` are those that requests may name before any engine serves them; an engine that joins adds its own.
    A variable is published once, when it becomes READY, FAILED or CANCELLED, and again only after a retry: the runtime
    keeps what was published for those that wait later.
    """

    def __init__(
        self,
        *,
        models: Iterable[str] = (),
        switches: Switches = Switches(),
        bounds: Bounds = Bounds(),
        at_once: int = AT_ONCE,
    ) -> None:
        self.graph = Graph()
        """For others to read only."""
        self._switches = switches
        self._scheduler: Scheduler = (
            NaiveScheduler() if switches.plain else AppScheduler(switches, bounds, at_once=at_once)
        )
        self._models = set(models)

    def handle(self, event: Event, now: float) -> list[Decision]:
        """Handle an event, and return what is to be done.

        Raises `RequestRefused` if a client's event is refused; then nothing has changed. Late events of engines, about
        what was cancelled, lost or forgotten, are ignored.
        """
        changes = Changes(now)
        match event:
            case Submitted():
                self._submit(event, changes)
            case Waited():
                self._wait(event, changes)
            case ValueSet():
                self._set_value(event, changes)
            case Retried() | Withdrawn():
                self._retry_or_withdraw(event, changes)
            case SessionEnded():
                end_session(self.graph, self.graph.session(event.session, event.tenant), event.reason, changes)
            case SessionTouched():
                session = self.graph.session(event.session, event.tenant)
                session.attached = event.attached
                self._renew_lease(session, now)
                return []  # there is nothing to schedule, and every exchange sends this twice
            case CallReturned():
                self._call_returned(event, changes)
            case CallRan():
                self._call_ran(event, changes)
            case EngineJoined():
                self._engine_joined(event, changes)
            case EngineLost():
                self._engine_lost(event.engine, event.reason, changes)
            case OutputProduced():
                output_produced(self.graph, event, changes)
            case RequestEnded():
                request_ended(self.graph, event, changes)
            case StepsRun():
                self._scheduler.timed(event, now)
            case TenantWeighed():
                self._scheduler.weigh(event.tenant, event.weight)
            case Continued():
                pass
            case Restored():
                self._restore(event, changes)
            case Ticked():
                self._tick(changes)
        self._schedule(changes)
        return changes.decisions

    def next_deadline(self) -> float | None:
        """When the next `Ticked` is due; None while nothing has a deadline."""
        first = self.graph.deadlines.first()
        return first[0] if first is not None else None

    @property
    def unfinished(self) -> bool:
        """Whether work is left from events that brought too much for one pass: `Continued` goes on with it."""
        return self._scheduler.unfinished

    def add_model(self, model: str) -> None:
        """Requests may name this model from now on; they wait until an engine serves it."""
        self._models.add(model)

    # --- What can be seen ------------------------------------------------------------------------------------

    def session_view(self, session: SessionId, tenant: TenantId) -> SessionSnapshot:
        """A session's graph with states and timings. Raises `UnknownObject`."""
        return picture_session(self.graph.session(session, tenant))

    def sessions(self, tenant: TenantId | None, *, after: int = 0) -> Iterator[SessionSummary]:
        """Sessions of a tenant (None: of all tenants) with numbers above `after`, in the order they were opened."""
        return picture_sessions(self.graph.sessions.values(), tenant, after)

    def revival(self, session: SessionId, tenant: TenantId, variable: VariableId) -> Revival:
        """What a retry of a variable would bring back. Raises `UnknownObject`, `ForeignVariable`."""
        return revival(self.graph.variable(self.graph.session(session, tenant), variable))

    def request_of(self, session: SessionId, tenant: TenantId, variable: VariableId) -> RequestId | None:
        """The request that produces a variable, if any. Raises `UnknownObject`, `ForeignVariable`."""
        producer = self.graph.variable(self.graph.session(session, tenant), variable).producer
        return producer.id if isinstance(producer, Request) else None

    def call_state(self, session: SessionId, tenant: TenantId, call: CallId) -> ProducerState:
        """The state of a native call of a session. Raises `UnknownObject`."""
        return self.graph.call(self.graph.session(session, tenant), call).state

    def request(self, request: RequestId) -> Request:
        """A request, to be read only: its segments, inputs and their values, session. Raises `UnknownObject`."""
        found = self.graph.requests.get(request)
        if found is None:
            raise UnknownObject(
                f"There is no request {shown(request)!r}; its session may have ended.", request=shown(request)
            )
        return found

    def check_integrity(self) -> None:
        """Recount everything that is kept incrementally. Raises `AssertionError`. For tests: it visits all objects."""
        check_graph(self.graph)
        self._scheduler.check_integrity(self.graph.requests.values())

    # --- Clients ---------------------------------------------------------------------------------------------

    def _submit(self, event: Submitted, changes: Changes) -> None:
        plan = plan_submit(self.graph, event, self._models, changes.now)
        grow(self.graph, plan, changes)
        self._renew_lease(plan.session, changes.now)

    def _wait(self, event: Waited, changes: Changes) -> None:
        session = self.graph.session(event.session, event.tenant)
        found = [(self.graph.variable(session, wait.variable), wait) for wait in event.waits]
        for variable, wait in found:
            ask(variable, wait, changes)
        self._renew_lease(session, changes.now)

    def _set_value(self, event: ValueSet, changes: Changes) -> None:
        session = self.graph.session(event.session, event.tenant)
        variable = self.graph.variable(session, event.variable)
        if variable.producer is not None:
            raise AlreadyProduced(
                f"The {variable} is produced by {variable.producer} and cannot be set; set a variable of its own.",
                variable=shown(variable.id),
            )
        if variable.was_set and variable.value == event.value:
            # The client repeats itself, because the answer was lost.
            self._renew_lease(session, changes.now)
            return
        if variable.state is not VariableState.EMPTY:
            what = "has a value" if variable.ready else "was cancelled"
            raise AlreadyProduced(f"The {variable} {what} and cannot be set.", variable=shown(variable.id))
        fill(self.graph, variable, event.value, None, changes)
        self._renew_lease(session, changes.now)

    def _retry_or_withdraw(self, event: Retried | Withdrawn, changes: Changes) -> None:
        session = self.graph.session(event.session, event.tenant)
        variable = self.graph.variable(session, event.variable)
        if isinstance(event, Retried):
            revive(self.graph, revival(variable), changes)
        elif not variable.settled:
            cancel(self.graph, variable, changes)
        self._renew_lease(session, changes.now)

    def _call_returned(self, event: CallReturned, changes: Changes) -> None:
        session = self.graph.session(event.session, event.tenant)
        call = self.graph.call(session, event.call)
        if (event.value is None) == (event.error is None):
            raise InvalidGraph(f"A result of {call} is either a value or an error.", call=shown(call.id))
        if call.spec.sandboxed is not None:
            raise InvalidGraph(f"The service itself runs {call}; no client has a result of it.", call=shown(call.id))
        late = call.finished or event.attempt not in (None, call.attempt)
        if call.state is ProducerState.WAITING and not late:
            raise InvalidGraph(f"There can be no result of {call} yet: its inputs are not known.", call=shown(call.id))
        self._renew_lease(session, changes.now)
        if not late:
            end_call(self.graph, call, event.value, event.error, changes)

    def _call_ran(self, event: CallRan, changes: Changes) -> None:
        call = self.graph.calls.get(event.call)
        if call is not None and call.aboard:
            end_call(self.graph, call, event.value, event.error, changes)

    def _renew_lease(self, session: Session, now: float) -> None:
        """A client was in contact: the session's lease starts anew, or does not run while a client is attached."""
        session.used = now
        if session.attached > 0:
            self.graph.deadlines.discard(session)
        else:
            self.graph.deadlines.put(session, now + session.lease_seconds)

    def _restore(self, event: Restored, changes: Changes) -> None:
        plan = plan_submit(self.graph, event.batch, self._models, changes.now)
        restore(self.graph, plan, event, changes)
        self._renew_lease(plan.session, changes.now)

    # --- Engines and the clock -------------------------------------------------------------------------------

    def _engine_joined(self, event: EngineJoined, changes: Changes) -> None:
        self._engine_lost(event.engine, "it was started anew", changes)
        self._models.add(event.model)
        self._scheduler.join(event)

    def _engine_lost(self, engine: EngineId, reason: str, changes: Changes) -> None:
        for request in self._scheduler.lose(engine):
            if request.ahead == engine:
                ahead_stopped(request)
            else:
                engine_died(self.graph, request, engine, reason, changes)

    def _tick(self, changes: Changes) -> None:
        deadlines = self.graph.deadlines
        while (first := deadlines.first()) is not None and first[0] <= changes.now:
            overdue = deadlines.pop()
            if isinstance(overdue, Session):
                end_session(self.graph, overdue, "lease expired", changes)
            else:
                time_out(self.graph, overdue, changes)

    # --- What follows from every event -----------------------------------------------------------------------

    def _schedule(self, changes: Changes) -> None:
        self._deduce(changes)
        for request in changes.wrote:
            self._scheduler.wrote(request)
        for engine, request, usage in changes.freed:
            self._scheduler.free(engine, request, usage, changes.now)
        for name, epoch, used in changes.late:
            self._scheduler.settle(name, epoch, used)
        for request in changes.informed:
            if request.state is ProducerState.WAITING:
                self._scheduler.wait(request)
        for request in changes.queued:
            if request.state is ProducerState.QUEUED:
                self._scheduler.queue(request)
        for request in changes.unqueued:
            if request.state is not ProducerState.QUEUED:
                self._scheduler.unqueue(request)
        for request, usage in changes.over:
            if request.finished:
                self._scheduler.finish(request, usage)
        early = dict(changes.informed)
        for outcome in self._scheduler.place(changes.now):
            changes.decisions += decisions_of(outcome, changes)
            if isinstance(outcome, Placed):
                early |= dict.fromkeys(first_readers(outcome.request))
        for request in early:
            self._run_ahead(request, changes)

    def _run_ahead(self, request: Request, changes: Changes) -> None:
        """Let a request run ahead while its first missing input is being produced, if possible on the engine that has
        what belongs to it. Where another request writes the input, follow its text if that can be read in parts."""
        if request.state is not ProducerState.WAITING or request.suspect or request.keeps_space:
            return
        awaited = request.awaited
        writer = awaited.producer
        if writer is None or not writer.aboard:
            return
        if request.ahead is None:
            place = self._scheduler.run_ahead(request, _near(writer))
            if place is None:
                return
            if place.instead_of is not None:
                changes.decisions.append(recall(place.instead_of))
            request.ahead = place.engine
            changes.decisions.append(reading_ahead(request, place.engine))
        if not isinstance(writer, Request) or writer.engine is None:
            return
        if not awaited.streamed and not awaited.followed and _may_flow(request, awaited, writer):
            awaited.followed = True
            changes.decisions.append(
                UpdateSequence(
                    request=writer.id, engine=writer.engine, epoch=writer.epoch, follow=frozenset({awaited.id})
                )
            )

    def _deduce(self, changes: Changes) -> None:
        """Deduce objectives of the requests that the event affects; tell engines of changes, and of new streams."""
        if not (changes.asked or changes.rewired or changes.streams):
            return
        rewired = set(changes.rewired)
        results = dict.fromkeys(changes.asked)
        results |= dict.fromkeys(output for one in changes.rewired for output in one.outputs if output.urgent)
        found = deduce(results, rewired) if results and self._switches.objectives else {}
        precedences: dict[Request, Precedence | None] = {}
        for request, deduction in found.items():
            assign(request, deduction)
            precedences[request] = self._scheduler.reclassify(request)
        for request in {**found, **changes.streams}:
            if request.aboard and request.engine is not None:
                changes.decisions.append(
                    UpdateSequence(
                        request=request.id,
                        engine=request.engine,
                        epoch=request.epoch,
                        objective=request.objective if request in found else None,
                        precedence=precedences.get(request),
                        stream=frozenset(changes.streams.get(request, ())),
                    )
                )


def _near(writer: Producer) -> EngineId | None:
    """The engine to run ahead on for a reader of a producer's output: where the producer runs, or, for a native call,
    where an input of it was written."""
    if isinstance(writer, Request):
        return writer.engine
    written = (one.producer for one in writer.inputs if isinstance(one.producer, Request))
    return next((one.engine for one in written if one.engine is not None), None)


def _may_flow(request: Request, variable: Variable, writer: Request) -> bool:
    """Whether a request can prefill the text that it awaits before it is complete (which not all transforms allow), and
    the text may be long enough for that to pay."""
    whole = any(transform.name in WHOLE_VALUE for transform in request.reads.transforms)
    return not whole and writer.samplings[variable.id].max_tokens >= _WORTH_FOLLOWING
