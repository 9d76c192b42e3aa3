"""The journal's file: what was committed is there again, mistakes say what to do, and a full disk stops nothing for
good."""

import asyncio
import contextlib
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from parrotserve.errors import ServiceUnavailable
from parrotserve.ids import SessionId
from parrotserve.store import journal as journal_module
from parrotserve.store.journal import Entry, Journal
from parrotserve.store.journal_file import JournalFile

ONE, OTHER = SessionId("s-1"), SessionId("s-2")

Open = Callable[[], Awaitable[Journal]]


@pytest.fixture
async def reopened(tmp_path: Path) -> AsyncIterator[Open]:
    """Closes the journal that is open, if one is, and opens it again."""
    opened: list[Journal] = []

    async def again() -> Journal:
        for journal in opened:
            await journal.close()
        opened.append(Journal(tmp_path / "data" / "journal.db"))
        return opened[-1]

    yield again
    for journal in opened:
        await journal.close()


def value(key: str, body: bytes = b"text") -> Entry:
    return Entry("value", key, body)


async def test_entries_come_back_by_session_in_the_order_they_came(reopened: Open):
    journal = await reopened()
    journal.add(OTHER, value("a"))
    journal.add(ONE, value("b"))
    journal.add(OTHER, value("c"))
    journal = await reopened()
    assert list(journal.sessions()) == [(OTHER, [value("a"), value("c")]), (ONE, [value("b")])]


async def test_what_is_committed_is_in_the_file_before_it_is_closed(reopened: Open, tmp_path: Path):
    journal = await reopened()
    journal.add(ONE, value("a", b"committed"))
    await journal.committed()
    assert is_in_the_files(journal, b"committed")


async def test_entries_are_dropped_by_key_and_by_session(reopened: Open):
    journal = await reopened()
    for session in (ONE, OTHER):
        journal.add(session, value("a"))
        journal.add(session, value("b"))
    journal.drop(ONE, "value", "a")
    journal.drop_session(OTHER)
    journal = await reopened()
    assert list(journal.sessions()) == [(ONE, [value("b")])]


async def test_a_dropped_text_is_nowhere_in_the_files_soon_after(reopened: Open, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal_module, "_TIDY_SECONDS", 0.01)
    journal = await reopened()
    journal.add(ONE, value("a", b"A secret."))
    await journal.committed()
    assert is_in_the_files(journal, b"A secret.")
    journal.drop_session(ONE)
    async with asyncio.timeout(20):
        while is_in_the_files(journal, b"A secret."):
            await asyncio.sleep(0.001)


async def test_the_log_is_emptied_while_commits_go_on(reopened: Open, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal_module, "_TIDY_SECONDS", 0.01)
    journal = await reopened()
    log, sizes = journal.path.with_name("journal.db-wal"), [0]
    journal.add(ONE, value("secret", b"A secret."))
    journal.drop(ONE, "value", "secret")
    async with asyncio.timeout(20):
        while sizes[-1] >= max(sizes) or is_in_the_files(journal, b"A secret."):
            journal.add(ONE, value(str(len(sizes)), bytes(1000)))
            await journal.committed()
            await asyncio.sleep(0)
            sizes.append(log.stat().st_size)
    journal = await reopened()
    ((_, entries),) = journal.sessions()
    assert len(entries) == len(sizes) - 1


async def test_commits_do_not_wait_for_what_is_moved_to_the_file(reopened: Open, monkeypatch: pytest.MonkeyPatch):
    begun, may_end = asyncio.Event(), threading.Event()
    move, loop = JournalFile.move, asyncio.get_running_loop()

    def slow(self: JournalFile, how: str) -> None:
        if how == "PASSIVE":
            loop.call_soon_threadsafe(begun.set)
            may_end.wait(20)
        move(self, how)

    monkeypatch.setattr(JournalFile, "move", slow)
    monkeypatch.setattr(journal_module, "_TIDY_SECONDS", 0.01)
    journal = await reopened()
    journal.add(ONE, value("a"))
    await begun.wait()
    journal.add(ONE, value("b"))
    async with asyncio.timeout(10):
        await journal.committed()
    may_end.set()
    journal = await reopened()
    assert list(journal.sessions()) == [(ONE, [value("a"), value("b")])]


