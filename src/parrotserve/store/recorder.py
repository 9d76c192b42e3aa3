"""The recorder: writes to the journal what must last of the machine's sessions.

A session's entries are its batches and what became of its variables: so much brings it back, whatever happened in
between. Erased with the session, they never outgrow what the service itself keeps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

from parrotserve.graph.events import Event, KnownFailure, Submitted, ValueSet, Withdrawn
from parrotserve.graph.graph import Graph
from parrotserve.graph.objects import Producer, Variable
from parrotserve.graph.states import ProducerState, VariableState
from parrotserve.ids import RequestId, SessionId, VariableId
from parrotserve.sampling import FinishReason, TokenLogprob
from parrotserve.store.entries import FailureEntry, Kind, PieceEntry, ValueEntry, encoded, encoded_batch
from parrotserve.store.journal import Entry, Journal


class Recorder:
    """Records nothing until it is given a journal by `begin`. Owned by one event loop."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._journal: Journal | None = None
        self._sessions: set[SessionId] = set()
        """The sessions that have entries."""

    def begin(self, journal: Journal) -> None:
        """Record sessions from now on: new ones, and those that `goes_on` names."""
        self._journal = journal

    def goes_on(self, session: SessionId) -> None:
        """Record a session that was brought back from its entries."""
        self._sessions.add(session)

    # --- What the machine was told ---------------------------------------------------------------------------

    def heard(self, event: Event) -> None:
        """Note an event that the machine accepted."""
        if self._journal is None:
            return
        match event:
            case Submitted(lasting=True) if event.variables or event.requests or event.calls:
                self._sessions.add(event.session)
                self._add_batch(event)
            case ValueSet() if event.session in self._sessions:
                self._add_set(event.session, self._graph.variables[event.variable])
            case Withdrawn() if event.session in self._sessions:
                variable = self._graph.variables[event.variable]
                if variable.producer is None:
                    self._add_failure(event.session, variable)
            case _:
                pass

    def _add_batch(self, batch: Submitted) -> None:
        """Add a batch, with what it uses of variables that other sessions declared: these may end before this one."""
        declared = {spec.id for spec in batch.variables}
        awaited = (self._graph.variables[wait.variable] for wait in batch.waits)
        used = chain(awaited, *(one.inputs for one in self._producers_of(batch)))
        shared = {one.id: one.declared for one in used if one.holders > 1 and one.id not in declared}
        whole = replace(batch, variables=(*batch.variables, *shared.values())) if shared else batch
        self._write(batch.session, Entry(Kind.BATCH, "", encoded_batch(whole)))
        for spec in whole.variables:
            variable = self._graph.variables[spec.id]
            if variable.holders > 1:
                self._add_set(batch.session, variable)

    def _producers_of(self, batch: Submitted) -> Iterator[Producer]:
        yield from (self._graph.requests[spec.id] for spec in batch.requests)
        yield from (self._graph.calls[spec.id] for spec in batch.calls)

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

    def used(self, identity: RequestId) -> None:
        """Note what a request that is done has used."""
        request = self._graph.requests.get(identity)
        if request is not None and request.state is ProducerState.DONE and request.session.id in self._sessions:
            self._add(request.session.id, Kind.USAGE, identity, request.usage)

    def ended(self, session: SessionId) -> None:
        """Erase a session."""
        if self._journal is not None and session in self._sessions:
            self._sessions.discard(session)
            self._journal.drop_session(session)

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
