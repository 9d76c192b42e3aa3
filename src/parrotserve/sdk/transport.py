"""The interface between the front end and a service, implemented for HTTP, the embedded service and test fakes."""

from collections.abc import AsyncIterator
from typing import Protocol

from parrotserve.ids import CallId, SessionId, VariableId
from parrotserve.protocol import CallOffer, CallResult, CallState, SessionView, Submit, VariableEvent


class Transport(Protocol):
    """A connection to one service. All methods run on the front end's own event loop.

    Every method raises only errors of `parrotserve.errors`: those with which the service refuses,
    `ServiceUnavailable` if it cannot be reached, `IncompatibleVersions` if it speaks another protocol. Abandoning an
    iterator (`aclose`, or cancelling the task that reads it) cancels nothing in the service.
    """

    async def open(self) -> None:
        """Get ready; called once, before anything else. May take long: an embedded service loads a model."""
        ...

    async def close(self) -> None:
        """Release the service and everything held for it; called once, last."""
        ...

    def submit(self, body: Submit) -> AsyncIterator[VariableEvent]:
        """Declare a batch and wait for variables.

        Yields `Accepted` first, once the batch is accepted (a refusal is raised instead). Then, for every `WaitSpec` of
        the batch, `Delta`s if it streams and one `Value` or `Failure`; variables are interleaved as they come. A wait
        that times out gives a `Failure` with code "get_timeout". Sending a batch again changes nothing.
        """
        ...

    def stream(self, session: SessionId, variable: VariableId, offset: int) -> AsyncIterator[VariableEvent]:
        """The text of a variable from character `offset` on: `Delta`s as it grows, then one `Value` or `Failure`."""
        ...

    async def set_value(self, session: SessionId, variable: VariableId, value: str) -> None:
        """Make an EMPTY variable READY; again to the same value is fine. Raises `AlreadyProduced`."""
        ...

    async def retry(self, session: SessionId, variable: VariableId) -> None:
        """Run the failed or cancelled producer of a variable again, and what failed upstream of it."""
        ...

    async def cancel(self, session: SessionId, variable: VariableId) -> None:
        """Cancel the producer of a variable, and producers upstream that nothing else needs."""
        ...

    async def end_session(self, session: SessionId) -> None:
        """Cancel what still runs in a session and free it."""
        ...

    async def session_view(self, session: SessionId) -> SessionView:
        """The session's graph with states, timings, and why requests run as they do."""
        ...

    def calls(self, session: SessionId) -> AsyncIterator[CallOffer]:
        """Native calls of the session whose inputs are ready, as they become so; ends with the session."""
        ...

    async def put_result(
        self, session: SessionId, call: CallId, result: CallResult, *, attempt: int | None = None
    ) -> CallState:
        """Answer a `CallOffer`, by its attempt. An answer that comes too late, or to an attempt that is not the latest,
        is ignored. The returned state of the call says whether it may be offered again."""
        ...
