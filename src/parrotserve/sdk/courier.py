"""The part of a session that lives on the background loop: it sends, keeps the session alive, and ends it.

It has no reference to the `Session` that the program holds, so that a session which the program drops is collected as
garbage, and ended.
"""

import asyncio
import contextlib
import weakref
from collections.abc import Awaitable, Callable
from typing import TypeVar

from parrotserve.errors import Cancelled, ParrotError, SessionLost
from parrotserve.ids import SessionId, VariableId
from parrotserve.protocol import Delta, Failure, Submit, Value, VariableEvent
from parrotserve.sdk.cell import Cell
from parrotserve.sdk.connection import Connection
from parrotserve.sdk.debounce import Debounce
from parrotserve.sdk.exchange import Exchange
from parrotserve.sdk.loop import background, running
from parrotserve.sdk.natives import BoundCalls, NativeCalls
from parrotserve.sdk.outbox import Batch, Outbox
from parrotserve.sdk.transport import Transport

T = TypeVar("T")

FLUSH_SECONDS = 0.005
"""Declarations that nobody waits for are sent so long after the last of them."""
BEATS_PER_LEASE = 3
END_SECONDS = 3.0
"""Longest time that a program waits, also at its exit, for telling a service that a session has ended."""


class Courier:
    """Carries one session's declarations, waits and answers. On the background loop only, where not said otherwise."""

    def __init__(
        self, session: SessionId, connection: Connection, lease_seconds: float, native_calls: BoundCalls
    ) -> None:
        self.session = session
        self.connection = connection
        self.outbox = Outbox()
        self.natives = NativeCalls(session, connection, native_calls)
        self.cells: weakref.WeakValueDictionary[VariableId, Cell] = weakref.WeakValueDictionary()
        self.ended = False
        self.lease = lease_seconds
        self._debounce = Debounce(seconds=FLUSH_SECONDS, act=self._flush, timer=connection.timer)
        self._exchanges: set[asyncio.Task[None]] = set()
        self._entering: set[asyncio.Future[None]] = set()
        self._heart: asyncio.Task[None] | None = None
        self._finishing: asyncio.Task[None] | None = None

    # --- On any thread --------------------------------------------------------------------------------------

    def flush_soon(self) -> None:
        """Send everything that is pending, `FLUSH_SECONDS` after the last such call."""
        self._debounce.poke()

    def flush(self) -> None:
        """Send everything that is pending, without waiting for an answer."""
        background().soon(self._flush)

    def sync(self) -> None:
        """Send everything that is pending, and wait until the service has accepted or refused it."""
        background().call(self._entered())

    def call(self, act: Callable[[Transport], Awaitable[T]]) -> T:
        """Perform one action on the service, after everything that was declared before, and return its result."""
        return background().call(self._after_flush(act))

    async def acall(self, act: Callable[[Transport], Awaitable[T]]) -> T:
        """`call`, for coroutines on any asyncio loop."""
        return await background().acall(self._after_flush(act))

    def close(self) -> None:
        """End the session as far as the program can see: produced variables that are not settled fail."""
        self.ended = True
        for cell in list(self.cells.values()):
            if cell.produced:
                name = repr(cell.name) if cell.name else "a variable"
                cell.fail(Cancelled(f"Session {self.session} ended before {name} was read.", session=self.session))

    def abandon(self) -> None:
        """End a session that the program has dropped. The garbage collector may call this at any point of a program."""
        loop = running()
        if loop is not None and not self.ended and self.connection.usable:
            self.ended = True
            loop.soon(lambda: self._finish(False))

    # --- On the background loop -----------------------------------------------------------------------------

    @property
    def known(self) -> bool:
        """Whether the service has been told of the session."""
        return self._heart is not None

    async def end(self, *, flush: bool = False) -> None:
        """Tell the service that the session has ended; with `flush`, send what is pending before."""
        self.close()
        await asyncio.shield(self._finish(flush))

    def _flush(self) -> None:
        batch = self.outbox.take()
        if batch is None:
            return
        self._register()
        entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._entering.add(entered)
        task = background().start(self._carry(batch, entered))
        self._exchanges.add(task)
        task.add_done_callback(self._exchanges.discard)

    async def _carry(self, batch: Batch, entered: asyncio.Future[None]) -> None:
        def accepted() -> None:
            self._entering.discard(entered)
            if not entered.done():
                entered.set_result(None)
            self.natives.serve()

        exchange = Exchange(
            session=self.session,
            lease_seconds=self.lease,
            connection=self.connection,
            outbox=self.outbox,
            deliver=self._deliver,
            accepted=accepted,
            refused=self.natives.drop,
            lost=self._lose,
        )
        try:
            await exchange.run(batch)
        finally:
            self._entering.discard(entered)
            if not entered.done():
                entered.set_result(None)

    def _lose(self, error: SessionLost) -> None:
        """Fail whatever is not settled: it may depend on other texts than those that were read."""
        for cell in list(self.cells.values()):
            if cell.produced:
                cell.fail(error)

    def _register(self) -> None:
        """Before an exchange: have the connection end this session before it closes, and keep the session alive."""
        self.connection.before_close(self.end)
        if self._heart is None:
            self._heart = background().start(self._keep_alive())

    async def _after_flush(self, act: Callable[[Transport], Awaitable[T]], *, flush: bool = True) -> T:
        await self._entered(flush=flush)
        return await act(await self.connection.opened())

    async def _entered(self, *, flush: bool = True) -> None:
        if flush:
            self._flush()
        if self._entering:
            await asyncio.wait(self._entering)

    def _deliver(self, event: VariableEvent) -> None:
        cell = None if not isinstance(event, Delta | Value | Failure) else self.cells.get(event.variable)
        if cell is None:
            return
        match event:
            case Delta(offset=offset, text=text):
                cell.grow(offset, text)
            case Value(value=value, reason=reason, logprobs=logprobs):
                cell.resolve(value, reason, logprobs)
            case Failure(error=error):
                # What failed first may be a native function of this program: show its author the line.
                upstream = error.details.get("upstream")
                cell.fail(error.to_error(), cell.raised if upstream is None else self.natives.raised_by(upstream))
            case _:
                pass

    async def _keep_alive(self) -> None:
        """Renew the lease while the program computes, unless an open exchange does that."""
        beat = Submit(session=self.session, lease_seconds=self.lease)
        while True:
            await asyncio.sleep(self.lease / BEATS_PER_LEASE)
            if not self._exchanges:
                with contextlib.suppress(ParrotError):
                    transport = await self.connection.opened()
                    async for _ in transport.submit(beat):
                        pass

    def _finish(self, flush: bool) -> asyncio.Task[None]:
        if self._finishing is None:
            self._finishing = background().start(self._wind_up(flush))
        return self._finishing

    async def _wind_up(self, flush: bool) -> None:
        if flush:
            self._flush()
        if self._heart is None:
            # The service has never heard of it.
            return
        self._heart.cancel()
        # If the service cannot be told, the lease ends the session.
        with contextlib.suppress(ParrotError, TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await self._after_flush(lambda transport: transport.end_session(self.session), flush=False)
        self.natives.stop()
        for task in tuple(self._exchanges):
            task.cancel()
        self.connection.closes_without(self.end)
