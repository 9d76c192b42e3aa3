"""The desk where native calls wait for their session's client."""

import asyncio
from collections.abc import AsyncGenerator

from parrotserve.ids import CallId, SessionId
from parrotserve.protocol import CallOffer


class CallDesk:
    """Calls that are offered and not yet answered, by session. Owned by one event loop.

    Calls go by their ids as they are shown: they are looked for within their session only. A call is with one
    connection at a time; when the connection goes without an answer, the next one gets it.
    """

    def __init__(self) -> None:
        self._queues: dict[SessionId, _Queue] = {}
        self._closed = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept for any session."""
        return not self._queues

    def offer(self, session: SessionId, call: CallOffer) -> None:
        """A call's inputs are ready."""
        queue = self._queue(session)
        queue.open[call.id] = call
        queue.unclaimed[call.id] = None
        queue.wake()

    def settle(self, session: SessionId, call: CallId) -> None:
        """A call is answered, or no longer wanted."""
        queue = self._queues.get(session)
        if queue is not None:
            queue.open.pop(call, None)
            queue.unclaimed.pop(call, None)
            self._drop_if_idle(session)

    def forget(self, session: SessionId) -> None:
        """A session is over: its connections end."""
        queue = self._queues.pop(session, None)
        if queue is not None:
            queue.close()

    def close(self) -> None:
        """End every connection, now and from now on."""
        self._closed = True
        for session in list(self._queues):
            self.forget(session)

    async def connect(self, session: SessionId) -> AsyncGenerator[CallOffer, None]:
        """Take calls of a session as they come, until it is over."""
        if self._closed:
            return
        queue = self._queue(session)
        queue.connections += 1
        claimed: list[CallId] = []
        try:
            while not queue.closed:
                changed = queue.changed
                while queue.unclaimed:
                    call = next(iter(queue.unclaimed))
                    del queue.unclaimed[call]
                    claimed = [one for one in claimed if one in queue.open] + [call]
                    yield queue.open[call]
                await changed.wait()
        finally:
            queue.connections -= 1
            queue.unclaimed.update({call: None for call in claimed if call in queue.open})
            queue.wake()
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
    """One session's unanswered calls, oldest first."""

    def __init__(self) -> None:
        self.open: dict[CallId, CallOffer] = {}
        self.unclaimed: dict[CallId, None] = {}
        self.connections = 0
        self.closed = False
        self.changed = asyncio.Event()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def close(self) -> None:
        self.closed = True
        self.open.clear()
        self.unclaimed.clear()
        self.wake()
