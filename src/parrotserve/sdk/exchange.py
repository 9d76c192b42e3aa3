"""One submit and its answer: what it carries, what comes back, and what a refusal means for whom."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from parrotserve.errors import GetTimeout, ParrotError, ServiceUnavailable, SessionLost, Unauthorized
from parrotserve.ids import SessionId, VariableId
from parrotserve.protocol import Accepted, Failure, Submit, Value, VariableEvent
from parrotserve.sdk.connection import Connection
from parrotserve.sdk.outbox import Batch, Declaration, Outbox, Want
from parrotserve.sdk.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Sends batches of one session and hands the answers to its cells. On the background loop only."""

    session: SessionId
    lease_seconds: float
    connection: Connection
    outbox: Outbox
    deliver: Callable[[VariableEvent], None]
    """Hands an event to the cell that it is about."""
    accepted: Callable[[], None]
    """Called when a batch, or a part of it, is in."""
    lost: Callable[[SessionLost], None]
    """Called where the service does not have any more what the session has read."""

    async def run(self, batch: Batch) -> None:
        """Send a batch and deliver its whole answer. Errors go to those who wait for what it carried."""
        try:
            transport = await self.connection.opened()
        except Exception as error:
            # That there is no service says nothing about the batch: who asks again may have better luck.
            self.outbox.resend()
            self._interrupt(batch.wants, error)
            if not (isinstance(error, ParrotError) or batch.wants):
                raise  # a defect of the transport, which the loop tells where nobody else is told
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
                raise ServiceUnavailable("The service ended its answer before every variable had one; get it again.")
        except ServiceUnavailable as error:
            if not entered:
                self.outbox.resend()
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
            # This is about the service that goes away, and not about the variable.
            raise event.error.to_error()
        if isinstance(event, Value | Failure):
            open_wants.pop(event.variable, None)
        if isinstance(event, Failure) and event.error.code == GetTimeout.code:
            # The waiter's own clock says when it gives up; the variable is none the worse.
            return
        self.deliver(event)

    def _settle(self, batch: Batch) -> None:
        self.outbox.settle(batch.declarations)
        self.accepted()

    def _interrupt(self, wants: Iterable[Want], error: BaseException) -> None:
        for want in wants:
            want.variable.cell.interrupt(error)

    async def _refused(self, batch: Batch, error: ParrotError) -> None:
        """A batch is in whole or not at all, so one bad call keeps the others out: find it, and send the rest."""
        failed: dict[VariableId, ParrotError] = {}
        if isinstance(error, Unauthorized) or not batch.declarations:
            self._fail(batch.declarations, error, failed)
            self._interrupt(batch.wants, error)
            return
        try:
            await self._halve(batch, error, failed)
        except ServiceUnavailable as gone:
            self.outbox.resend()
            self._interrupt(batch.wants, gone)
            return
        rest = tuple(want for want in batch.wants if want.variable.id not in failed)
        if rest:
            await self.run(Batch((), rest))

    async def _halve(self, batch: Batch, error: ParrotError, failed: dict[VariableId, ParrotError]) -> None:
        """Send the halves of a refused batch, one after the other, down to single calls; note those that `failed`."""
        declarations = batch.declarations
        if len(declarations) == 1:
            self._fail(declarations, error, failed)
            # Calls after it may read what it was the first to name.
            variables = tuple(batch.introduced[named.id] for named in declarations[0].introduced)
            if variables:
                await self._refusal_of(
                    Submit(session=self.session, lease_seconds=self.lease_seconds, variables=variables)
                )
            return
        middle = len(declarations) // 2
        for half in (declarations[:middle], declarations[middle:]):
            part = batch.part(half)
            refusal = await self._refusal_of(part.body(self.session, self.lease_seconds))
            if refusal is None:
                self._settle(part)
            else:
                await self._halve(part, refusal, failed)

    async def _refusal_of(self, body: Submit) -> ParrotError | None:
        """What the service says against it. Raises `ServiceUnavailable`."""
        try:
            transport = await self.connection.opened()
            async for _ in transport.submit(body):
                pass
        except ServiceUnavailable:
            raise
        except ParrotError as error:
            return error
        return None

    def _fail(
        self, declarations: Iterable[Declaration], error: ParrotError, failed: dict[VariableId, ParrotError]
    ) -> None:
        """These will never be; what reads the outputs of a call that failed before fails for the same reason."""
        for declaration in declarations:
            reason = next((failed[name] for name in declaration.inputs if name in failed), error)
            for named in declaration.outputs:
                failed[named.id] = reason
                named.cell.refused = True
                named.cell.fail(reason, cause=reason.__cause__)
        self.outbox.settle(declarations)
