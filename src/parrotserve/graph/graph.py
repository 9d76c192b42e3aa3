"""The graph's indexes, and the look-ups that refuse what a client may not see."""

from collections import Counter

from parrotserve.errors import ForeignVariable, UnknownObject
from parrotserve.graph.lazy_heap import LazyHeap
from parrotserve.graph.objects import Call, Request, Session, Variable
from parrotserve.ids import CallId, RequestId, SessionId, TenantId, VariableId, shown


class Graph:
    """All sessions' variables, requests and native calls by id, and what has a deadline."""

    def __init__(self) -> None:
        self.sessions: dict[SessionId, Session] = {}
        self.variables: dict[VariableId, Variable] = {}
        self.requests: dict[RequestId, Request] = {}
        self.calls: dict[CallId, Call] = {}
        self.deadlines: LazyHeap[Session | Call] = LazyHeap()
        """Sessions whose lease runs, and native calls with a timeout that are handed out."""
        self.held: Counter[TenantId] = Counter()
        """Bytes of memory that tenants' sessions take, about."""
        self.openings = 0
        """How many sessions were ever opened."""
        self.arrivals = 0
        """How many requests and native calls were ever submitted."""
        self.positions = 0
        """The last of producers' positions in dataflow order that was given."""
        self.first_epoch = 0
        """Of new requests: above all epochs of those that were forgotten while engines had them. What is still heard of
        those is then nothing that is heard of another request with the same id."""

    def session(self, session: SessionId, tenant: TenantId) -> Session:
        """A tenant's session. Raises `UnknownObject` for another tenant's too: its existence is no one's business."""
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
