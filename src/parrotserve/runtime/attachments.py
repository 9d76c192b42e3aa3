"""Which sessions somebody is in touch with: while an exchange of one is open, its lease does not run."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from parrotserve.errors import RequestRefused
from parrotserve.graph.events import SessionTouched
from parrotserve.ids import SessionId, TenantId
from parrotserve.runtime.driver import Driver


class Attachments:
    """The open exchanges of each session, of which the machine is told."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._open: Counter[SessionId] = Counter()

    def __len__(self) -> int:
        """Sessions that have an open exchange."""
        return len(self._open)

    def touch(self, session: SessionId, tenant: TenantId) -> None:
        """The session's client was here: its lease begins anew. Raises `UnknownObject` for no such session."""
        self._driver.apply(SessionTouched(session=session, tenant=tenant, attached=self._open[session]))

    @contextmanager
    def attached(self, session: SessionId, tenant: TenantId) -> Generator[RequestRefused | None]:
        """While this is open, the session's lease does not run. Gives why, if there is no such session (any more)."""
        refused = self._change(session, tenant, 1)
        try:
            yield refused
        finally:
            if refused is None:
                self._change(session, tenant, -1)

    def refusal(self, session: SessionId, tenant: TenantId) -> RequestRefused | None:
        """Why, if there is no such session (any more)."""
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
