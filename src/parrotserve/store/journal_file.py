"""The journal's SQLite file: opened for one service alone, with errors that say what to do."""

import contextlib
import os
import sqlite3
from pathlib import Path

from filelock import FileLock, Timeout

from parrotserve.errors import ServiceUnavailable

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY, session TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS entries_by_session ON entries (session);
"""
_FORM = 1
"""Version of the table and of the entries, stored in the file."""
_IN_USE = "Another service uses it: stop that, or give this one another folder with --data."
_ADVICE = {
    sqlite3.SQLITE_NOTADB: "Move it away; the sessions in it are lost.",
    sqlite3.SQLITE_CORRUPT: "Move it away; the sessions in it are lost.",
    sqlite3.SQLITE_BUSY: _IN_USE,
    sqlite3.SQLITE_FULL: "Make room there, or set PARROT_DATA, or --data, to another folder.",
}
_USUAL_ADVICE = "Set PARROT_DATA, or --data, to a folder that can be written."


class JournalFile:
    """The file, and a lock on it that ends with the process, however that ends. Raises `ServiceUnavailable` if the file
    cannot be opened, or another process has it open."""

    def __init__(self, path: Path) -> None:
        # SQLite's own exclusive lock would keep out a second connection of this process, too.
        self._lock = FileLock(f"{path}.lock", mode=0o600, thread_local=False)
        with contextlib.ExitStack() as opened:
            try:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._lock.acquire(timeout=0)
                opened.callback(self._lock.release)
                # Created here, because SQLite would use the umask's permissions; its log gets those of the file.
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
                self.db = opened.enter_context(contextlib.closing(_connected(path)))
                """For all statements; used by one thread at a time."""
                _prepare(self.db, path)
                self._mover = opened.enter_context(contextlib.closing(_connected(path)))
            except Timeout as error:
                raise ServiceUnavailable(f"The journal of sessions in {path} is locked. {_IN_USE}") from error
            except (OSError, sqlite3.Error) as error:
                raise unavailable(path, "opened", error) from error
            self._opened = opened.pop_all()

    def move(self, how: str) -> None:
        """Move what was committed from SQLite's log to the file proper, over a connection of its own; `how` is a mode
        of SQLite's `wal_checkpoint`. PASSIVE lets others write meanwhile. To be called by one thread."""
        self._mover.execute(f"PRAGMA wal_checkpoint({how})").fetchall()

    @property
    def free_pages(self) -> int:
        """Pages of the file that are not used, as `move` sees it. To be called by the same thread."""
        ((pages,),) = self._mover.execute("PRAGMA freelist_count").fetchall()
        return pages

    def close(self) -> None:
        """Close the file and let others open it."""
        self._opened.close()


def unavailable(path: Path, what: str, error: Exception) -> ServiceUnavailable:
    """The error of a journal that cannot be opened, read or written."""
    why = getattr(error, "strerror", None) or error
    advice = _ADVICE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, _USUAL_ADVICE)
    return ServiceUnavailable(f"The journal of sessions in {path} cannot be {what}: {why}. {advice}")


def _connected(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=0.5, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA wal_autocheckpoint = 0")  # it would be in the event loop
    return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    ((form,),) = db.execute("PRAGMA user_version").fetchall()
    if form > _FORM:
        raise ServiceUnavailable(
            f"The journal {path} was written by a later version of Parrot. Install that, or set PARROT_DATA, or "
            "--data, to another folder."
        )
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA secure_delete = ON")
    db.executescript(_SCHEMA)
    db.execute(f"PRAGMA user_version = {_FORM}")
