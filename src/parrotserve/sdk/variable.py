"""Semantic variables: text values with at most one producer and any number of consumers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

from parrotserve.criteria import Criteria
from parrotserve.errors import AlreadyProduced, DeclarationError, ForeignVariable
from parrotserve.ids import SessionId
from parrotserve.sampling import FinishReason, TokenLogprob
from parrotserve.sdk.cell import Cell, State
from parrotserve.sdk.loop import background, wait_for
from parrotserve.sdk.outbox import Named
from parrotserve.sdk.plain import text_from
from parrotserve.sdk.representations import beginning, remember
from parrotserve.sdk.session import Session
from parrotserve.sdk.transport import Transport
from parrotserve.sdk.typed import TypedSchema
from parrotserve.sdk.waiting import (
    Patience,
    aresult_of,
    ask,
    criteria_of,
    patience,
    result_of,
    timed_out,
    warn_of_unset,
)
from parrotserve.texts import check_text

Act = Callable[[Transport, SessionId], Awaitable[None]]
"""An action on the service of a session."""


class SemanticVariable:
    """A text value that exists already, or will once it is set or produced.

    `SemanticVariable("a snake game")` is READY; `SemanticVariable(name="task")` is EMPTY until `set`; either may be
    used in any session. A variable that a function call returns is produced by it, and belongs to the call's session.

    `str()` and f-strings give the text once this program has it, and raise `TypeError` before, so that a prompt never
    contains a variable's representation by accident. A variable is not a text: comparing it with one, or testing its
    truth value, raises `TypeError`, because Python would answer False and True whatever the model wrote.
    """

    __slots__ = ("__weakref__", "_cell", "_rests_on", "_session", "_type", "_untold", "_used_in")

    def __init__(self, value: object = None, name: str | None = None) -> None:
        text = None if value is None else text_from(value, "The value of a variable")
        self._cell = Cell(name=None if name is None else str(name), value=text)
        self._session: Session | None = None
        self._type: TypedSchema | None = None
        self._rests_on: frozenset[Cell] = frozenset()
        """Variables upstream that nobody had set when it was declared, and that must be set before it has a value."""
        self._used_in: WeakSet[Session] = WeakSet()
        self._untold: WeakSet[Session] = WeakSet()
        """Sessions that may know it as EMPTY although it was set: telling their service is not done yet, or failed."""

    @classmethod
    def produced(
        cls, session: Session, name: str, schema: dict[str, Any] | None = None, unset: frozenset[Cell] = frozenset()
    ) -> tuple[Self, Named]:
        """A new variable of a session for the output of a call. `unset` are the variables that its inputs wait for."""
        variable = cls(name=name)
        variable._rests_on = unset
        variable._type = schema if isinstance(schema, TypedSchema) else None
        variable._cell.produced = True
        variable._session = session
        return variable, session.name(variable._cell)

    # --- Reading --------------------------------------------------------------------------------------------

    def get(self, perf: Criteria | str = Criteria.LATENCY, timeout: float | None = None) -> Any:
        """Wait for the value and return it: a text, or an object of the type that the output's `schema` is.

        `perf` says what matters: LATENCY, THROUGHPUT, TTFT or TPOT. Raises `GetTimeout` after `timeout` seconds (None
        or infinity: never), which cancels nothing. If there will be no value, raises the error that says why:
        `RequestFailed`, `Cancelled`, `RequestRefused` or another of `parrotserve.errors`; `InvalidOutput` if the text
        is not an object of that type. After an interruption (Ctrl-C), the variable can be waited for again.
        """
        timeout = patience(timeout)
        (future,), flush = ask((self,), perf, timeout)
        flush()
        return result_of(future, self, timeout)

    async def aget(self, perf: Criteria | str = Criteria.LATENCY, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        """`get`, for coroutines on any asyncio loop."""
        timeout = patience(timeout)
        (future,), flush = ask((self,), perf, timeout)
        # Flush after all tasks that are ready now have run, so that tasks which start to wait together ask together.
        asyncio.get_running_loop().call_soon(flush)
        return await aresult_of(future, self, timeout)

    def __await__(self) -> Generator[Any, None, Any]:
        """`await variable` is `await variable.aget()`, so that `asyncio.gather` and its like take variables."""
        return self.aget().__await__()

    def stream(self, perf: Criteria | str = Criteria.TTFT, timeout: float | None = None) -> Iterator[str]:
        """Iterate over the text in pieces as it grows, from its beginning, whenever `stream` is called.

        Raises what `get` raises (but not `InvalidOutput`), after the pieces that came; `GetTimeout` if the text has not
        ended within `timeout` seconds after the first piece was asked for. Leaving early cancels nothing.
        """
        return self._pieces(criteria_of(perf), patience(timeout))

    def astream(self, perf: Criteria | str = Criteria.TTFT, timeout: float | None = None) -> AsyncIterator[str]:
        """`stream`, for coroutines on any asyncio loop."""
        return self._apieces(criteria_of(perf), patience(timeout))

    def _pieces(self, criteria: Criteria, seconds: float | None) -> Iterator[str]:
        position, left = 0, Patience(seconds)
        while (growth := self._growth(position, criteria)) is not None:
            background().refuse_here("stream() would block Parrot's own event loop; use astream().")
            try:
                wait_for(growth, left.seconds())
            except TimeoutError:
                raise timed_out(self, seconds) from None
            finally:
                self._cell.forget(growth)
            piece = self._cell.text[position:]
            position += len(piece)
            if piece:
                yield piece
        self._raise_failure()

    async def _apieces(self, criteria: Criteria, seconds: float | None) -> AsyncIterator[str]:
        position, left = 0, Patience(seconds)
        while (growth := self._growth(position, criteria)) is not None:
            try:
                await asyncio.wait_for(asyncio.wrap_future(growth), left.seconds())
            except TimeoutError:
                raise timed_out(self, seconds) from None
            finally:
                self._cell.forget(growth)
            piece = self._cell.text[position:]
            position += len(piece)
            if piece:
                yield piece
        self._raise_failure()

    @property
    def ready(self) -> bool:
        """Whether `get` would return at once. Asks the service, as `state` does."""
        return self.state is State.READY

    @property
    def state(self) -> State:
        """EMPTY, PRODUCING, READY, FAILED or CANCELLED. Asks the service, unless the program knows the final state or
        no call produces the variable."""
        if self._session is None or self._cell.settled:
            return self._cell.state
        identity = self._session.id_of(self._cell)
        views = {view.id: view for view in self._session.view().variables}
        if self._cell.settled or identity is None or identity not in views:
            return self._cell.state
        return State(views[identity].state.lower())

    @property
    def failed(self) -> bool:
        """Whether this program knows already that it FAILED or was CANCELLED. Does not ask the service."""
        return self._cell.state in (State.FAILED, State.CANCELLED)

    @property
    def name(self) -> str | None:
        """Its name where it was declared, for people to read; None if it has none."""
        return self._cell.name

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the output ended. None until the program has the value, and for values that were set."""
        return self._cell.reason

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        """Log-probabilities of the output's tokens, if its sampling asks for them; empty until the program has the
        value."""
        return self._cell.logprobs

    # --- Acting ---------------------------------------------------------------------------------------------

    def set(self, text: object) -> None:
        """Give an EMPTY variable its value.

        Raises `AlreadyProduced` if it has a producer or a value; `TypeError` for None (probably a forgotten `return`)
        and for other objects that are not meant as texts, such as functions and bytes (see `plain.text_from`);
        `DeclarationError` for text that is not valid Unicode; or the error that kept a service from being told, after
        which the same value can be set again.
        """
        value = self._settled(text)
        for session in list(self._untold):
            if session.awaits_value(self._cell):
                session.call(self._told_in(session, value))
            self._untold.discard(session)

    async def aset(self, text: object) -> None:
        """`set`, for coroutines on any asyncio loop."""
        value = self._settled(text)
        for session in list(self._untold):
            if session.awaits_value(self._cell):
                await session.acall(self._told_in(session, value))
            self._untold.discard(session)

    def _settled(self, text: object) -> str:
        """Set the value for this program, whose waits end at once, and return it. Sessions in `_untold` are yet to be
        told."""
        if text is None:
            raise TypeError("None is not a text; set a text ('' for an empty one).")
        if self._cell.produced:
            raise AlreadyProduced(
                f"{self.shown()} is produced by a call; only a variable without a producer can be set."
            )
        value = check_text(text_from(text, "What it is set to"), "What it is set to")
        if self._cell.resolve(value):
            self._untold = WeakSet(self._used_in)
        elif not self._untold or value != self._cell.value:
            raise AlreadyProduced(f"{self.shown()} has a value; make a new SemanticVariable for another one.")
        return value

    def _told_in(self, session: Session, value: str) -> Act:
        (named, _) = self.named_in(session)
        return lambda transport, owner: transport.set_value(owner, named.id, value)

    def retry(self) -> None:
        """Run the failed or cancelled producer again, and what failed upstream of it."""
        session, act = self._retried()
        session.call(act)
        session.forget_failures()

    async def aretry(self) -> None:
        """`retry`, for coroutines on any asyncio loop."""
        session, act = self._retried()
        await session.acall(act)
        session.forget_failures()

    def _retried(self) -> tuple[Session, Act]:
        session, named = self._produced_in("retry")
        return session, lambda transport, owner: transport.retry(owner, named.id)

    def cancel(self) -> None:
        """Cancel the producer, and producers upstream that nothing else needs."""
        session, act = self._cancelled()
        session.call(act)

    async def acancel(self) -> None:
        """`cancel`, for coroutines on any asyncio loop."""
        session, act = self._cancelled()
        await session.acall(act)

    def _cancelled(self) -> tuple[Session, Act]:
        session, named = self._produced_in("cancel")
        return session, lambda transport, owner: transport.cancel(owner, named.id)

    # --- For functions --------------------------------------------------------------------------------------

    @property
    def session(self) -> Session | None:
        """The session whose call produces it; None if no call does."""
        return self._session

    @property
    def known_text(self) -> str | None:
        """The text if this program has it, else None. Does not ask the service."""
        return self._cell.value

    def check_usable_in(self, session: Session) -> None:
        """Raise `ForeignVariable` if another session produces it."""
        if self._session is not None and self._session is not session:
            raise ForeignVariable(
                f"{self.shown()} belongs to session {self._session.id}{' (ended)' if self._session.ended else ''} and "
                f"cannot be used in {session.id}: call both functions in one `with P.Session()` block (in threads, "
                "enter the same session), or pass the text that `get()` returns.",
                variable=self.name or "",
                session=self._session.id,
            )

    def named_in(self, session: Session) -> tuple[Named, bool]:
        """The variable with its id in this session, and whether the session had not seen it before."""
        identity = session.id_of(self._cell)
        if identity is not None:
            return Named(identity, self._cell), False
        self._used_in.add(session)
        return session.name(self._cell), True

    def want(self, criteria: Criteria, timeout: float | None, *, stream: bool = False) -> None:
        """Ask the service for the value, if a call produces it and it is not settled. Sent with the next flush."""
        if self._session is not None and not self._cell.settled:
            self._session.want(self._cell, criteria=criteria, timeout=timeout, stream=stream)

    def unset(self) -> frozenset[Cell]:
        """The variables without a producer that it depends on (itself included) and that nobody has set yet."""
        rests_on = self._rests_on if self._cell.produced else (self._cell,)
        return frozenset(cell for cell in rests_on if cell.value is None)

    def value_future(self) -> Future[str]:
        """A future of the value or its error."""
        return self._cell.wait()

    def read(self, text: str) -> Any:
        """Convert the variable's text to what `get` returns. Raises `InvalidOutput`."""
        if self._type is None:
            return text
        return self._type.parse(text, output=self.name or "", reason=self._cell.reason)

    def awaits(self, future: Future[Any]) -> bool:
        """Whether somebody still waits for this future, which has no answer yet."""
        return self._cell.awaits(future)

    def forget(self, future: Future[str]) -> None:
        """Drop a `value_future` that nobody waits for any more."""
        self._cell.forget(future)

    def _growth(self, position: int, criteria: Criteria) -> Future[None] | None:
        """A future that is done when the text goes beyond this position or has ended; None if it ended there."""
        if self._cell.settled and len(self._cell.text) <= position:
            return None
        growth = self._cell.grown(position)
        self.want(criteria, None, stream=True)
        warn_of_unset(self, growth)
        if self._session is not None and not growth.done():
            self._session.flush()
        return growth

    def _raise_failure(self) -> None:
        error = self._cell.error()
        if error is not None:
            raise error

    def _produced_in(self, what: str) -> tuple[Session, Named]:
        if self._session is None:
            raise DeclarationError(f"{self.shown()} has no producer to {what}.")
        return self._session, self.named_in(self._session)[0]

    # --- As text --------------------------------------------------------------------------------------------

    def shown(self) -> str:
        """Its representation for error messages, which may occur in prompts (see `placeholders`)."""
        return "".join(self._shown())

    def _shown(self) -> tuple[str, str]:
        value = self._cell.value
        rest = "" if value is None else f": {value if len(value) <= 40 else value[:39] + '…'!r}"
        return beginning(self.name, self._cell.state.name), f"{rest}>"

    def __repr__(self) -> str:
        start, rest = self._shown()
        remember(start)
        return start + rest

    def __str__(self) -> str:
        if self._cell.value is None:
            raise TypeError(
                f"{self.shown()} has no text here yet: pass the variable itself to a function, or get() its text first."
            )
        return self._cell.value

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __bool__(self) -> bool:
        raise TypeError(f"{self.shown()} has no truth value; test what get() returns.")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            raise TypeError(
                f"{self.shown()} is not a text and equals none; compare what get() returns with {other!r:.40}."
            )
        return self is other

    __hash__ = object.__hash__

    def __copy__(self) -> Self:
        """The variable itself: a copy would have no producer."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{self.shown()} belongs to its process and cannot be pickled: pass on the text that get() returns."
        )

    if not TYPE_CHECKING:  # type checkers know without these that a variable is not a text

        def _refuse(self, *_: object) -> Any:
            raise TypeError(
                f"{self.shown()} is not a text: use what get() returns, or put the rest into the prompt of a function "
                "that takes it."
            )

        __add__ = __radd__ = __contains__ = _refuse

        def __getattr__(self, name: str) -> Any:
            told = f"{type(self).__name__!r} object has no attribute {name!r}"
            if hasattr(str, name):
                told = f"{self.shown()} is not a text and has no {name!r}: use it on what get() returns."
            raise AttributeError(told, name=name, obj=self)
