"""One event loop in a background thread, for all of the front end: I/O runs there, whatever the program does.

So the synchronous API works inside a running event loop and from any thread. The loop is made on first use (again in a
forked child), and closed when the program's last thread has ended: what `at_exit` registered is awaited first, while
connections can still be used.
"""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import math
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

EXIT_SECONDS = 10.0
"""Longest time that closing may take at interpreter exit."""

# Windows does not interrupt a thread that waits for a lock, with a timeout or without, so that Ctrl-C would go unheard.
_SLICE = 0.1 if sys.platform == "win32" else None


class BackgroundLoop:
    """An event loop in a daemon thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(_DaemonExecutor())
        self.closed = False
        self._closing = False
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="parrot-loop", daemon=True)
        self._thread.start()
        # Not a daemon: the interpreter waits for it, and so for the closing, while threads can still be started.
        threading.Thread(target=self._close_when_last, name="parrot-exit", daemon=False).start()

    def refuse_here(self, message: str) -> None:
        """Raise `RuntimeError` on this loop's own thread, which must not wait for itself."""
        if threading.current_thread() is self._thread:
            raise RuntimeError(message)

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop."""
        return _nowhere(asyncio.run_coroutine_threadsafe, coroutine, self.loop)

    def soon(self, act: Callable[[], object]) -> None:
        """Run a function on the loop. May be called on any thread and at any point, also by the garbage collector."""
        _nowhere(self.loop.call_soon_threadsafe, act)

    def start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task, and keep it alive until it is done; on the loop's thread only."""
        task = self.loop.create_task(coroutine, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for its result. If the wait is interrupted, the coroutine is
        cancelled."""
        future = self.spawn(coroutine)
        try:
            self.refuse_here("This would block Parrot's own event loop; use the asynchronous form.")
            return wait_for(future)
        except BaseException:
            future.cancel()
            raise

    async def acall(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """`call`, for coroutines on any asyncio loop."""
        return await asyncio.wrap_future(self.spawn(coroutine))

    def at_exit(self, closer: Callable[[], Awaitable[None]]) -> None:
        """Await `closer()` before the loop closes."""
        self._closers.append(closer)

    def forget(self, closer: Callable[[], Awaitable[None]]) -> None:
        """Undo `at_exit`."""
        with contextlib.suppress(ValueError):
            self._closers.remove(closer)

    def close(self) -> None:
        """Await all closers, end what still runs, and stop."""
        if not self._closing:
            self._closing = True
            with contextlib.suppress(concurrent.futures.TimeoutError):
                self.spawn(self._wind_up()).result(EXIT_SECONDS)
            # Only now: while things wind up, this still is the process's loop.
            self.closed = True
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(EXIT_SECONDS)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    async def _wind_up(self) -> None:
        closers = [closer() for closer in reversed(self._closers)]
        await asyncio.gather(*closers, return_exceptions=True)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.loop.shutdown_asyncgens()

    def _close_when_last(self) -> None:
        threading.main_thread().join()
        # Looked for anew each time: a thread that ends may have started others.
        while (thread := next(filter(self._is_awaited, threading.enumerate()), None)) is not None:
            thread.join()
        self.close()

    def _is_awaited(self, thread: threading.Thread) -> bool:
        # The main thread remains among all threads after it has ended.
        return not thread.daemon and thread.is_alive() and thread is not threading.current_thread()


def _nowhere(function: Callable[..., T], *args: object) -> T:
    """Call a function in an empty context: loops and tasks keep the context that they were made in, and the caller's
    would keep its session alive."""
    return contextvars.Context().run(function, *args)


class _DaemonExecutor(ThreadPoolExecutor):
    """A daemon thread for every call.

    A native function that never returns does not keep the interpreter from exiting, and name look-ups still work
    after `concurrent.futures` has shut its own threads down, which it does before the program's last thread ends.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=run, name="parrot-worker", daemon=True).start()
        return future


def wait_for(future: Future[T], timeout: float | None = None) -> T:
    """Wait for a future in the calling thread and return its result. Raises `TimeoutError`."""
    if _SLICE is None:
        return future.result(timeout)
    end = math.inf if timeout is None else time.monotonic() + timeout
    while not future.done() and (left := end - time.monotonic()) > 0:
        concurrent.futures.wait([future], min(_SLICE, left))
    return future.result(0)


def each_when_done(futures: Iterable[Future[T]], timeout: float | None = None) -> Iterator[Future[T]]:
    """Wait for futures in the calling thread and yield them in the order in which they are done. Raises
    `TimeoutError`."""
    if _SLICE is None:
        yield from concurrent.futures.as_completed(futures, timeout)
        return
    end = math.inf if timeout is None else time.monotonic() + timeout
    pending = set(futures)
    while pending:
        left = max(end - time.monotonic(), 0.0)
        done, pending = concurrent.futures.wait(pending, min(_SLICE, left), concurrent.futures.FIRST_COMPLETED)
        yield from done
        if not (done or left):
            raise TimeoutError


# Re-entrant: a garbage collection while it is held may end a session, which asks for the loop.
_lock = threading.RLock()
_background: BackgroundLoop | None = None


def background() -> BackgroundLoop:
    """The process's loop, made on first use."""
    global _background
    with _lock:
        if _background is None or _background.closed:
            _background = _nowhere(BackgroundLoop)
        return _background


def running() -> BackgroundLoop | None:
    """The process's loop, if there is one."""
    return None if _background is None or _background.closed else _background


def interrupted() -> bool:
    """Whether the program is ending because of Ctrl-C: Python keeps the last uncaught exception."""
    last = getattr(sys, "last_type", None)
    return last is not None and issubclass(last, KeyboardInterrupt)


def _forget_in_child() -> None:
    """Make the loop and lock new: threads do not survive a fork, and the lock may have been held."""
    global _background, _lock
    _background, _lock = None, threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
