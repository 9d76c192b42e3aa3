"""Sessions, each the life of one application run, and the choice of the session that a call belongs to."""

import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from types import TracebackType
from typing import Self, TypeVar

from parrotserve.criteria import Criteria
from parrotserve.errors import Cancelled, DeclarationError
from parrotserve.ids import CallId, SessionId, VariableId, new_id
from parrotserve.names import takes_names
from parrotserve.protocol import DEFAULT_LEASE_SECONDS, LONGEST_LEASE_SECONDS, SessionView
from parrotserve.sdk.cell import FOREVER, Cell
from parrotserve.sdk.connection import Connection, current_connection
from parrotserve.sdk.courier import Courier
from parrotserve.sdk.loop import background
from parrotserve.sdk.natives import BoundCall, BoundCalls
from parrotserve.sdk.options import is_number
from parrotserve.sdk.outbox import Declaration, Named, Want
from parrotserve.sdk.transport import Transport

T = TypeVar("T")


@takes_names
class Session:
    """One run of an application: owns the variables and calls that are declared in its block.

        with P.Session():
            code = WritePythonCode("a snake game")
            print(code.get())

    At the end of the block, what still runs is cancelled: variables that were read stay readable, others raise
    `Cancelled`. A block may be entered again while it is open, also by other threads; the session ends when the last
    one is left. Leaving does not wait for the service; `end()` and `aend()` do. Calls outside of all blocks belong to
    the session of their inputs, or else to a default session of their context.

    `lease_seconds`: the service cancels a session that it has not heard from for so long. As long as the program runs
    and holds the session, it stays in contact by itself. `connection`: the one to use; None for the one in use.
    """

    def __init__(self, *, lease_seconds: float = DEFAULT_LEASE_SECONDS, connection: Connection | None = None) -> None:
        if not (is_number(lease_seconds) and 0 < lease_seconds <= LONGEST_LEASE_SECONDS):
            raise DeclarationError(
                f"lease_seconds={lease_seconds!r}: a lease is a number of seconds above 0, to "
                f"{LONGEST_LEASE_SECONDS:g}."
            )
        if not isinstance(connection, Connection | None):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may not check
            raise DeclarationError(f"connection={connection!r:.80}: a connection is what P.connect(url) gives.")
        self.id = SessionId(new_id("s"))
        self._native_calls = BoundCalls()
        self._courier = Courier(self.id, connection or current_connection(), lease_seconds, self._native_calls)
        self._ids: weakref.WeakKeyDictionary[Cell, VariableId] = weakref.WeakKeyDictionary()
        self._depth = 0
        self.declaring = threading.RLock()
        """A lock, held from naming a call's variables to declaring the call, and while open blocks are counted."""
        # At exit the connection ends its sessions itself.
        weakref.finalize(self, self._courier.abandon).atexit = False

    def __repr__(self) -> str:
        return f"<Session {self.id}{' (ended)' if self.ended else ''}>"

    @property
    def ended(self) -> bool:
        """Whether its last block was left, or its connection closed."""
        return self._courier.ended

    @property
    def connection(self) -> Connection:
        """The connection to its service."""
        return self._courier.connection

    # --- For functions and variables, on any thread ---------------------------------------------------------

    def id_of(self, cell: Cell) -> VariableId | None:
        """The variable's id here; None where this session has not seen it."""
        return self._ids.get(cell)

    def name(self, cell: Cell) -> Named:
        """Give a variable its id in this session."""
        identity = VariableId(new_id("v"))
        self._ids[cell] = identity
        self._courier.cells[identity] = cell
        return Named(identity, cell)

    def check_open(self) -> None:
        """Raise `Cancelled` if the session has ended."""
        if self.ended:
            raise Cancelled(f"Session {self.id} has ended; call functions inside its `with` block.", session=self.id)

    def declare(self, declaration: Declaration, *, native: BoundCall | None = None) -> None:
        """Take a call. It is sent with the next `flush`, or 5 ms after the last call."""
        if native is not None:
            self._courier.natives.add(CallId(declaration.spec.id), native)
        self._courier.outbox.declare(declaration)
        self._courier.flush_soon()

    def want(self, cell: Cell, *, criteria: Criteria, timeout: float | None, stream: bool = False) -> None:
        """Ask the service for a produced variable. Sent with the next `flush`."""
        timeout = None if timeout is None else max(timeout, 0.0)
        until = FOREVER if timeout is None else time.monotonic() + timeout
        if not self.ended and cell.ask(criteria, stream=stream, until=until):
            named = Named(self._ids[cell], cell)
            self._courier.outbox.want(
                Want(variable=named, criteria=criteria, timeout=timeout, stream=stream, until=until)
            )

    def flush(self) -> None:
        """Send everything that is pending, without waiting for an answer."""
        if not self.ended:
            self._courier.flush()

    def sync(self) -> None:
        """Send everything that is pending, and wait until the service has accepted or refused it."""
        if not self.ended:
            self._courier.sync()

    def call(self, act: Callable[[Transport, SessionId], Awaitable[T]]) -> T:
        """Perform one action on the service, after everything that was declared before, and return its result."""
        self.check_open()
        return self._courier.call(lambda transport: act(transport, self.id))

    async def acall(self, act: Callable[[Transport, SessionId], Awaitable[T]]) -> T:
        """`call`, for coroutines on any asyncio loop."""
        self.check_open()
        return await self._courier.acall(lambda transport: act(transport, self.id))

    def awaits_value(self, cell: Cell) -> bool:
        """Whether the service knows a variable as EMPTY and has to be told its value."""
        return not self.ended and self._courier.outbox.sent_empty(self._ids[cell])

    def forget_failures(self) -> None:
        """Forget all known failures after a retry. When somebody asks, the service says which of them still hold."""
        for cell in list(self._courier.cells.values()):
            cell.reset()

    def view(self) -> SessionView:
        """The session's graph with states and timings, as the service sees it. Raises `Cancelled` after the end."""
        if self.ended:
            raise Cancelled(
                f"Session {self.id} has ended, and its graph with it; call this inside its `with` block.",
                session=self.id,
            )

        async def look(transport: Transport, session: SessionId) -> SessionView:
            if self._courier.known:
                return await transport.session_view(session)
            return SessionView(id=session, lease_seconds=self._courier.lease, variables=(), requests=(), calls=())

        return self.call(look)

    # --- Beginning and end ----------------------------------------------------------------------------------

    def end(self) -> None:
        """End the session now, and wait until the service has freed it."""
        self._courier.close()
        background().call(self._courier.end())

    async def aend(self) -> None:
        """`end`, for coroutines on any asyncio loop."""
        self._courier.close()
        await background().acall(self._courier.end())

    def __enter__(self) -> Self:
        self.check_open()
        with self.declaring:
            self._depth += 1
        _blocks.set((*_blocks.get(), self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        blocks = _blocks.get()
        if self in blocks:  # false if a generator that entered the block is ended in another context
            innermost = len(blocks) - 1 - blocks[::-1].index(self)
            _blocks.set(blocks[:innermost] + blocks[innermost + 1 :])
        with self.declaring:
            self._depth -= 1
            last = self._depth == 0 and not self.ended
        if last:
            self._courier.close()
            background().spawn(self._courier.end(flush=error is None))

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


_blocks: ContextVar[tuple[Session, ...]] = ContextVar("parrot_blocks", default=())
_default: ContextVar[Session | None] = ContextVar("parrot_default_session", default=None)


def current_session(given: Session | None = None) -> Session:
    """The `given` session, else that of the innermost open block, else this context's default session. Raises
    `TypeError` if what is given is not a session."""
    if isinstance(given, Session):
        return given
    if given is not None:
        raise TypeError(f"Pass a Session, or nothing for the current one; got {given!r:.80}.")
    blocks = _blocks.get()
    return blocks[-1] if blocks else _default_session()


def session_for(produced_in: Iterable[Session]) -> Session:
    """The session that a call belongs to whose inputs were produced in these sessions.

    That of the innermost open block; outside of blocks the first of its inputs' sessions that has not ended, so that a
    thread may continue what another one began; else the context's default session. Raises `Cancelled` if it has ended.
    """
    blocks = _blocks.get()
    if blocks:
        session = blocks[-1]
    else:
        session = next((each for each in produced_in if not each.ended), None) or _default_session()
    session.check_open()
    return session


def _default_session() -> Session:
    session = _default.get()
    if session is None or session.ended or session.connection is not current_connection():
        session = Session()
        _default.set(session)
    return session
