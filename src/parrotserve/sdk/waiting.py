"""Waiting for variables: criteria, timeouts, and the errors and warnings of waits that take too long."""

import asyncio
import concurrent.futures
import time
import warnings
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from parrotserve.criteria import Criteria
from parrotserve.errors import DeclarationError, GetTimeout, ParrotError
from parrotserve.sdk.connection import LoopTimer
from parrotserve.sdk.debounce import Timer
from parrotserve.sdk.loop import background, wait_for
from parrotserve.sdk.options import countable, is_number
from parrotserve.sdk.users_place import users_place

if TYPE_CHECKING:
    from parrotserve.sdk.variable import SemanticVariable

UNSET_SECONDS = 10.0
"""After waiting so long for a variable that nobody has set, warn that somebody probably forgot to set it."""

_timer: Timer = LoopTimer()


def criteria_of(perf: Criteria | str) -> Criteria:
    """Criteria by name, in upper or lower case. Raises `DeclarationError` for anything else."""
    try:
        return Criteria(perf.lower() if isinstance(perf, str) else perf)  # pyright: ignore[reportUnnecessaryIsInstance]
    except ValueError as error:
        known = ", ".join(each.name for each in Criteria)
        hint = f"; write timeout={perf} for a timeout" if is_number(perf) else ""
        raise DeclarationError(f"perf={perf!r} is not one of {known}{hint}.") from error


def patience(timeout: float | None) -> float | None:
    """Check a `timeout`, and return the seconds to wait; None is for ever. Raises `DeclarationError`."""
    if timeout is None:
        return None
    if not (is_number(timeout) and timeout >= 0):
        raise DeclarationError(f"timeout={timeout!r}: timeout is a number of seconds from 0 up, or None for no end.")
    return countable(timeout)


class Patience:
    """A timeout for several waits together; None is for ever."""

    def __init__(self, timeout: float | None) -> None:
        self._until = None if timeout is None else time.monotonic() + timeout

    def seconds(self) -> float | None:
        """The seconds that are left."""
        return None if self._until is None else max(self._until - time.monotonic(), 0.0)


def ask(
    variables: Iterable["SemanticVariable"], perf: Criteria | str, timeout: float | None
) -> tuple[list[Future[str]], Callable[[], None]]:
    """Ask for all of these at once, with a `timeout` from `patience`. Returns futures of their values, and a function
    that sends the question."""
    criteria = criteria_of(perf)
    asked = tuple(variables)
    futures = [variable.value_future() for variable in asked]
    for variable, future in zip(asked, futures, strict=True):
        variable.want(criteria, timeout)
        warn_of_unset(variable, future)
    sessions = {
        id(each.session): each.session for each, future in zip(asked, futures, strict=True) if not future.done()
    }

    def flush() -> None:
        for session in sessions.values():
            if session is not None:
                session.flush()

    return futures, flush


def result_of(future: Future[str], variable: "SemanticVariable", timeout: float | None) -> Any:
    """Wait for the value in this thread and return it."""
    if not future.done():
        background().refuse_here("get() would block Parrot's own event loop; use aget().")
    try:
        return variable.read(wait_for(future, timeout))
    except (TimeoutError, concurrent.futures.TimeoutError):
        raise timed_out(variable, timeout) from None
    except ParrotError as error:
        # The traceback so far shows none of the user's code.
        raise error.with_traceback(None) from error.__cause__
    finally:
        variable.forget(future)


async def aresult_of(future: Future[str], variable: "SemanticVariable", timeout: float | None) -> Any:  # noqa: ASYNC109
    """Wait for the value in this task and return it."""
    try:
        return variable.read(await asyncio.wait_for(asyncio.wrap_future(future), timeout))
    except TimeoutError:
        raise timed_out(variable, timeout) from None
    except ParrotError as error:
        raise error.with_traceback(None) from error.__cause__
    finally:
        variable.forget(future)


def timed_out(variable: "SemanticVariable", timeout: float | None) -> GetTimeout:
    """The error of a wait that took too long."""
    return GetTimeout(
        f"{variable.shown()} was not ready within {timeout or 0.0:g} seconds; nothing was cancelled, and you can call "
        f"get() again.{_missing(variable)}",
        variable=variable.name or "",
    )


def warn_of_unset(variable: "SemanticVariable", future: Future[Any]) -> None:
    """Warn, at the user's line, if this future is still waited for after a while and depends on an unset variable.

    It is not an error, because another thread or task may still set the variable.
    """
    if future.done() or not variable.unset():
        return
    file, line = users_place()
    waited = weakref.ref(variable)

    def look() -> None:
        late = waited()
        if late is not None and late.awaits(future) and (missing := _missing(late)):
            told = f"{late.shown()} is still not ready after {UNSET_SECONDS:g} seconds.{missing}"
            warnings.warn_explicit(told, RuntimeWarning, file, line)

    _timer.later(UNSET_SECONDS, look)


def _missing(variable: "SemanticVariable") -> str:
    """For the error or warning of a wait: which variables still have to be set, if any."""
    if variable.session is None:
        return " No call produces it: it has a value once somebody calls its set()."
    names = sorted(repr(cell.name) if cell.name else "a variable without a name" for cell in variable.unset())
    if not names:
        return ""
    return f" It waits for {', '.join(dict.fromkeys(names))}, which no call produces: call set() on it."
