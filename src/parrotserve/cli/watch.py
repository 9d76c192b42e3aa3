"""Watching everything that a program produces, by a transport around the transport that the program uses.

The submit that declares a program's requests and native calls also asks for every variable that they will produce, as a
stream and as throughput work. That is how variables are scheduled that nobody asks for, so watching changes neither
what the program computes nor its objectives, and costs no further exchange.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from parrotserve.criteria import Criteria
from parrotserve.errors import GetTimeout, ParrotError, ServiceUnavailable
from parrotserve.explain import explain_view
from parrotserve.ids import CallId, SessionId, VariableId
from parrotserve.protocol import (
    Accepted,
    CallOffer,
    CallResult,
    CallState,
    Delta,
    Failure,
    OutputSegment,
    SessionView,
    Submit,
    Value,
    VariableEvent,
    WaitSpec,
)
from parrotserve.sampling import FinishReason
from parrotserve.sdk.cell import State
from parrotserve.sdk.transport import Transport

_FALLEN = (State.FAILED, State.CANCELLED)
_ENDED = ("done", "failed", "cancelled")


@dataclass(slots=True)
class Watched:
    """A variable that the program produces, and its text so far."""

    title: str
    """`function.output`, with a number if the program calls the function again."""
    session: SessionId
    text: str = ""
    value: str | None = None
    reason: FinishReason | None = None
    error: ParrotError | None = None

    @property
    def settled(self) -> bool:
        """Whether it has a value or an error."""
        return self.value is not None or self.error is not None


LOOK_SECONDS = 0.5
"""Time before the first check for variables that can no longer be produced; it doubles with each further check."""
LONGEST_LOOK_SECONDS = 30.0


class Screen(Protocol):
    """Where watched variables are shown. Called on the front end's event loop."""

    def starting(self) -> None:
        """The service is starting, which may take a while."""
        ...

    def declared(self, watched: Watched) -> None:
        """A new variable will be produced, or one that failed will be produced again."""
        ...

    def grew(self, watched: Watched, text: str) -> None:
        """`text` was appended to its text."""
        ...

    def settled(self, watched: Watched) -> None:
        """It has a value or an error now."""
        ...


@dataclass(slots=True)
class Figures:
    """What a program used."""

    requests: int = 0
    native_calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    def add(self, view: SessionView) -> None:
        """Add what a session used."""
        self.requests += len(view.requests)
        self.native_calls += len(view.calls)
        for request in view.requests:
            self.prompt_tokens += request.usage.prompt_tokens
            self.cached_tokens += request.usage.cached_tokens
            self.output_tokens += request.usage.output_tokens


