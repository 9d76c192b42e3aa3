"""Connections to services: the one that a program uses, and how the first one is made."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Self

from parrotserve.errors import ServiceUnavailable
from parrotserve.sdk.debounce import Timer
from parrotserve.sdk.loop import background, interrupted
from parrotserve.sdk.transport import Transport

URL_VARIABLE = "PARROT_URL"
API_KEY_VARIABLE = "PARROT_API_KEY"
HURRIED_SECONDS = 0.5
"""Time for telling a service that sessions end when a program is interrupted: a few round trips across an ocean."""


class LoopTimer:
    """A `Timer` of real time, which acts on the background loop."""

    def now(self) -> float:
        """See `Timer.now`."""
        return time.monotonic()

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """See `Timer.later`."""
        loop = background()
        loop.soon(lambda: loop.loop.call_later(seconds, act))


class Connection:
    """A connection to a service, opened at first use and closed at exit. `connect` makes one.

        with P.connect("http://localhost:8000"):
            ...

    Used like this, or with `async with`, it is closed at the end of the block; the connection that was in use before is
    then used again. `timer` times the sending of calls that nobody waits for. `again` makes a transport like this one,
    for forked children.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        before: "Connection | None" = None,
        timer: Timer | None = None,
        again: Callable[[], Transport] | None = None,
    ) -> None:
        self.transport = transport
        self._again = again
        self.timer = timer or LoopTimer()
        self._closers: set[Callable[[], Awaitable[None]]] = set()
        self._pid = os.getpid()
        self._opening: asyncio.Task[None] | None = None
        self._closed = False
        self.before = before
        """The connection that was in use before, and is again when this one closes."""
        self._inherited: Connection | None = None

    def __repr__(self) -> str:
        return f"<Connection {self.transport!r}{' (closed)' if self._closed else ''}>"

    @property
    def usable(self) -> bool:
        """Whether it is neither closed nor inherited through a fork."""
        return not self._closed and self._pid == os.getpid()

    @property
    def stands_for(self) -> "Connection":
        """In a forked child, the parent process's connection that this one replaces; else this one."""
        return self._inherited or self

    def in_child(self) -> "Connection | None":
        """If this connection was inherited through a fork: one of this process to the same service. None if it was not,
        if it is closed, or if it has no `again`."""
        if self._pid == os.getpid() or self._closed or self._again is None:
            return None
        child = Connection(self._again(), before=self.before, timer=self.timer, again=self._again)
        child._inherited = self.stands_for
        return child

    async def opened(self) -> Transport:
        """Open the transport if necessary, and return it. On the background loop only. If opening fails, the next
        caller tries again."""
        if not self.usable:
            why = "was closed" if self._closed else "belongs to the process that this one was forked from"
            raise ServiceUnavailable(f"The connection {why}; call the function again to use a new one.")
        if self._opening is None:
            background().at_exit(self._shut)
            self._opening = asyncio.create_task(self.transport.open())
        opening = self._opening
        try:
            # Shielded: if one caller is cancelled, the others still wait for the opening.
            await asyncio.shield(opening)
        except BaseException:
            if opening.done() and self._opening is opening:
                self._opening = None
                background().forget(self._shut)
            raise
        return self.transport

    def before_close(self, closer: Callable[[], Awaitable[None]]) -> None:
        """Await `closer()` before the transport closes."""
        self._closers.add(closer)

    def closes_without(self, closer: Callable[[], Awaitable[None]]) -> None:
        """Undo `before_close`."""
        self._closers.discard(closer)

    async def _shut(self, *, hurried: bool = False) -> None:
        """End the sessions on it and close the transport; on the background loop. `hurried` after Ctrl-C."""
        if self._closed or self._opening is None:
            self._closed = True
            return
        background().forget(self._shut)
        opening = self._opening
        if not opening.done():
            # It may be fetching a model. The service knows no session yet, so nothing is sent to end them below.
            self._closed = True
            opening.cancel()
            await asyncio.wait([opening])
        if opening.cancelled() or opening.exception() is None:
            ends = asyncio.gather(*(closer() for closer in tuple(self._closers)), return_exceptions=True)
            with contextlib.suppress(TimeoutError):
                # Sessions that cannot be ended in this time end with their leases.
                await asyncio.wait_for(ends, HURRIED_SECONDS if hurried or interrupted() else None)
        self._closed = True
        await self.transport.close()

    def close(self, *, hurried: bool = False) -> None:
        """End the sessions on it and release the service. A service that is still starting is stopped, not waited for.

        Waits at most 3 seconds for a service that does not answer, with `hurried` half a second.
        """
        _forget(self)
        if self.usable:
            background().call(self._shut(hurried=hurried))

    async def aclose(self, *, hurried: bool = False) -> None:
        """`close`, for coroutines on any asyncio loop."""
        _forget(self)
        if self.usable:
            await background().acall(self._shut(hurried=hurried))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(hurried=isinstance(error, KeyboardInterrupt))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # At Ctrl-C, asyncio cancels the main task.
        await self.aclose(hurried=isinstance(error, KeyboardInterrupt | asyncio.CancelledError))


_lock = threading.Lock()
_current: Connection | None = None
_embedded: Callable[[], Transport] | None = None


def use(
    transport: Transport, *, timer: Timer | None = None, again: Callable[[], Transport] | None = None
) -> Connection:
    """Make this the service that programs talk to from now on; existing sessions stay where they are.

    Forked children use the transport that `again` makes or, if it is None, the configured service.
    """
    global _current
    with _lock:
        _current = Connection(transport, before=_current, timer=timer, again=again)
        return _current


def connect(url: str, *, api_key: str | None = None) -> Connection:
    """Use the service at this URL from now on. Nothing is sent yet.

        P.connect("http://localhost:8000", api_key="...")

    The URL may end in the /v1 of OpenAI's clients. `api_key` defaults to the environment's `PARROT_API_KEY`. The
    returned connection is closed at exit, or earlier by its `close()` or at the end of a `with` block. Processes forked
    from this one connect to the same service, each by itself. Raises `ServiceUnavailable` if this is not an HTTP URL,
    and `DeclarationError` if `api_key` cannot be a key.
    """
    again = partial(_http, url, api_key or os.environ.get(API_KEY_VARIABLE))
    return use(again(), again=again)


def set_embedded_factory(factory: Callable[[], Transport]) -> None:
    """Set the function that makes the embedded service, for programs that configure no other."""
    global _embedded
    _embedded = factory


def current_connection() -> Connection:
    """The connection in use: that of `connect`, else one to `PARROT_URL`, else one to an embedded service."""
    global _current
    with _lock:
        if _current is None or not _current.usable:
            inherited = None if _current is None else _current.in_child()
            _current = inherited or Connection(_configured())
        return _current


def _configured() -> Transport:
    url = os.environ.get(URL_VARIABLE)
    if url:
        return _http(url, os.environ.get(API_KEY_VARIABLE))
    if _embedded is None:
        raise ServiceUnavailable(
            f"No service is configured: `import Parrot` for the embedded one, `connect(url)`, or set {URL_VARIABLE}."
        )
    return _embedded()


def _http(url: str, api_key: str | None) -> Transport:
    # Imported here: programs that run embedded need no HTTP client.
    from parrotserve.sdk.http import HttpTransport

    return HttpTransport(url, api_key)


def _forget(connection: Connection) -> None:
    global _current
    with _lock:
        if _current is not None and _current.stands_for is connection.stands_for:
            _current = connection.before


def _renew_lock_in_child() -> None:
    """Replace the lock, which may have been held by a thread that the child does not have."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock_in_child)
