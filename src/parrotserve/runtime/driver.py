"""The driver: the one place that passes events to the machine and carries out its decisions."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable

from parrotserve.errors import EngineFailed, InternalError, RequestRefused
from parrotserve.graph.decisions import (
    Decision,
    EngineDecision,
    ForgetRequest,
    ForgetSession,
    OfferCall,
    OpenSequence,
    PublishFailure,
    PublishValue,
    RevokeCall,
    RunCall,
    SettleRequest,
)
from parrotserve.graph.events import (
    Continued,
    Event,
    FromClient,
    OutputProduced,
    RequestEnded,
    Restored,
    SessionEnded,
    Ticked,
)
from parrotserve.graph.objects import Request
from parrotserve.ids import EngineId, RequestId, SessionId, TenantId, VariableId, shown
from parrotserve.machine import Machine
from parrotserve.protocol import CallOffer, ErrorBody, Failure, Value
from parrotserve.runtime.ahead import AheadSequence, AheadSequences, Written
from parrotserve.runtime.board import Board
from parrotserve.runtime.calls import CallDesk
from parrotserve.runtime.keeper import EngineKeeper, Extending
from parrotserve.runtime.meter import Meter
from parrotserve.runtime.render import Opening, Renderer, pieces_of
from parrotserve.runtime.runs import Delivered, Runs
from parrotserve.runtime.workshop import Workshop
from parrotserve.sampling import TokenLogprob, Usage
from parrotserve.sandbox.limits import Limits
from parrotserve.store.recorder import Recorder
from parrotserve.store.recovery import Recovered, outputs_of

log = logging.getLogger(__name__)

_BUG = "The service hit an unexpected error; its log has the details."

_SOONEST_TICK = 0.001
"""Seconds. The minimum delay of the timer, so that deadlines in the past do not starve the event loop."""


class Driver:
    """Owns the machine and its timer. Synchronous: nothing else runs between an event and its decisions."""

    def __init__(self, machine: Machine, meter: Meter, sandbox: Limits) -> None:
        self.machine = machine
        self.meter = meter
        self._loop = asyncio.get_running_loop()
        self.recorder = Recorder(machine.graph)
        self.board = Board()
        self.desk = CallDesk()
        self.workshop = Workshop(sandbox, self.apply)
        self.runs = Runs(self.board, self.recorder)
        self.aheads = AheadSequences()
        self.keepers: dict[EngineId, EngineKeeper] = {}
        self.renderers: dict[str, Renderer] = {}
        """By model."""
        self._endings: defaultdict[RequestId, list[asyncio.Future[Usage]]] = defaultdict(list)
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._continuing = False
        self._closed = False

    def now(self) -> float:
        """The machine's clock, in seconds."""
        return self._loop.time()

    def apply(self, event: Event) -> None:
        """Pass an event to the machine, and carry out its decisions.

        Raises the machine's refusals. Anything else that it raises is a bug: it is logged, and those who wait in the
        event's session, and whoever caused the event, get an error rather than wait for ever.
        """
        if self._closed:
            return
        self.meter.heard(event)
        try:
            decisions = self.machine.handle(event, self.now())
        except RequestRefused:
            raise
        except Exception as error:
            log.exception("the machine could not handle %s", type(event).__name__)
            self._fail(event)
            if isinstance(event, FromClient | Restored):
                raise InternalError(_BUG) from error
            return
        self.recorder.heard(event)
        for decision in decisions:
            try:
                self._carry_out(decision)
            except Exception:
                log.exception("%s could not be carried out", type(decision).__name__)
                if isinstance(decision, OpenSequence):
                    ended = RequestEnded(request=decision.request, epoch=decision.epoch, error=EngineFailed(_BUG))
                    self._loop.call_soon(self.apply, ended)
        if isinstance(event, RequestEnded) and self._is_over(event.request):
            self._tell_ending(event.request)
        if self.machine.unfinished and not self._continuing:
            self._continuing = True
            self._loop.call_soon(self._continue)
        self._set_timer()

    def restore(self, found: Recovered) -> None:
        """Bring back a session of the journal. Raises the machine's refusals, and `InternalError` if it could not."""
        for variable, pieces in found.pieces.items():
            for piece in pieces if variable not in found.values else ():
                self.board.append(variable, piece.text, piece.logprobs)
        for variable, entry in found.values.items():
            self.runs.keep_logprobs(variable, entry.logprobs)
        for spec in found.event.batch.requests:
            delivered = [_delivered(found, output) for output in outputs_of(spec)]
            if not found.is_done(spec) and any(one.tokens for one in delivered):
                self.runs.restore(spec.id, delivered)
        self.apply(found.event)
        self.recorder.goes_on(found.event.batch.session)

    def leave(self, session: SessionId, lease_seconds: float) -> None:
        """Leave a session of the journal that cannot be brought back there until its lease is over."""
        self.recorder.leaves(session)
        self._loop.call_later(lease_seconds, self._drop_left, session)

    def end_session(self, session: SessionId, tenant: TenantId) -> None:
        """End a session for its client; one that could not be brought back is erased. Raises `UnknownObject`."""
        if not self.recorder.erased(session):
            self.apply(SessionEnded(session=session, tenant=tenant, reason="its client ended it"))

    def reopen(self, session: SessionId, variable: VariableId) -> None:
        """Forget the failure of a variable that a retry brought back."""
        self.recorder.reopened(session, variable)
        self.board.reopen(variable)

    async def usage(self, session: SessionId, request: RequestId) -> Usage:
        """Wait until a session's request no longer runs, and return its usage; zero usage if it is gone by then."""
        found = self.machine.graph.requests.get(request)
        if found is None or found.session.id != session:
            return Usage()
        if self._is_over(request):
            return found.usage
        ending = self._loop.create_future()
        self._endings[request].append(ending)
        return await ending

    @property
    def awaited(self) -> bool:
        """Whether anybody waits for the end of a request."""
        return bool(self._endings)

    def end_waiting(self) -> None:
        """Release everybody who waits for the end of a request."""
        for request in list(self._endings):
            self._tell_ending(request)

    def close(self) -> None:
        """Stop the timer and ignore all further events."""
        self.end_waiting()
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _carry_out(self, decision: Decision) -> None:
        if isinstance(decision, EngineDecision):
            self.keepers[decision.engine].order(decision)
            return
        match decision:
            case OpenSequence():
                self._open(decision)
            case PublishValue():
                self._publish(decision)
            case PublishFailure():
                error = ErrorBody.of(decision.error)
                self.board.publish(decision.variable, Failure(variable=shown(decision.variable), error=error))
                self.recorder.fell(decision.variable)
            case OfferCall():
                offer = CallOffer(
                    id=shown(decision.call),
                    function=decision.function,
                    inputs=decision.inputs,
                    attempt=decision.attempt,
                )
                self.desk.offer(decision.session, offer)
            case RunCall():
                self.workshop.run(decision)
            case RevokeCall():
                self.desk.settle(decision.session, shown(decision.call))
                self.workshop.drop(decision.call)
            case ForgetRequest():
                self.recorder.used(decision.request)
                self.runs.forget(decision.request)
                self._tell_ending(decision.request)
                self.aheads.end(decision.request)
                self.meter.over(decision.request)
            case SettleRequest():
                self.recorder.used(decision.request)
                self._tell_ending(decision.request)
                self.meter.over(decision.request)
            case ForgetSession():
                self.recorder.ended(decision.session)
                self.meter.end_session(decision.session)
                self.desk.forget(decision.session)
                self.board.forget(decision.variables)

    def written(self, request: RequestId) -> Callable[[VariableId], Written]:
        """A function that gives the text of each of a request's inputs, as far as it is known."""
        values = {one.id: one.value for one in self.machine.request(request).inputs}

        def look(variable: VariableId) -> Written:
            value = values[variable]
            return Written(self.board.text(variable), whole=False) if value is None else Written(value, whole=True)

        return look

    def grew(self, variable: VariableId) -> None:
        """More of a variable's text is known: extend the sequences that run ahead and read it."""
        self._extend(self.aheads.readers(variable, len(self.board.text(variable))))

    def catch_up(self, sequence: AheadSequence) -> None:
        """Extend a sequence again if more of its inputs has become known while the last extension was prepared."""
        awaited, request = sequence.awaits, self.machine.graph.requests.get(sequence.request)
        if awaited is None or request is None:
            return
        known = self.written(request.id)(awaited)
        if known.whole or sequence.is_news(len(known.text)):
            self._extend([sequence])

    def _extend(self, sequences: Iterable[AheadSequence]) -> None:
        for one in sequences:
            request = self.machine.graph.requests.get(one.request)
            if request is not None and request.ahead is not None and not one.ordered:
                one.ordered = True
                self.keepers[request.ahead].order(Extending(one.request, one.epoch))

    def _open(self, decision: OpenSequence) -> None:
        request = self.machine.request(decision.request)
        self.meter.opened(request.id, decision.epoch, decision.engine)
        delivered = self.runs.begin(request.id, decision.epoch, [output.id for output in request.outputs])
        self.keepers[decision.engine].order(
            Opening(
                request=request.id,
                epoch=decision.epoch,
                model=request.spec.model,
                objective=decision.objective,
                precedence=decision.precedence,
                tenant=request.session.tenant,
                pieces=pieces_of(
                    request.spec.segments,
                    values={one.id: one.value or "" for one in request.inputs if one.ready},
                    stream=decision.stream,
                    delivered=delivered,
                ),
                ahead=decision.ahead,
            )
        )

    def _is_over(self, request: RequestId) -> bool:
        found = self.machine.graph.requests.get(request)
        return found is None or (found.finished and not found.aboard)

    def _tell_ending(self, request: RequestId) -> None:
        found = self.machine.graph.requests.get(request)
        for ending in self._endings.pop(request, ()):
            if not ending.done():
                ending.set_result(found.usage if found is not None else Usage())

    def _publish(self, decision: PublishValue) -> None:
        logprobs = self.runs.take_logprobs(decision.variable)
        identity, value, reason = shown(decision.variable), decision.value, decision.reason
        self.board.publish(decision.variable, Value(variable=identity, value=value, reason=reason, logprobs=logprobs))
        self._extend(self.aheads.readers(decision.variable))
        self._record_value(decision, logprobs)  # last: readers wait for the journal before they tell it

    def _record_value(self, decision: PublishValue, logprobs: tuple[TokenLogprob, ...]) -> None:
        producer = self.machine.graph.variables[decision.variable].producer
        tokens = ()
        if isinstance(producer, Request) and len(producer.outputs) > 1:
            tokens = self.runs.tokens_of(producer.id, decision.variable)
        self.recorder.made(decision.variable, reason=decision.reason, logprobs=logprobs, tokens=tokens)

    def _fail(self, event: Event) -> None:
        session = self._session_of(event)
        if session is not None:
            self.board.fail_readers(session, InternalError(_BUG))

    def _session_of(self, event: Event) -> SessionId | None:
        if isinstance(event, (OutputProduced, RequestEnded)):
            request = self.machine.graph.requests.get(event.request)
            return request.session.id if request is not None else None
        return event.session if isinstance(event, FromClient) else None

    def _drop_left(self, session: SessionId) -> None:
        if not self._closed and self.recorder.erased(session):
            log.warning("session %s, which could not go on, is dropped: its lease is over", shown(session))

    def _set_timer(self) -> None:
        deadline = self.machine.next_deadline()
        if deadline == self._deadline:
            return
        self._deadline = deadline
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer = self._loop.call_at(max(deadline, self.now() + _SOONEST_TICK), self._tick)

    def _continue(self) -> None:
        self._continuing = False
        self.apply(Continued())

    def _tick(self) -> None:
        self._timer = self._deadline = None
        self.apply(Ticked())


def _delivered(found: Recovered, output: VariableId) -> Delivered:
    value = found.values.get(output)
    pieces = found.pieces.get(output, []) if value is None else [value]
    return Delivered(
        output,
        tokens=tuple(token for piece in pieces for token in piece.tokens),
        logprobs=tuple(logprob for piece in pieces for logprob in piece.logprobs),
    )
