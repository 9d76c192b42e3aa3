"""The graph's indexes, and the look-ups that refuse what a client may not see."""

from collections import Counter

from parrotserve.errors import ForeignVariable, UnknownObject
from parrotserve.graph.lazy_heap import LazyHeap
from parrotserve.graph.objects import Call, Request, Session, Variable
from parrotserve.ids import CallId, RequestId, SessionId, TenantId, VariableId, shown


class Graph:
    """The variables, requests and native calls of all sessions by id, and their deadlines."""

    def __init__(self) -> None:
        self.sessions: dict[SessionId, Session] = {}
        self.variables: dict[VariableId, Variable] = {}
        self.requests: dict[RequestId, Request] = {}
        self.calls: dict[CallId, Call] = {}
        self.deadlines: LazyHeap[Session | Call] = LazyHeap()
        """Sessions whose lease is running, and native calls with a timeout that clients are running."""
        self.held: Counter[TenantId] = Counter()
        """Approximate memory of each tenant's sessions and variables, in bytes."""
        self.openings = 0
        """Number of sessions that were ever opened."""
        self.arrivals = 0
        """Number of requests and native calls that were ever submitted."""
        self.positions = 0
        """The highest `position` that was given to a producer."""
        self.first_epoch = 0
        """Epoch at which new requests start: above all epochs of forgotten requests that engines have known. So late
        events of those are never taken for events of a new request with the same id."""

    def session(self, session: SessionId, tenant: TenantId) -> Session:
        """A tenant's session. Raises `UnknownObject`, also for another tenant's, so as not to reveal that it exists."""
        found = self.sessions.get(session)
        if found is None or found.tenant != tenant:
            raise UnknownObject(
                f"There is no session {shown(session)!r}; it never was, has ended, or its lease expired.",
                session=shown(session),
            )
        return found

    def variable(self, session: Session, variable: VariableId) -> Variable:
        """A variable that this session may use: its own, or a set value of its tenant's other sessions.

        Raises `UnknownObject`, or `ForeignVariable` for what another session produces.
        """
        found = session.variables.get(variable) or self.variables.get(variable)
        if found is None or found.tenant != session.tenant:
            raise UnknownObject(
                f"There is no variable {shown(variable)!r} in session {shown(session.id)!r}; declare it first, in this "
                "batch or an earlier one.",
                variable=shown(variable),
            )
        if found.id not in session.variables and not found.was_set:
            raise ForeignVariable(
                f"The {found} belongs to another session. Only a variable with a set value may be used in every "
                "session: wait for its value there, and set a variable to it here.",
                variable=shown(variable),
            )
        return found

    def call(self, session: Session, call: CallId) -> Call:
        """A native call of this session. Raises `UnknownObject`."""
        found = session.calls.get(call)
        if found is None:
            raise UnknownObject(f"Session {shown(session.id)!r} has no native call {shown(call)!r}.", call=shown(call))
        return found