class WatchedTransport:
    """Passes everything on to another transport and shows what the program produces. See `Transport`."""

    def __init__(self, inner: Transport, screen: Screen, *, explain: bool = False) -> None:
        """`explain`: keep the explanations of sessions that end."""
        self.inner = inner
        self.screen = screen
        self.variables: dict[VariableId, Watched] = {}
        self._sessions: set[SessionId] = set()
        self._ended = Figures()
        self.explain = explain
        self._kept: list[str] = []
        self._finished = False
        self._titles: Counter[str] = Counter()
        self._pumps: set[asyncio.Task[None]] = set()

    @property
    def lost(self) -> str | None:
        """The error message of the first output that failed because the service is gone; None if none did."""
        errors = (watched.error for watched in self.variables.values())
        return next((error.message for error in errors if isinstance(error, ServiceUnavailable)), None)

    # --- For the command ------------------------------------------------------------------------------------

    async def drained(self, may_be_set: Callable[[], bool] = lambda: True) -> list[str]:
        """Wait until every watched variable is settled, or the remaining ones can never be.

        That is so if nothing runs any more and `may_be_set` returns False, because nobody is left to set a variable.
        Returns the names of the variables that are not set.
        """
        seconds = LOOK_SECONDS
        while self._pumps:
            await asyncio.wait(self._pumps, timeout=seconds)
            seconds = min(2 * seconds, LONGEST_LOOK_SECONDS)
            if self._pumps and not may_be_set() and (missing := _missing(await self._views())):
                return missing
        return []

    async def figures(self) -> Figures:
        """What all sessions together have used so far."""
        total = Figures(**{name: getattr(self._ended, name) for name in Figures.__slots__})
        for view in await self._views():
            total.add(view)
        return total

    async def explanations(self) -> list[str]:
        """Why requests ran where and when they did, one text per session; ended sessions first, if `explain` is set."""
        return [*self._kept, *map(explain_view, await self._views())]

    def finish(self) -> None:
        """Note that figures and explanations are not needed any more, so that sessions end without an exchange for
        them."""
        self._finished = True

    async def _views(self) -> list[SessionView]:
        views: list[SessionView] = []
        for session in tuple(self._sessions):
            with contextlib.suppress(ParrotError):
                views.append(await self.inner.session_view(session))
        return views

    # --- Transport ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        self.screen.starting()
        await self.inner.open()

    async def close(self) -> None:
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        await self.inner.close()

    async def submit(self, body: Submit) -> AsyncGenerator[VariableEvent]:
        """The answer that the program asked for. Watching what else the batch produces goes on in the background."""
        answers = _Answers(body.wait)
        self._spawn(self._pump(body, answers))
        while (event := await answers.next()) is not None:
            yield event

    def stream(self, session: SessionId, variable: VariableId, offset: int) -> AsyncIterator[VariableEvent]:
        return self.inner.stream(session, variable, offset)

    async def set_value(self, session: SessionId, variable: VariableId, value: str) -> None:
        await self.inner.set_value(session, variable, value)

    async def retry(self, session: SessionId, variable: VariableId) -> None:
        """Retry a variable, and show it and the others that had failed with it and come back."""
        await self.inner.retry(session, variable)
        for name in (variable, *await self._back(session, variable)):
            if watched := self.variables.get(name):
                if watched.error is not None:
                    watched.error = None
                    self.screen.declared(watched)
                self._spawn(self._follow(name, watched))

    async def cancel(self, session: SessionId, variable: VariableId) -> None:
        await self.inner.cancel(session, variable)

    async def end_session(self, session: SessionId) -> None:
        """End a session after adding up what it used; what it was still producing becomes cancelled."""
        if not self._finished:
            await self._count(session)
        self._sessions.discard(session)
        await self.inner.end_session(session)

    async def _count(self, session: SessionId) -> None:
        with contextlib.suppress(ParrotError):
            view = await self.inner.session_view(session)
            self._ended.add(view)
            if self.explain:
                self._kept.append(explain_view(view))

    async def session_view(self, session: SessionId) -> SessionView:
        return await self.inner.session_view(session)

    def calls(self, session: SessionId) -> AsyncIterator[CallOffer]:
        return self.inner.calls(session)

    async def put_result(
        self, session: SessionId, call: CallId, result: CallResult, *, attempt: int | None = None
    ) -> CallState:
        return await self.inner.put_result(session, call, result, attempt=attempt)

    async def _back(self, session: SessionId, retried: VariableId) -> list[VariableId]:
        """Variables shown as failed, other than the one retried, that are no longer failed or cancelled."""
        fallen = {
            name
            for name, watched in self.variables.items()
            if watched.session == session and watched.error is not None and name != retried
        }
        if not fallen:
            return []
        try:
            view = await self.inner.session_view(session)
        except ParrotError:
            return []
        return [one.id for one in view.variables if one.id in fallen and one.state not in _FALLEN]

    # --- Watching -------------------------------------------------------------------------------------------

    def _accepted(self, body: Submit) -> None:
        """Begin to show what an accepted batch will produce: not before, as a refused one may come again in parts."""
        session = SessionId(body.session)
        self._sessions.add(session)
        names = {spec.id: spec.name for spec in body.variables}
        for variable, function in _produced(body).items():
            if variable not in self.variables:
                watched = Watched(self._title(function, names.get(variable)), session)
                self.variables[variable] = watched
                self.screen.declared(watched)

    def _title(self, function: str, output: str | None) -> str:
        parts = dict.fromkeys(filter(None, (function, output)))  # a native function's output has the function's name
        title = ".".join(parts) or "output"
        self._titles[title] += 1
        times = self._titles[title]
        return title if times == 1 else f"{title} #{times}"

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        pump = asyncio.create_task(work)
        self._pumps.add(pump)
        pump.add_done_callback(self._pumps.discard)

    async def _pump(self, body: Submit, answers: "_Answers") -> None:
        """Read the answer to a submit to its end, even if the program has stopped listening."""
        fresh = [variable for variable in _produced(body) if variable not in self.variables]
        error: BaseException | None = None
        try:
            async for event in self.inner.submit(_widened(body, fresh)):
                if isinstance(event, Accepted):
                    self._accepted(body)
                else:
                    self._show(event)
                answers.put(event)
        except ParrotError as failure:
            error = failure
            for watched in filter(None, map(self.variables.get, fresh)):
                self._fail(watched, failure)
        except BaseException as other:
            error = other
            raise
        finally:
            answers.end(error)

    def _show(self, event: Delta | Value | Failure) -> None:
        watched = self.variables.get(event.variable)
        if watched is None or watched.settled:
            return
        if isinstance(event, Delta):
            self._grow(watched, event.text[max(len(watched.text) - event.offset, 0) :])
        elif isinstance(event, Value):
            if event.value.startswith(watched.text):
                self._grow(watched, event.value[len(watched.text) :])
            watched.value, watched.reason = event.value, event.reason
            self.screen.settled(watched)
        elif isinstance(error := event.error.to_error(), GetTimeout):
            self._spawn(self._follow(event.variable, watched))
        else:
            self._fail(watched, error)

    def _grow(self, watched: Watched, text: str) -> None:
        if text:
            watched.text += text
            self.screen.grew(watched, text)

    async def _follow(self, variable: VariableId, watched: Watched) -> None:
        """Go on showing a variable that is not settled although the wait for it has ended."""
        try:
            async for event in self.inner.stream(watched.session, variable, len(watched.text)):
                if not isinstance(event, Accepted):
                    self._show(event)
        except ParrotError as error:
            self._fail(watched, error)

    def _fail(self, watched: Watched, error: ParrotError) -> None:
        if not watched.settled:
            watched.error = error
            self.screen.settled(watched)


