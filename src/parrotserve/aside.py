"""Long work, done in the background on a few threads, which take turns between the owners of the work."""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

Work = Callable[[], Any]
"""A function that lets other threads run for most of its time, as compiled code does that releases the GIL."""
Doing = Callable[[str, Work], "Future[Any]"]
"""Has work done on behalf of an owner: `at_once`, or `Aside.do`."""

_MOST_THREADS = 2
"""More than one, so that a single owner whose work takes long does not hold up the others."""


def at_once(owner: str, work: Work) -> Future[Any]:
    """Does the work now, on the caller's thread."""
    future: Future[Any] = Future()
    _do(future, work)
    return future


class Aside:
    """Does work on threads of its own, which exist while there is something to do, and end with the process.

    Each owner has a queue, of which one piece of work is done at a time; owners take turns. Thread-safe.
    """

    def __init__(self, name: str, *, threads: int = _MOST_THREADS) -> None:
        self._name = name
        self._most = threads
        self._lock = threading.Lock()
        self._lines: OrderedDict[str, deque[tuple[Future[Any], Work]]] = OrderedDict()
        """Waiting work by owner; the owner whose turn is next comes first."""
        self._busy: set[str] = set()
        self._threads = 0

    def do(self, owner: str, work: Work) -> Future[Any]:
        """Does the work when its turn comes; if the future is cancelled before that, it is skipped."""
        future: Future[Any] = Future()
        with self._lock:
            self._lines.setdefault(owner, deque()).append((future, work))
            more = self._threads < self._most and owner not in self._busy
            self._threads += more
        if more:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        return future

    def _run(self) -> None:
        owner: str | None = None
        while (turn := self._next(owner)) is not None:
            owner, future, work = turn
            _do(future, work)
            del turn, future, work  # so that nothing of them is kept in memory

    def _next(self, done: str | None) -> tuple[str, Future[Any], Work] | None:
        """The next owner and its work, after the turn of owner `done`, if any, has ended. None: the thread is no longer
        needed."""
        with self._lock:
            if done is not None:
                self._busy.discard(done)
                if done in self._lines:
                    self._lines.move_to_end(done)
            owner = next((owner for owner in self._lines if owner not in self._busy), None)
            if owner is None:
                self._threads -= 1
                return None
            future, work = self._lines[owner].popleft()
            if not self._lines[owner]:
                del self._lines[owner]
            self._busy.add(owner)
            return owner, future, work


def _do(future: Future[Any], work: Work) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # also what a panic in a compiled library raises: whoever asked gets it
        future.set_exception(error)
    else:
        future.set_result(result)
