"""A journal in memory, for tests: entries as they would be in the file, lost with the test."""

from collections.abc import Iterator

from parrotserve.ids import SessionId
from parrotserve.store.journal import Entry


class MemoryJournal:
    def __init__(self) -> None:
        self.entries: dict[SessionId, list[Entry]] = {}

    def add(self, session: SessionId, entry: Entry) -> None:
        self.entries.setdefault(session, []).append(entry)

    def drop(self, session: SessionId, kind: str, key: str) -> None:
        kept = [one for one in self.entries.get(session, []) if (one.kind, one.key) != (kind, key)]
        self.entries[session] = kept

    def drop_session(self, session: SessionId) -> None:
        self.entries.pop(session, None)

    def sessions(self) -> Iterator[tuple[SessionId, list[Entry]]]:
        yield from list(self.entries.items())