class _Answers:
    """The part of an answer that the program asked for. It ends once that part is complete."""

    def __init__(self, waits: tuple[WaitSpec, ...]) -> None:
        self._streamed = {wait.variable for wait in waits if wait.stream}
        self._missing = Counter(wait.variable for wait in waits)
        self._queue: asyncio.Queue[VariableEvent | BaseException | None] = asyncio.Queue()

    def put(self, event: VariableEvent) -> None:
        if isinstance(event, Delta):
            if event.variable in self._streamed and event.variable in self._missing:
                self._queue.put_nowait(event)
            return
        if isinstance(event, Value | Failure):
            if event.variable not in self._missing:
                return
            self._missing -= Counter((event.variable,))
        self._queue.put_nowait(event)
        if not self._missing:
            self._queue.put_nowait(None)

    def end(self, error: BaseException | None) -> None:
        self._queue.put_nowait(error)

    async def next(self) -> VariableEvent | None:
        """The next event; None after the last. Raises the error that the answer ended with, if any."""
        event = await self._queue.get()
        if isinstance(event, BaseException):
            raise event
        return event


def _missing(views: Iterable[SessionView]) -> list[str]:
    """Names of the unset variables that unfinished producers wait for; empty if a producer runs or is ready to run."""
    names: dict[str, None] = {}
    for view in views:
        unset = {each.id: each.name or each.id for each in view.variables if each.state == State.EMPTY}
        for producer in (*view.requests, *view.calls):
            if producer.state == "waiting":
                names |= dict.fromkeys(unset[each] for each in producer.inputs if each in unset)
            elif producer.state not in _ENDED:
                return []
    return list(names)


def _produced(body: Submit) -> dict[VariableId, str]:
    """The variables that a batch will produce, each with the name of the function that produces it."""
    outputs = {
        segment.variable: request.function
        for request in body.requests
        for segment in request.segments
        if isinstance(segment, OutputSegment)
    }
    outputs |= {call.output: call.function for call in body.calls}
    return {VariableId(variable): function for variable, function in outputs.items()}


def _widened(body: Submit, fresh: list[VariableId]) -> Submit:
    """The batch with additional waits for the variables `fresh`, which are all streamed."""
    watched = set[str](fresh)
    asked = {wait.variable for wait in body.wait}
    waits = [wait.model_copy(update={"stream": True}) if wait.variable in watched else wait for wait in body.wait]
    waits += [
        WaitSpec(variable=variable, criteria=Criteria.THROUGHPUT, stream=True)
        for variable in fresh
        if variable not in asked
    ]
    return body.model_copy(update={"wait": tuple(waits)})