async def test_a_log_that_grows_fast_is_emptied_earlier(reopened: Open, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal_module, "_LONG_LOG", 1 << 17)
    journal = await reopened()
    log, sizes = journal.path.with_name("journal.db-wal"), [0]
    async with asyncio.timeout(20):
        while sizes[-1] >= max(sizes):
            journal.add(ONE, value(str(len(sizes)), bytes(1000)))
            await journal.committed()
            await asyncio.sleep(0)
            sizes.append(log.stat().st_size)


async def test_pages_that_became_free_are_given_back(reopened: Open, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal_module, "_TIDY_SECONDS", 0.01)
    journal = await reopened()
    journal.add(ONE, value("a", bytes(1 << 20)))
    await journal.committed()
    journal.drop_session(ONE)
    async with asyncio.timeout(20):
        while not 0 < journal.path.stat().st_size < 1 << 16 or journal.path.with_name("journal.db-wal").stat().st_size:
            await asyncio.sleep(0.001)


def is_in_the_files(journal: Journal, text: bytes) -> bool:
    return any(text in path.read_bytes() for path in journal.path.parent.iterdir())


async def test_only_the_owner_may_read_the_files(reopened: Open):
    journal = await reopened()
    journal.add(ONE, value("a"))
    await journal.committed()
    for path in (journal.path.parent, *journal.path.parent.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


async def test_a_second_service_is_told_to_use_another_folder(reopened: Open):
    journal = await reopened()
    with pytest.raises(ServiceUnavailable, match=r"Another service uses it: .*--data"):
        Journal(journal.path)


async def test_a_file_of_a_later_version_is_left_alone(reopened: Open):
    journal = await reopened()
    await journal.close()
    with contextlib.closing(sqlite3.connect(journal.path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(ServiceUnavailable, match="later version"):
        await reopened()


async def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path):
    path = tmp_path / "journal.db"
    path.write_text("Not a database, but long enough to be looked at as one. " * 20)
    with pytest.raises(ServiceUnavailable, match="Move it away"):
        Journal(path)


async def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceUnavailable, match="--data"):
        Journal(tmp_path / "file" / "journal.db")


async def test_a_full_disk_is_told_and_tried_again(reopened: Open, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal_module, "_RETRY_SECONDS", 0.01)
    journal = await reopened()
    await full(journal, 1)
    journal.add(ONE, value("a", bytes(1 << 20)))
    with pytest.raises(ServiceUnavailable, match="Make room"):
        await journal.committed()
    assert journal.failing
    with pytest.raises(ServiceUnavailable, match="Make room"):
        journal.check()
    await full(journal, 1 << 20)
    while journal.failing:
        try:
            await journal.committed()
        except ServiceUnavailable:
            journal.add(OTHER, value("b"))
    journal = await reopened()
    assert next(journal.sessions()) == (ONE, [value("a", bytes(1 << 20))])


async def full(journal: Journal, pages: int) -> None:
    """Let the file have so many pages at most, or as many as it has."""
    journal._db.execute(f"PRAGMA max_page_count = {pages}")


async def test_it_can_be_closed_while_it_cannot_be_written(reopened: Open):
    journal = await reopened()
    await full(journal, 1)
    journal.add(ONE, value("a", bytes(1 << 20)))
    await journal.close()
    journal = await reopened()
    assert list(journal.sessions()) == []


async def test_a_large_session_is_dropped_in_the_thread(reopened: Open):
    journal = await reopened()
    for number in range(200):
        journal.add(ONE, value(str(number), b"x" * 1000))
        await journal.committed()
    journal = await reopened()
    assert [session for session, _ in journal.sessions()] == [ONE]
    in_loop: list[str] = []
    journal._db.set_trace_callback(lambda _: in_loop.append(threading.current_thread().name))
    journal.drop_session(ONE)
    await journal.committed()
    assert set(in_loop) == {"journal"}


async def test_nothing_is_written_after_what_could_not_be(reopened: Open):
    journal = await reopened()
    await full(journal, 20)
    journal.add(ONE, value("a", bytes(1 << 20)))
    with pytest.raises(ServiceUnavailable):
        await journal.committed()
    journal.add(ONE, value("b"))
    journal = await reopened()
    assert list(journal.sessions()) == []
