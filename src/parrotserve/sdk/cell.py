"""What the client knows of one variable: a thread-safe cell that the event loop fills and any thread reads."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from enum import StrEnum
from typing import Any, TypeVar, cast

from parrotserve.criteria import Criteria
from parrotserve.errors import Cancelled, ParrotError, from_wire
from parrotserve.sampling import FinishReason, TokenLogprob
from parrotserve.sdk.lost import contradicted

E = TypeVar("E", bound=BaseException)

FOREVER = float("inf")


class State(StrEnum):
    """The state of a variable.

    EMPTY: it has no value, and no call produces it. PRODUCING: a call that is to produce it has not finished. READY: it
    has a value. FAILED, CANCELLED: reading it raises the error that says why. As texts, `"empty"`, `"producing"`, ...
    """

    EMPTY = "empty"
    PRODUCING = "producing"
    READY = "ready"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Cell:
    """A variable's text as it grows, then its value or error; and the futures of those who wait for it."""

    __slots__ = ("__weakref__", "_asked", "_cause", "_error", "_lock", "_waiters", "_watchers", "logprobs", "name",
                 "produced", "raised", "reason", "refused", "text", "value")  # fmt: skip

    def __init__(self, *, name: str | None = None, value: str | None = None, produced: bool = False) -> None:
        self.name = name
        self.produced = produced
        self.text = value or ""
        self.value = value
        self.reason: FinishReason | None = None
        self.logprobs: tuple[TokenLogprob, ...] = ()
        self.refused = False
        """Whether the service will never know it, because the call that produces it was refused."""
        self._error: ParrotError | None = None
        self._cause: BaseException | None = None
        self.raised: BaseException | None = None
        """The exception of the native function of this process that produces it, when that last ran."""
        self._lock = threading.Lock()
        self._waiters: list[Future[str]] = []
        self._watchers: list[tuple[int, Future[None]]] = []
        self._asked: dict[tuple[Criteria, bool], float] = {}

    @property
    def state(self) -> State:
        """The state, as far as the client has been told."""
        if self.value is not None:
            return State.READY
        if self._error is not None:
            return State.CANCELLED if isinstance(self._error, Cancelled) else State.FAILED
        return State.PRODUCING if self.produced else State.EMPTY

    @property
    def settled(self) -> bool:
        """Whether there is a value or an error."""
        return self.value is not None or self._error is not None

    # --- Readers, on any thread -----------------------------------------------------------------------------

    def wait(self) -> Future[str]:
        """A future of the value or its error, for this caller alone, so that nobody can cancel it for others."""
        future: Future[str] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            if not self.settled:
                self._waiters.append(future)
                return future
        self._tell(future)
        return future

    def grown(self, beyond: int) -> Future[None]:
        """A future that is done when the text is longer than `beyond` characters or has ended. It fails only if the
        wait is interrupted, not if the variable fails."""
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            if not self.settled and len(self.text) <= beyond:
                self._watchers.append((beyond, future))
                return future
        future.set_result(None)
        return future

    def awaits(self, future: Future[Any]) -> bool:
        """Whether this future has no answer yet and was not forgotten."""
        with self._lock:
            return any(future is each for each in (*self._waiters, *(watcher for _, watcher in self._watchers)))

    def forget(self, future: Future[Any]) -> None:
        """Drop a future whose waiter has timed out or was interrupted."""
        with self._lock:
            self._waiters = [each for each in self._waiters if each is not future]
            self._watchers = [each for each in self._watchers if each[1] is not future]

    def error(self) -> ParrotError | None:
        """The failure, for one reader; None if it has not failed."""
        if self._error is None:
            return None
        error = _copy(self._error)
        error.__cause__ = self._cause
        return error

    # --- The event loop -------------------------------------------------------------------------------------

    def grow(self, offset: int, text: str) -> None:
        """Add text that arrived, from character `offset` on. What is known already is skipped; if it differs, the
        variable fails."""
        with self._lock:
            known = len(self.text) - offset
            if self.settled or known < 0:
                return
            same = text.startswith(self.text[offset : offset + len(text)])
            if same and known >= len(text):
                return
            if same:
                self.text += text[known:]
            ripe = [future for beyond, future in self._watchers if len(self.text) > beyond]
            self._watchers = [(beyond, future) for beyond, future in self._watchers if len(self.text) <= beyond]
        for future in ripe:
            future.set_result(None)
        if not same:
            self.fail(self._contradicted())

    def resolve(self, value: str, reason: FinishReason | None = None, logprobs: tuple[TokenLogprob, ...] = ()) -> bool:
        """Make it READY, or fail it if another text was read before. Returns False if it was settled already."""

        def change() -> None:
            if not value.startswith(self.text):
                self._error = self._contradicted()
                return
            self.value = self.text = value
            self.reason, self.logprobs = reason, logprobs

        return self._settle(change)

    def fail(self, error: ParrotError, cause: BaseException | None = None) -> bool:
        """Make it FAILED or CANCELLED. `cause` is the exception in this process that led to it, if any. Returns False
        if it was settled already."""

        def change() -> None:
            self._error, self._cause = error, cause

        return self._settle(change)

    def interrupt(self, error: BaseException) -> None:
        """Give waiters an error that does not concern the variable itself. Later ones ask the service again."""
        with self._lock:
            waiters, self._waiters = self._waiters, []
            watchers, self._watchers = self._watchers, []
            self._asked.clear()
        for future in (*waiters, *(future for _, future in watchers)):
            future.set_exception(_copy(error))

    def reset(self) -> None:
        """Forget a failure, because its producer runs again; but not that of a call that was refused."""
        with self._lock:
            if self._error is None or self.refused:
                return
            self._error = self._cause = None
            self.text = ""
            self._asked.clear()

    # --- Questions to the service ---------------------------------------------------------------------------

    def ask(self, criteria: Criteria, *, stream: bool, until: float) -> bool:
        """Note that the service is asked for it until that time. Returns False if an open question covers that."""
        with self._lock:
            kinds = ((criteria, True),) if stream else ((criteria, True), (criteria, False))
            if any(self._asked.get(kind, 0.0) >= until for kind in kinds):
                return False
            self._asked[criteria, stream] = until
            return True

    def answered(self, criteria: Criteria, *, stream: bool, until: float) -> None:
        """Note that this question is no longer open."""
        with self._lock:
            if self._asked.get((criteria, stream)) == until:
                del self._asked[criteria, stream]

    def _settle(self, change: Callable[[], None]) -> bool:
        with self._lock:
            if self.settled:
                return False
            change()
            waiters, self._waiters = self._waiters, []
            watchers, self._watchers = self._watchers, []
        for future in waiters:
            self._tell(future)
        for _, watcher in watchers:
            watcher.set_result(None)
        return True

    def _contradicted(self) -> ParrotError:
        return contradicted(self.name or "a variable")

    def _tell(self, future: Future[str]) -> None:
        error = self.error()
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(self.value or "")


def _copy(error: E) -> E:
    """An exception of its own for every reader, so that tracebacks do not pile up on one."""
    if not isinstance(error, ParrotError):
        return error
    copied = from_wire(error.code, error.message, error.details)
    copied.__cause__ = error.__cause__
    return cast(E, copied)
