"""The journal: one SQLite file of entries about sessions.

Whoever is about to let something be seen outside awaits `committed` first: then what was written before it survives the
death of the process. All that was written since the last commit is committed together (group commit): in the event loop
itself, which takes some 70 microseconds, or in a thread where it would take longer. A power failure may lose the last
seconds, because commits do not wait for the disk (SQLite's `synchronous = NORMAL`). A thread with a connection of its
own does that for them now and then, while they go on.
"""

import asyncio
import contextlib
import itertools
import logging
import queue
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from parrotserve.errors import ServiceUnavailable
from parrotserve.ids import SessionId
from parrotserve.store.journal_file import JournalFile, unavailable

log = logging.getLogger(__name__)

_ADD = "INSERT INTO entries (session, kind, key, body) VALUES (?, ?, ?, ?)"
_ADD_MORE = ", (?, ?, ?, ?)"
_DROP = "DELETE FROM entries WHERE session = ? AND kind = ? AND key = ?"
_DROP_SESSION = "DELETE FROM entries WHERE session = ?"
_ALL = "SELECT session, kind, key, body FROM entries ORDER BY min(number) OVER (PARTITION BY session), number"

_AT_ONCE = 1 << 16
"""Bytes that are committed in the event loop; more are left to the thread."""
_ROW = 100
"""Bytes of an entry besides its body, roughly."""
_FEW = 16
"""Most entries that are added by one statement, of which SQLite keeps one prepared for each number of entries."""
_LAZY_SECONDS = 0.02
"""Time after which entries are committed even if nobody waits for them."""
_RETRY_SECONDS = 1.0
"""Pause before entries that could not be written are tried again."""
_TIDY_SECONDS = 5.0
"""Interval at which what was committed moves from SQLite's log to the file proper, which waits for the disk; texts that
were dropped are then gone from both."""
_LONG_LOG = 8 << 20
"""Size of the log, roughly, at which that is done earlier: the longer it is, the longer commits wait for its end."""
_COMMIT = 1 << 14
"""What a commit adds to the log besides the bodies of its entries, roughly: whole pages."""
_PASSES = 2
"""How often what is in the log is moved while commits go on, which add to it, before they have to wait for the rest."""
_VACUUM_PAGES = 64
"""Pages that are given back in one go, while commits wait."""
_Statement = tuple[str, tuple[str | bytes, ...]]


class Entry(NamedTuple):
    """One entry about a session; `key` is what it is about (the empty text: the session)."""

    kind: str
    key: str
    body: bytes


