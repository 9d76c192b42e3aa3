"""One submit and its answer: what it carries, what comes back, and what a refusal means for whom."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from parrotserve.errors import GetTimeout, ParrotError, ServiceUnavailable, Unauthorized
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

    async def run(self, batch: Batch) -> None:
        """Send a batch and deliver its whole answer. Errors go to those who wait for what it carried."""
        try:
            transport = await self.connection.opened()
        except ParrotError as error:
            # That there is no service says nothing about the batch: who asks again may have better luck.
            self.outbox.resend()
            self._interrupt(batch.wants, error)
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
        except ParrotError as error:
            if entered:
                self._interrupt(open_wants.values(), error)
            else:
                await self._refused(batch, error)
        except Exception as error:
            # A defect of the transport; whoever waits must see it rather than wait for ever.
            self._interrupt(batch.wants, error)
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
        """A batch is in whole or not at all, so one bad call keeps the others out: send them one by one."""
        if isinstance(error, Unauthorized) or not batch.declarations:
            self._fail(batch.declarations, error)
            self._interrupt(batch.wants, error)
            return
        try:
            failed = await self._one_by_one(batch.declarations, error)
        except ParrotError as later:
            self._fail(batch.declarations, later)
            self._interrupt(batch.wants, later)
            return
        rest = tuple(want for want in batch.wants if want.variable.id not in failed)
        if rest:
            await self.run(Batch((), rest))

    async def _one_by_one(self, declarations: tuple[Declaration, ...], refusal: ParrotError) -> set[VariableId]:
        """The variables that will never be, because what produces them was refused."""
        failed: dict[VariableId, ParrotError] = {}
        introduced = tuple(named.spec() for declaration in declarations for named in declaration.introduced)
        if introduced:
            await self._send(Submit(session=self.session, lease_seconds=self.lease_seconds, variables=introduced))
        for declaration in declarations:
            error = next((failed[name] for name in declaration.inputs if name in failed), None)
            if error is None:
                error = refusal if len(declarations) == 1 else await self._refusal(declaration)
            if error is None:
                self._settle(Batch((declaration,)))
            else:
                self._fail((declaration,), error)
                failed.update((named.id, error) for named in declaration.outputs)
        return set(failed)

    async def _refusal(self, declaration: Declaration) -> ParrotError | None:
        try:
            await self._send(Batch((declaration,)).body(self.session, self.lease_seconds))
        except ServiceUnavailable:
            raise
        except ParrotError as error:
            return error
        return None

    async def _send(self, body: Submit) -> None:
        transport = await self.connection.opened()
        async for _ in transport.submit(body):
            pass

    def _fail(self, declarations: Iterable[Declaration], error: ParrotError) -> None:
        self.outbox.settle(declarations)
        for declaration in declarations:
            for named in declaration.outputs:
                named.cell.refused = True
                named.cell.fail(error, cause=error.__cause__)
