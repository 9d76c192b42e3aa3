"""Waiting for many variables together."""

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from parrotserve.criteria import Criteria
from parrotserve.sdk.loop import background, each_when_done
from parrotserve.sdk.options import is_number
from parrotserve.sdk.variable import SemanticVariable
from parrotserve.sdk.waiting import ask, criteria_of, patience, timed_out

Gathered = SemanticVariable | Iterable[SemanticVariable]


def gather(
    *variables: Gathered,
    perf: Criteria | str = Criteria.LATENCY,
    timeout: float | None = None,
    progress: bool = True,
    return_exceptions: bool = False,
) -> list[Any]:
    """Wait for variables, given one by one or as iterables, and return their values in the same order.

    All are asked for in one exchange, so that the service sees what belongs together. `perf` and `timeout` are as for
    `SemanticVariable.get`. Raises the first failure as soon as there is one, as `get` would; the other requests go on.
    With `return_exceptions` no variable's failure is raised: the error that its `get` would raise takes the place of
    its value, `GetTimeout` if it is late. With `progress`, a bar is drawn on standard error if that is a terminal.
    """
    flat, timeout = _flat(variables), patience(timeout)
    background().refuse_here("gather() would block Parrot's own event loop; use agather().")
    with _asked(flat, perf, timeout) as (futures, flush), _bar(len(flat), shown=progress) as advance:
        flush()
        try:
            for future in each_when_done(futures, timeout):
                error = future.exception()
                if error is not None and not return_exceptions:
                    raise error
                advance()
        except TimeoutError:
            if not return_exceptions:
                raise _first_late(flat, futures, timeout) from None
        return _outcomes(flat, futures, timeout, return_exceptions)


async def agather(
    *variables: Gathered,
    perf: Criteria | str = Criteria.LATENCY,
    timeout: float | None = None,  # noqa: ASYNC109 - as everywhere in this API
    return_exceptions: bool = False,
) -> list[Any]:
    """`gather`, for coroutines on any asyncio loop; draws no bar."""
    flat, timeout = _flat(variables), patience(timeout)
    if not flat:
        return []
    with _asked(flat, perf, timeout) as (futures, flush):
        asyncio.get_running_loop().call_soon(flush)
        waits = [asyncio.wrap_future(future) for future in futures]
        until = asyncio.ALL_COMPLETED if return_exceptions else asyncio.FIRST_EXCEPTION
        await asyncio.wait(waits, timeout=timeout, return_when=until)
        errors = [error for each in waits if each.done() and (error := each.exception())]
        if errors and not return_exceptions:
            raise errors[0]
        if not (return_exceptions or all(each.done() for each in waits)):
            raise _first_late(flat, futures, timeout)
        return _outcomes(flat, futures, timeout, return_exceptions)


def as_completed(
    *variables: Gathered, perf: Criteria | str = Criteria.LATENCY, timeout: float | None = None
) -> Iterator[SemanticVariable]:
    """Iterate over variables, given as to `gather`, in the order in which they get a value or fail.

    `get` of a variable that was yielded returns at once, or raises the error that says why it failed. All are asked for
    in one exchange. Raises `GetTimeout` if some are not there within `timeout` seconds. Leaving early cancels nothing.
    """
    background().refuse_here("as_completed() would block Parrot's own event loop; use asyncio.as_completed().")
    return _settling(_flat(variables, "as_completed"), criteria_of(perf), patience(timeout))


def _settling(
    variables: list[SemanticVariable], criteria: Criteria, timeout: float | None
) -> Iterator[SemanticVariable]:
    with _asked(variables, criteria, timeout) as (futures, flush):
        flush()
        asked = dict(zip(futures, variables, strict=True))
        try:
            for future in each_when_done(futures, timeout):
                yield asked[future]
        except TimeoutError:
            raise _first_late(variables, futures, timeout) from None


def _flat(variables: Iterable[Gathered], who: str = "gather") -> list[SemanticVariable]:
    flat: list[SemanticVariable] = []
    for item in variables:
        if isinstance(item, SemanticVariable):
            flat.append(item)
        elif isinstance(item, Iterable) and not isinstance(item, Mapping | str):  # pyright: ignore[reportUnnecessaryIsInstance]
            flat.extend(item)
        else:
            raise _no_variable(item, who)
    for item in flat:
        if not isinstance(item, SemanticVariable):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may not check
            raise _no_variable(item, who)
    return flat


def _no_variable(item: object, who: str) -> TypeError:
    hint = ""
    if isinstance(item, Mapping):
        hint = "; give its values()"
    elif isinstance(item, Criteria):
        hint = f"; write perf={item.name}"
    elif is_number(item):
        hint = f"; write timeout={item} for a timeout"
    elif isinstance(item, Awaitable):
        hint = "; give the variable itself"
    elif callable(item):
        hint = "; call it"
    kind = type(item).__name__
    return TypeError(f"{who}() takes semantic variables and iterables of them, not {kind}{hint}.")


@contextlib.contextmanager
def _asked(
    variables: list[SemanticVariable], perf: Criteria | str, timeout: float | None
) -> Generator[tuple[list[Future[str]], Callable[[], None]]]:
    futures, flush = ask(variables, perf, timeout)
    try:
        yield futures, flush
    finally:
        for variable, future in zip(variables, futures, strict=True):
            variable.forget(future)


def _outcomes(
    variables: list[SemanticVariable], futures: list[Future[str]], timeout: float | None, return_exceptions: bool
) -> list[Any]:
    """What `get` returns for each variable or, with `return_exceptions`, the error that it raises."""
    outcomes: list[Any] = []
    for variable, future in zip(variables, futures, strict=True):
        try:
            if not future.done():
                raise timed_out(variable, timeout)
            outcomes.append(variable.read(future.result()))
        except Exception as error:
            if not return_exceptions:
                raise
            outcomes.append(error)
    return outcomes


def _first_late(variables: list[SemanticVariable], futures: list[Future[str]], timeout: float | None) -> Exception:
    late = next((each for each, future in zip(variables, futures, strict=True) if not future.done()), variables[-1])
    return timed_out(late, timeout)


@contextlib.contextmanager
def _bar(total: int, *, shown: bool) -> Generator[Callable[[], None]]:
    """Draw a progress bar within the block. Yields a function that advances it by one."""
    if not (shown and total > 1 and sys.stderr.isatty()):
        yield lambda: None
        return
    # Imported here: most programs draw no bar.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("gather"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("gather", total=total)
        yield lambda: progress.advance(task)
