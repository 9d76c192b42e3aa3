"""The recorder: writes to the journal what must last of the machine's sessions.

A session's entries are its batches and what became of its variables: so much brings it back, whatever happened in
between. Erased with the session, they never outgrow what the service itself keeps.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from parrotserve.graph.events import Event, KnownFailure, RequestEnded, Submitted, ValueSet, Withdrawn
from parrotserve.graph.graph import Graph
from parrotserve.graph.objects import Call, Session, Variable
from parrotserve.graph.states import ProducerState, VariableState
from parrotserve.ids import RequestId, SessionId, VariableId
from parrotserve.sampling import FinishReason, TokenLogprob, Usage
from parrotserve.store.entries import FailureEntry, Kind, PieceEntry, ValueEntry, encoded, encoded_batch
from parrotserve.store.journal import Entry, Journal

T = TypeVar("T")
_NOTHING = Usage()


class _Recorded(NamedTuple):
    """How many of a session's objects its entries name: the first ones, as a session only grows."""

    variables: int = 0
    requests: int = 0
    calls: int = 0

    @classmethod
    def all_of(cls, session: Session) -> "_Recorded":
        return cls(len(session.variables), len(session.requests), len(session.calls))


class Recorder:
    """Records nothing until it is given a journal by `begin`. Owned by one event loop."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._journal: Journal | None = None
        self._sessions: dict[SessionId, _Recorded] = {}
        """The sessions that have entries."""
        self._left: set[SessionId] = set()
        """Sessions whose entries are of no use to this service."""

    def begin(self, journal: Journal) -> None:
        """Record sessions from now on: new ones, and those that `goes_on` names."""
        self._journal = journal

    def goes_on(self, session: SessionId) -> None:
        """Record a session that was brought back from its entries."""
        self._sessions[session] = _Recorded.all_of(self._graph.sessions[session])

    def leaves(self, session: SessionId) -> None:
        """Leave the entries of a session that was not brought back as they are, until one of the same id begins."""
        self._left.add(session)

    def erased(self, session: SessionId) -> bool:
        """Erase a session that was not brought back. Returns whether there is one of this id."""
        found = session in self._left
        if found:
            self._left.discard(session)
            self._drop_session(session)
        return found

    # --- What the machine was told ---------------------------------------------------------------------------

    def heard(self, event: Event) -> None:
        """Note an event that the machine accepted."""
        if self._journal is None:
            return
        match event:
            case Submitted(lasting=True):
                self._add_batch(event)
            case ValueSet() if event.session in self._sessions:
                # Clients may repeat both of these.
                self._drop(event.session, Kind.VALUE, event.variable)
                self._add_set(event.session, self._graph.variables[event.variable])
            case Withdrawn() if event.session in self._sessions:
                variable = self._graph.variables[event.variable]
                if variable.producer is None:
                    self._drop(event.session, Kind.FAILURE, event.variable)
                    self._add_failure(event.session, variable)
            case RequestEnded():
                request = self._graph.requests.get(event.request)
                if request is not None and request.fallen:
                    self.used(event.request)  # what is told only now of one that was cancelled
            case _:
                pass

    def _add_batch(self, batch: Submitted) -> None:
        """Add what is new of a batch: clients may send it again. That includes variables of other sessions that this
        one holds from now on, with their values: they may end before it."""
        session = self._graph.sessions[batch.session]
        before, now = self._sessions.get(session.id, _Recorded()), _Recorded.all_of(session)
        if now == before:
            return
        self.erased(session.id)
        self._sessions[session.id] = now
        variables = _last(session.variables, now.variables - before.variables)
        new = {variable.id for variable in variables}
        entry = replace(
            batch,
            variables=tuple(variable.declared for variable in variables),
            requests=tuple(one.spec for one in _last(session.requests, now.requests - before.requests)),
            calls=tuple(one.spec for one in _last(session.calls, now.calls - before.calls)),
            waits=tuple(wait for wait in batch.waits if wait.variable in new),
        )
        self._write(session.id, Entry(Kind.BATCH, "", encoded_batch(entry)))
        for variable in variables:
            self._add_set(session.id, variable)

    def _add_set(self, session: SessionId, variable: Variable) -> None:
        """Add the value of a variable that was declared without one, and then set."""
        if variable.was_set and variable.value is not None and variable.declared.value is None:
            self._add(session, Kind.VALUE, variable.id, ValueEntry(value=variable.value))

    # --- What became of it -----------------------------------------------------------------------------------

    def made(
        self,
        identity: VariableId,
        *,
        reason: FinishReason | None,
        logprobs: tuple[TokenLogprob, ...],
        tokens: tuple[int, ...],
    ) -> None:
        """Note that a variable has its value, and the tokens that it was written as, if a rerun of its request needs
        them."""
        variable = self._graph.variables.get(identity)
        session = self._session_of(variable)
        if variable is None or variable.value is None or session is None:
            return
        entry = ValueEntry(value=variable.value, reason=reason, logprobs=logprobs, tokens=tokens)
        self._add(session, Kind.VALUE, identity, entry)

    def fell(self, identity: VariableId) -> None:
        """Note that a variable FAILED or was CANCELLED."""
        variable = self._graph.variables.get(identity)
        session = self._session_of(variable)
        if variable is not None and session is not None:
            self._add_failure(session, variable)

    def wrote(
        self, identity: VariableId, *, tokens: tuple[int, ...], text: str, logprobs: Sequence[TokenLogprob]
    ) -> None:
        """Note new tokens of a streamed output, and what they add to the text that readers see."""
        session = self._session_of(self._graph.variables.get(identity))
        if session is not None:
            self._add(session, Kind.PIECE, identity, PieceEntry(tokens=tokens, text=text, logprobs=tuple(logprobs)))

    def reopened(self, session: SessionId, variable: VariableId) -> None:
        """Note that a retry brought a variable back."""
        if session in self._sessions:
            self._drop(session, Kind.FAILURE, variable)
            call = self._graph.variables[variable].producer
            if isinstance(call, Call):
                self._drop(session, Kind.ATTEMPT, call.id)
                self._add(session, Kind.ATTEMPT, call.id, call.attempt)

    def used(self, identity: RequestId) -> None:
        """Note what a request that is over has used."""
        request = self._graph.requests.get(identity)
        if request is None or request.session.id not in self._sessions:
            return
        if request.fallen and request.usage != _NOTHING:  # it may be retried, and fall or be done again
            self._drop(request.session.id, Kind.USAGE, identity)
            self._add(request.session.id, Kind.USAGE, identity, request.usage)
        elif request.state is ProducerState.DONE:
            self._add(request.session.id, Kind.USAGE, identity, request.usage)

    def ended(self, session: SessionId) -> None:
        """Erase a session."""
        if session in self._sessions:
            del self._sessions[session]
            self._drop_session(session)

    # --- Inside ----------------------------------------------------------------------------------------------

    def _session_of(self, variable: Variable | None) -> SessionId | None:
        """The session of a variable's producer, if it has entries."""
        if self._journal is None or variable is None or variable.producer is None:
            return None
        session = variable.producer.session.id
        return session if session in self._sessions else None

    def _add_failure(self, session: SessionId, variable: Variable) -> None:
        producer = variable.producer
        if variable.cause is not None:
            failure = KnownFailure(
                cause=variable.cause,
                cancelled=variable.state is VariableState.CANCELLED,
                by_input=producer is not None and producer.fell_by_input,
            )
            self._add(session, Kind.FAILURE, variable.id, FailureEntry.of(failure))

    def _add(self, session: SessionId, kind: Kind, key: str, entry: object) -> None:
        self._write(session, Entry(kind, key, encoded(entry)))

    def _write(self, session: SessionId, entry: Entry) -> None:
        assert self._journal is not None, "sessions have entries only if there is a journal"
        self._journal.add(session, entry)

    def _drop(self, session: SessionId, kind: Kind, key: str) -> None:
        assert self._journal is not None, "sessions have entries only if there is a journal"
        self._journal.drop(session, kind, key)

    def _drop_session(self, session: SessionId) -> None:
        assert self._journal is not None, "sessions have entries only if there is a journal"
        self._journal.drop_session(session)


def _last(objects: dict[Any, T], many: int) -> list[T]:
    """The objects that were added last, in the order in which they were. The cost does not depend on the others."""
    return list(islice(reversed(objects.values()), many))[::-1]
