"""The open exchanges of sessions: while a session has one, its lease does not run."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from parrotserve.errors import RequestRefused
from parrotserve.graph.events import SessionTouched
from parrotserve.ids import SessionId, TenantId
from parrotserve.runtime.driver import Driver


class Attachments:
    """Counts the open exchanges of each session, and reports them to the machine."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._open: Counter[SessionId] = Counter()

    def __len__(self) -> int:
        """The number of sessions that have an open exchange."""
        return len(self._open)

    def touch(self, session: SessionId, tenant: TenantId) -> None:
        """Renew the lease of a session whose client was in contact. Raises `UnknownObject` for an unknown session."""
        self._driver.apply(SessionTouched(session=session, tenant=tenant, attached=self._open[session]))

    @contextmanager
    def attached(self, session: SessionId, tenant: TenantId) -> Generator[RequestRefused | None]:
        """Suspend the session's lease while this is open. Gives the refusal if there is no such session (any more)."""
        refused = self._change(session, tenant, 1)
        try:
            yield refused
        finally:
            if refused is None:
                self._change(session, tenant, -1)

    def refusal(self, session: SessionId, tenant: TenantId) -> RequestRefused | None:
        """The refusal if there is no such session (any more), else None."""
        return self._change(session, tenant, 0)

    def _change(self, session: SessionId, tenant: TenantId, change: int) -> RequestRefused | None:
        self._open[session] += change
        refusal = None
        try:
            self.touch(session, tenant)
        except RequestRefused as refused:
            refusal = refused
            self._open[session] -= max(change, 0)
        if not self._open[session]:
            del self._open[session]
        return refusal
