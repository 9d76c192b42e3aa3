"""One submit and its answer: sends it, hands on what comes back, and finds the calls that a refusal is about."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from parrotserve.errors import (
    GetTimeout,
    ParrotError,
    ServiceUnavailable,
    SessionLost,
    TooLarge,
    Unauthorized,
    UnknownModel,
)
from parrotserve.ids import CallId, SessionId, VariableId
from parrotserve.protocol import Accepted, CallSpec, Failure, RequestSpec, Submit, Value, VariableEvent, VariableSpec
from parrotserve.sdk.connection import Connection
from parrotserve.sdk.outbox import Batch, Declaration, Outbox, Want
from parrotserve.sdk.transport import Transport


@dataclass(slots=True)
class _Refusals:
    """What is known from the refusals so far, while the parts of a refused batch are sent."""

    failed: dict[VariableId, ParrotError] = field(default_factory=dict[VariableId, ParrotError])
    """Outputs of calls that were refused, and why."""
    full: ParrotError | None = None
    """The refusal that says that the session takes no more calls."""
    models: dict[str, ParrotError] = field(default_factory=dict[str, ParrotError])
    """Refusals of models that do not exist, by the names that calls give them."""
    blamed: bool = False
    """Whether a call was found to be at fault."""

    def learn(self, error: ParrotError, *, single: bool) -> None:
        """Note a refusal that holds for other calls, too, so that thousands of them need not be sent one by one."""
        if single and isinstance(error, TooLarge) and error.details.get("limit") == "session_requests":
            self.full = error
        if isinstance(error, UnknownModel) and (model := error.details.get("model")):
            self.models[model] = error

    def hold_against(self, call: Declaration) -> ParrotError | None:
        """Why a call would be refused, as far as that is known without asking the service."""
        model = call.spec.model if isinstance(call.spec, RequestSpec) else None
        unread = next((self.failed[name] for name in call.inputs if name in self.failed), None)
        return unread or self.full or (None if model is None else self.models.get(model))


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Sends batches of one session and hands the answers to its cells. On the background loop only."""

    session: SessionId
    lease_seconds: float
    connection: Connection
    outbox: Outbox
    deliver: Callable[[VariableEvent], None]
    """Passes an event to the cell that it is about."""
    accepted: Callable[[], None]
    """Called when a batch, or a part of it, has been accepted."""
    refused: Callable[[CallId], None]
    """Called with each native call that has been refused for good."""
    lost: Callable[[SessionLost], None]
    """Called if the service no longer has what the session has read."""

    async def run(self, batch: Batch) -> None:
        """Send a batch and deliver its whole answer. Errors go to those who wait for what it carried."""
        try:
            transport = await self.connection.opened()
        except Exception as error:
            # That there is no service says nothing about the batch: asking again may succeed.
            self.outbox.resend(batch.declarations)
            self._interrupt(batch.wants, error)
            if not (isinstance(error, ParrotError) or batch.wants):
                raise  # a defect of the transport: nobody waits who would see it, so the event loop reports it
        else:
            await self._converse(transport, batch)
        finally:
            for want in batch.wants:
                want.answered()

    async def _converse(self, transport: Transport, batch: Batch) -> None:
        open_wants = {want.variable.id: want for want in batch.wants}
        entered = False
        try:
            async for event in transport.submit(batch.body(self.session, self.lease_seconds)):
                if isinstance(event, Accepted):
                    entered = True
                    self._settle(batch)
                else:
                    self._deliver(event, open_wants)
            if open_wants:
                raise ServiceUnavailable(
                    "The service's answer broke off before every variable had its value. Call get() again."
                )
        except ServiceUnavailable as error:
            if not entered:
                self.outbox.resend(batch.declarations)
            self._interrupt(open_wants.values(), error)
        except SessionLost as error:
            self.lost(error)
        except ParrotError as error:
            if entered:
                self._interrupt(open_wants.values(), error)
            else:
                await self._refused(batch, error)
        except Exception as error:
            # A defect of the transport; whoever waits must see it rather than wait for ever.
            self._interrupt(batch.wants, error)
            if not open_wants:
                raise

    def _deliver(self, event: VariableEvent, open_wants: dict[VariableId, Want]) -> None:
        if isinstance(event, Failure) and event.error.code == ServiceUnavailable.code:
            # This is about the service, which is going away, and not about the variable.
            raise event.error.to_error()
        if isinstance(event, Value | Failure):
            open_wants.pop(event.variable, None)
        if isinstance(event, Failure) and event.error.code == GetTimeout.code:
            # Waiters give up by their own clocks. The variable has not failed.
            return
        self.deliver(event)

    def _settle(self, batch: Batch) -> None:
        self.outbox.settle(batch.declarations)
        self.accepted()

    def _interrupt(self, wants: Iterable[Want], error: BaseException) -> None:
        for want in wants:
            want.variable.cell.interrupt(error)

    async def _refused(self, batch: Batch, error: ParrotError) -> None:
        """Find the calls at fault and send the rest: a batch is accepted whole or not at all, so one bad call keeps the
        others out."""
        refusals = _Refusals()
        if isinstance(error, Unauthorized) or not batch.declarations:
            self._fail(batch.declarations, error, refusals)
            self._interrupt(batch.wants, error)
            return
        try:
            await self._sift(batch, error, refusals)
        except ServiceUnavailable as gone:
            self.outbox.resend(batch.declarations)
            self._interrupt(batch.wants, gone)
            return
        rest = tuple(want for want in batch.wants if want.variable.id not in refusals.failed)
        if rest:
            await self.run(Batch((), rest))

    async def _sift(self, batch: Batch, error: ParrotError, refusals: _Refusals) -> None:
        """Send a refused batch without the call that is at fault, if that is known, else its halves, one after the
        other, down to single calls. Fail those that are refused."""
        declarations = batch.declarations
        refusals.learn(error, single=len(declarations) == 1)
        blamed = declarations if len(declarations) == 1 else _blamed(error, declarations)
        if blamed:
            self._fail(blamed, error, refusals)
            await self._introduce_inputs(batch, blamed)
        names = {each.spec.id for each in blamed}
        rest = tuple(each for each in declarations if each.spec.id not in names)
        # Usually only one call is at fault. If there are more, halves find them in fewer submits.
        middle = 0 if blamed and not refusals.blamed else len(rest) // 2
        refusals.blamed = refusals.blamed or bool(blamed)
        for part in (rest[:middle], rest[middle:]):
            if part:
                await self._send_part(batch, part, refusals)

    async def _send_part(self, batch: Batch, declarations: tuple[Declaration, ...], refusals: _Refusals) -> None:
        """Send those of a batch's calls that may still be accepted, and fail the others."""
        hopeful: list[Declaration] = []
        hopeless: list[Declaration] = []
        for each in declarations:
            reason = refusals.hold_against(each)
            if reason is None:
                hopeful.append(each)
            else:
                hopeless.append(each)
                self._fail((each,), reason, refusals)
        await self._introduce_inputs(batch, hopeless)
        if not hopeful:
            return
        part = batch.part(hopeful)
        refusal = await self._refusal_of(part.body(self.session, self.lease_seconds))
        if refusal is None:
            self._settle(part)
        else:
            await self._sift(part, refusal, refusals)

    async def _introduce_inputs(self, batch: Batch, refused: Iterable[Declaration]) -> None:
        """Declare the variables that refused calls were the first to name, because later calls may read them."""
        await self._introduce([batch.introduced[named.id] for each in refused for named in each.introduced])

    async def _introduce(self, variables: list[VariableSpec]) -> None:
        if not variables:
            return
        body = Submit(session=self.session, lease_seconds=self.lease_seconds, variables=tuple(variables))
        if isinstance(await self._refusal_of(body), TooLarge) and len(variables) > 1:
            middle = len(variables) // 2
            await self._introduce(variables[:middle])
            await self._introduce(variables[middle:])

    async def _refusal_of(self, body: Submit) -> ParrotError | None:
        """Send a submit. Returns the refusal, or None if it was accepted. Raises `ServiceUnavailable`."""
        try:
            transport = await self.connection.opened()
            async for _ in transport.submit(body):
                pass
        except ServiceUnavailable:
            raise
        except ParrotError as error:
            return error
        return None

    def _fail(self, declarations: Iterable[Declaration], error: ParrotError, refusals: _Refusals) -> None:
        """Fail calls for good. A call that reads an output of one that failed before fails for the same reason."""
        failed = refusals.failed
        for declaration in declarations:
            reason = next((failed[name] for name in declaration.inputs if name in failed), error)
            for named in declaration.outputs:
                failed[named.id] = reason
                named.cell.refused = True
                named.cell.fail(reason, cause=reason.__cause__)
            if isinstance(declaration.spec, CallSpec):
                self.refused(CallId(declaration.spec.id))
        self.outbox.settle(declarations)


def _blamed(error: ParrotError, declarations: Iterable[Declaration]) -> tuple[Declaration, ...]:
    """The call that a refusal names, if it names one."""
    name = error.details.get("request") or error.details.get("call")
    return tuple(each for each in declarations if each.spec.id == name)