class Journal:
    """The journal in a file, created if it does not exist, readable by its owner only. Used by one process at a time.

    Owned by the event loop that runs when it is made. Raises `ServiceUnavailable` if the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._loop = asyncio.get_running_loop()
        self._file = JournalFile(path)
        self._db = self._file.db
        self._using = threading.Lock()
        """Held by whoever uses this connection."""
        self._new: list[_Statement] = []
        """Statements since the last commit."""
        self._bytes = 0
        """Size of the entries that they add and drop."""
        self._log = 0
        """Size of the log, roughly."""
        self._sizes: Counter[SessionId] = Counter()
        """Size of each session's entries."""
        self._handed = self._written = 0
        """Number of batches that the thread was given, and of those that it has committed."""
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._failure: str | None = None
        self._tidying: asyncio.TimerHandle | None = None
        self._closing = False
        self._gave_up: str | None = None
        """Why a batch was given up when the journal was closed. What follows may build on it, and is given up too."""
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    # --- Writing ---------------------------------------------------------------------------------------------

    def add(self, session: SessionId, entry: Entry) -> None:
        """Add an entry."""
        size = len(entry.body) + _ROW
        self._sizes[session] += size
        self._do(_ADD, (session, *entry), size=size)

    def drop(self, session: SessionId, kind: str, key: str) -> None:
        """Drop a session's entries of this kind about this key."""
        self._do(_DROP, (session, kind, key))

    def drop_session(self, session: SessionId) -> None:
        """Drop all entries of a session. Their texts are overwritten in the file."""
        self._do(_DROP_SESSION, (session,), size=self._sizes.pop(session, 0))

    async def committed(self) -> None:
        """Wait until everything that was written so far is committed.

        Raises `ServiceUnavailable` if it cannot be written at present; the journal goes on trying.
        """
        self._flush()
        if self._written < self._handed:
            ending = self._loop.create_future()
            self._waiting.append((self._handed, ending))
            await ending
        self.check()

    def check(self) -> None:
        """Raises `ServiceUnavailable` while entries cannot be written."""
        if self._failure is not None:
            raise ServiceUnavailable(self._failure)

    @property
    def failing(self) -> bool:
        """Whether entries cannot be written at present."""
        return self._failure is not None

    async def close(self) -> None:
        """Write what is left and close the file. Safe to call twice."""
        if not self._closing:
            self._closing = True
            self._tidy()
            self._work.put(None)
        await asyncio.to_thread(self._thread.join)
        self._file.close()

    # --- Reading ---------------------------------------------------------------------------------------------

    def sessions(self) -> Iterator[tuple[SessionId, list[Entry]]]:
        """Each session with its entries, in order of their first entries. To be read before anything is written.

        Raises `ServiceUnavailable` if the file cannot be read.
        """
        try:
            for session, rows in itertools.groupby(self._db.execute(_ALL), key=itemgetter(0)):
                entries = [Entry(*row[1:]) for row in rows]
                self._sizes[SessionId(session)] = sum(len(entry.body) + _ROW for entry in entries)
                yield SessionId(session), entries
        except sqlite3.Error as error:
            raise unavailable(self.path, "read", error) from error

    # --- Inside ----------------------------------------------------------------------------------------------

    def _do(self, statement: str, values: tuple[str | bytes, ...], *, size: int = 0) -> None:
        if not self._new:
            self._loop.call_later(_LAZY_SECONDS, self._flush)
        self._new.append((statement, values))
        self._bytes += size
        if self._tidying is None:
            self._tidying = self._loop.call_later(_TIDY_SECONDS, self._tidy)

    def _flush(self) -> None:
        """Commit what is new, or have the thread do it if that takes long or the thread is using the connection."""
        if not self._new:
            return
        batch, size = self._new, self._bytes
        self._new, self._bytes = [], 0
        self._log += size + _COMMIT
        if self._log > _LONG_LOG:
            self._loop.call_soon(self._tidy)
            self._log = 0
        if size <= _AT_ONCE and self._written == self._handed and self._using.acquire(blocking=False):
            try:
                self._execute(batch)
                return
            except Exception:
                pass  # the thread tries again, and says what is wrong
            finally:
                self._using.release()
        self._handed += 1
        self._work.put(partial(self._commit, batch))

    def _execute(self, batch: list[_Statement]) -> None:
        if len(batch) <= _FEW and all(statement is _ADD for statement, _ in batch):
            # One statement is a transaction of its own, and takes less time than three.
            values = list(itertools.chain.from_iterable(values for _, values in batch))
            self._db.execute(_ADD + _ADD_MORE * (len(batch) - 1), values)
            return
        try:
            self._db.execute("BEGIN")
            for statement, values in batch:
                self._db.execute(statement, values)
            self._db.execute("COMMIT")
        except Exception:
            if self._db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
            raise

    def _tidy(self) -> None:
        if self._tidying is not None:
            self._tidying.cancel()
            self._tidying = None
        self._flush()  # else what was dropped just now would stay in the log until something else is written
        self._log = 0
        self._work.put(self._empty_log)

    def _told(self, failure: str | None) -> None:
        """The thread committed a batch, or failed to."""
        self._written += failure is None
        self._failure = failure
        while self._waiting and (failure is not None or self._waiting[0][0] <= self._written):
            _, ending = self._waiting.popleft()
            if not ending.done():
                ending.set_result(None)

    # --- The thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def _commit(self, batch: list[_Statement]) -> None:
        """Commit a batch, trying again for as long as the journal is open."""
        while self._gave_up is None:
            try:
                with self._using:
                    self._execute(batch)
            except Exception as error:  # whatever it is: without this thread, all would wait for ever
                failure = unavailable(self.path, "written", error).message
            else:
                self._tell(None)
                return
            if self._failure is None:
                log.error("%s", failure)
            self._tell(failure)
            if self._closing:
                self._gave_up = failure
                return
            time.sleep(_RETRY_SECONDS)
        self._tell(self._gave_up)

    def _empty_log(self) -> None:
        """Move all that is in the log to the file proper, most of it while commits go on. They have to wait for the
        rest: a log that is never whole in the file is never emptied, and grows without end."""
        with contextlib.suppress(sqlite3.Error):  # the next time it may succeed
            self._vacuum()
        with contextlib.suppress(sqlite3.Error):
            for _ in range(_PASSES):
                self._file.move("PASSIVE")
            with self._using:
                self._file.move("TRUNCATE")

    def _vacuum(self) -> None:
        """Give pages that became free back to the file system, a few at a time, so that commits get in between."""
        for _ in range(self._file.free_pages // _VACUUM_PAGES + 1):
            with self._using:
                # It makes a step for each page, of which `execute` would take only the first.
                self._db.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")

    def _tell(self, failure: str | None) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop may be closed by now
            self._loop.call_soon_threadsafe(self._told, failure)
