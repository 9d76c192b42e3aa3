"""Native calls of one session: ordinary functions, run in this process when the service says their inputs are ready."""

import asyncio
import contextvars
import inspect
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from parrotserve.errors import NativeCallFailed, ParrotError, RequestRefused, ServiceUnavailable, UnknownObject
from parrotserve.ids import CallId, SessionId, VariableId
from parrotserve.native_calls import fill
from parrotserve.protocol import CallOffer, CallResult, CallState
from parrotserve.sdk.connection import Connection
from parrotserve.sdk.loop import background
from parrotserve.sdk.outbox import Named
from parrotserve.sdk.plain import is_pending, text_from
from parrotserve.sdk.users_place import users_part
from parrotserve.texts import check_text

CONCURRENT_CALLS = 256
"""Most native calls of one session that run at the same time, each in a thread. Those that timed out do not count."""
RETRY_SECONDS = 1.0
MOST_LOOKS = 20
"""Number of checks whether a session that is gone has come back: a restarted service that keeps no journal has it again
once the exchanges that were open have been repeated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundCall:
    """A function with its arguments, in which `Slot`s stand for values to come."""

    function: Callable[..., Any]
    name: str
    arguments: Mapping[str, Any]
    inputs: tuple[VariableId, ...]
    output: Named
    timeout: float | None
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    """The caller's context, so that the function sees the caller's session."""

    def run(self, values: tuple[str, ...]) -> str:
        """Run the function in the calling thread and return the result as text. Raises `NativeCallFailed`, with its
        cause."""
        filled = dict(zip(self.inputs, values, strict=True))
        arguments = {name: fill(value, filled) for name, value in self.arguments.items()}
        try:
            # In a copy of the context: an earlier run that did not return in time is still inside its own copy.
            result = self.context.copy().run(self._call, arguments)
            if result is None:
                raise TypeError("it returned nothing; return the text")
            return check_text(text_from(result, "What it returned"), "What it returned")
        except BaseException as error:
            # `SystemExit` and its like too: if they went on, they would end the event loop of all sessions.
            error.__traceback__ = users_part(error.__traceback__)
            told = f"Native function {self.name} raised {type(error).__name__}: {error}"
            raise NativeCallFailed(told.encode(errors="backslashreplace").decode()) from error

    def _call(self, arguments: dict[str, Any]) -> Any:
        signature = inspect.signature(self.function)
        bound = signature.bind_partial()
        bound.arguments.update(arguments)
        result = self.function(*bound.args, **bound.kwargs)
        # A loop of its own, so that a coroutine that blocks keeps nobody else waiting.
        return asyncio.run(_awaited(result)) if is_pending(result) else result


class BoundCalls(dict[CallId, BoundCall]):
    """Native calls of one session that may still be offered. Only the `Session` holds them, because they may hold it in
    turn, through the contexts, arguments and failures of their functions."""


class NativeCalls:
    """Runs the native calls of one session that the service offers. On the background loop only, except for `add`."""

    def __init__(self, session: SessionId, connection: Connection, bound: BoundCalls) -> None:
        self._session = session
        self._connection = connection
        self._bound = weakref.ref(bound)
        self._running: dict[CallId, int] = {}
        """The latest attempt at each call that runs. Earlier attempts may still run beside it, but no longer count."""
        self._again: set[CallId] = set()
        """Calls that were offered once more while that attempt runs."""
        self._room = asyncio.Semaphore(CONCURRENT_CALLS)
        self._server: asyncio.Task[None] | None = None

    @property
    def _pending(self) -> BoundCalls:
        """The calls that may still be offered; none once the program has dropped the session."""
        bound = self._bound()
        return BoundCalls() if bound is None else bound

    def add(self, call: CallId, bound: BoundCall) -> None:
        """Expect an offer of this call; on any thread, before it is declared."""
        self._pending[call] = bound

    def drop(self, call: CallId) -> None:
        """Expect no offer of this call: it was refused."""
        self._pending.pop(call, None)

    def serve(self) -> None:
        """Start listening for offers, if there are calls and nobody listens yet."""
        if self._pending and (self._server is None or self._server.done()):
            self._server = background().start(self._serve())

    def stop(self) -> None:
        """Stop listening. Running functions end by themselves, and their results are ignored."""
        self._pending.clear()
        if self._server is not None:
            self._server.cancel()

    def raised_by(self, call: str) -> BaseException | None:
        """The exception that the function of a call raised in this process, if that is why the call failed."""
        bound = self._pending.get(CallId(call))
        return None if bound is None else bound.output.cell.raised

    async def _serve(self) -> None:
        looks = 0
        while self._pending and looks < MOST_LOOKS:
            try:
                transport = await self._connection.opened()
                async for offer in transport.calls(self._session):
                    looks = 0
                    if self._is_last(offer):
                        self._again.add(offer.id)
                    else:
                        self._take(offer)
                looks += 1
            except ServiceUnavailable as error:
                self._interrupt(error)
            except UnknownObject as error:
                looks += 1
                if looks == MOST_LOOKS:
                    self._interrupt(error)
            except ParrotError as error:
                self._interrupt(error)
                return
            await asyncio.sleep(RETRY_SECONDS)

    def _is_last(self, offer: CallOffer) -> bool:
        """Whether this attempt runs and no later one has begun."""
        return self._running.get(offer.id) == offer.attempt

    def _take(self, offer: CallOffer) -> None:
        self._running[offer.id] = offer.attempt
        self._again.discard(offer.id)
        background().start(self._answer(offer))

    def _interrupt(self, error: ParrotError) -> None:
        for bound in list(self._pending.values()):
            bound.output.cell.interrupt(error)

    async def _answer(self, offer: CallOffer) -> None:
        try:
            async with self._room:
                result = await self._result(offer)
            await self._deliver(offer, result)
        except UnknownObject:
            pass  # the session is gone: waiters learn it from their own exchange, or it comes back and offers it anew
        except ParrotError as error:
            self._interrupt_waiters(offer.id, error)
        finally:
            last = self._is_last(offer)
            if last:
                del self._running[offer.id]
        if last and offer.id in self._again and offer.id in self._pending:
            self._take(offer)  # it failed and was retried before this attempt ended, or its session came back

    async def _deliver(self, offer: CallOffer, result: CallResult) -> None:
        """Tell the service the result, and repeat that until it succeeds: a call is offered once per connection, and
        offers that come while the call is being answered are not taken."""
        while True:
            if self._is_last(offer):
                self._again.discard(offer.id)
            try:
                told = await self._tell(offer, result)
                break
            except ServiceUnavailable as error:
                self._interrupt_waiters(offer.id, error)
                await asyncio.sleep(RETRY_SECONDS)
                if offer.id not in self._pending:
                    return
        if told.state == "done":
            # In any other state it may be retried, even if this was a success that came too late.
            self._pending.pop(offer.id, None)

    async def _tell(self, offer: CallOffer, result: CallResult) -> CallState:
        """Tell the service the result or, if it refuses that, that the call failed."""
        transport = await self._connection.opened()
        try:
            return await transport.put_result(self._session, offer.id, result, attempt=offer.attempt)
        except RequestRefused as refused:
            # The result will never be accepted. Unless the call fails, waiters would only wait for it again.
            result = CallResult(error=f"The result of {offer.function} was refused: {refused.message}")
            return await transport.put_result(self._session, offer.id, result, attempt=offer.attempt)

    def _interrupt_waiters(self, call: CallId, error: ParrotError) -> None:
        bound = self._pending.get(call)
        if bound is not None:
            bound.output.cell.interrupt(error)

    async def _result(self, offer: CallOffer) -> CallResult:
        bound = self._pending.get(offer.id)
        if bound is None:
            return CallResult(
                error=f"Native function {offer.function} is not known to the process that was asked to run it."
            )
        bound.output.cell.raised = None
        run = asyncio.get_running_loop().run_in_executor(None, bound.run, offer.inputs)
        try:
            return CallResult(value=await asyncio.wait_for(run, bound.timeout))
        except TimeoutError:
            return CallResult(error=f"Native function {bound.name} did not return within {bound.timeout:g} seconds.")
        except NativeCallFailed as error:
            if self._is_last(offer):
                bound.output.cell.raised = error.__cause__
            return CallResult(error=error.message)


async def _awaited(result: Any) -> Any:
    return await result
