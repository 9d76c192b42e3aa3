"""The desk: native calls that wait for their session's client."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator

from parrotserve.errors import DeclarationError
from parrotserve.ids import CallId, SessionId
from parrotserve.protocol import CallOffer, CallResult
from parrotserve.texts import check_text


def outcome_of(result: CallResult) -> tuple[str | None, str | None]:
    """The value of a native call, or its error. A value that is not valid text becomes an error."""
    value, error = result.value, result.error
    try:
        check_text(value or "", "The value")
    except DeclarationError as refused:
        value, error = None, refused.message
    return value, None if error is None else error.encode(errors="replace").decode()


class CallDesk:
    """Calls that are offered and not yet answered, by session. Owned by one event loop.

    Calls are identified by the ids that clients see, as they are looked up within their session only. A call is given
    to one connection at a time; if the connection closes without an answer, another one gets the call.
    """

    def __init__(self) -> None:
        self._queues: dict[SessionId, _Queue] = {}
        self._closed = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept for any session."""
        return not self._queues

    def offer(self, session: SessionId, call: CallOffer) -> None:
        """Offer a call whose inputs are ready."""
        queue = self._queue(session)
        queue.offer(call)

    def settle(self, session: SessionId, call: CallId, *, attempt: int | None = None) -> None:
        """Drop a call, or this attempt of it, that is answered or no longer wanted."""
        queue = self._queues.get(session)
        if queue is not None and (attempt is None or queue.attempt_of(call) == attempt):
            queue.settle(call)
            self._drop_if_idle(session)

    def forget(self, session: SessionId) -> None:
        """End the connections of a session that is over."""
        queue = self._queues.pop(session, None)
        if queue is not None:
            queue.close()

    def close(self) -> None:
        """End every connection, now and from now on."""
        self._closed = True
        for session in list(self._queues):
            self.forget(session)

    async def connect(self, session: SessionId) -> AsyncGenerator[CallOffer, None]:
        """Yield calls of a session as they are offered, until the session is over."""
        if self._closed:
            return
        queue = self._queue(session)
        queue.connections += 1
        claimed: dict[CallId, None] = {}
        try:
            while not queue.closed:
                changed = queue.changed
                while queue.unclaimed:
                    yield queue.claim(claimed)
                await changed.wait()
        finally:
            queue.connections -= 1
            queue.give_back(claimed)
            self._drop_if_idle(session)

    def _queue(self, session: SessionId) -> "_Queue":
        queue = self._queues.get(session)
        if queue is None:
            queue = self._queues[session] = _Queue()
        return queue

    def _drop_if_idle(self, session: SessionId) -> None:
        queue = self._queues.get(session)
        if queue is not None and not queue.open and not queue.connections:
            del self._queues[session]


class _Queue:
    """One session's unanswered calls, oldest first. The cost per call does not depend on their number."""

    def __init__(self) -> None:
        self.open: dict[CallId, CallOffer] = {}
        self.unclaimed: OrderedDict[CallId, None] = OrderedDict()
        """Calls that no connection has. Not a dict: taking its first item scans past all that were taken before."""
        self.holders: dict[CallId, dict[CallId, None]] = {}
        """For each claimed call, all calls of the connection that has it."""
        self.connections = 0
        self.closed = False
        self.changed = asyncio.Event()

    def offer(self, call: CallOffer) -> None:
        self.settle(call.id)
        self.open[call.id] = call
        self.unclaimed[call.id] = None
        self.wake()

    def claim(self, claimed: dict[CallId, None]) -> CallOffer:
        """Give the oldest unclaimed call to the connection whose calls are `claimed`."""
        call, _ = self.unclaimed.popitem(last=False)
        claimed[call] = None
        self.holders[call] = claimed
        return self.open[call]

    def attempt_of(self, call: CallId) -> int | None:
        return self.open[call].attempt if call in self.open else None

    def settle(self, call: CallId) -> None:
        self.open.pop(call, None)
        self.unclaimed.pop(call, None)
        holder = self.holders.pop(call, None)
        if holder is not None:
            del holder[call]

    def give_back(self, claimed: dict[CallId, None]) -> None:
        """Make the calls of a connection that is gone available to others."""
        for call in claimed:
            del self.holders[call]
            self.unclaimed[call] = None
        self.wake()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def close(self) -> None:
        self.closed = True
        for call in list(self.open):
            self.settle(call)
        self.wake()
