"""What a session has declared or asked for and the service has not accepted yet. Thread-safe; no I/O.

A submit carries all that is new, and whatever this depends on that is still on its way in an earlier submit. Because of
the ids, sending it twice does no harm, so no exchange has to wait for an earlier one.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from parrotserve.criteria import Criteria
from parrotserve.ids import SessionId, VariableId
from parrotserve.protocol import CallSpec, RequestSpec, Submit, VariableSpec, WaitSpec
from parrotserve.sdk.cell import FOREVER, Cell

STRICTEST_FIRST = (Criteria.LATENCY, Criteria.TTFT, Criteria.TPOT, Criteria.THROUGHPUT)


@dataclass(frozen=True, slots=True)
class Named:
    """A variable of a session: its id there, and what the client knows of it."""

    id: VariableId
    cell: Cell

    def spec(self) -> VariableSpec:
        """Its declaration for the wire, with its value if it was set by now."""
        value = None if self.cell.produced else self.cell.value
        return VariableSpec(id=self.id, name=self.cell.name, value=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One call of a semantic or native function, with the variables that it is the first to name."""

    spec: RequestSpec | CallSpec
    inputs: tuple[VariableId, ...]
    introduced: tuple[Named, ...]
    """Inputs that the session has not seen before."""
    outputs: tuple[Named, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """Somebody's wait for a variable."""

    variable: Named
    criteria: Criteria
    timeout: float | None
    """Seconds."""
    stream: bool
    until: float
    """When the timeout runs out, on the monotonic clock; `FOREVER` if there is none."""

    def spec(self) -> WaitSpec:
        """The wait for the wire."""
        return WaitSpec(variable=self.variable.id, criteria=self.criteria, timeout=self.timeout, stream=self.stream)

    def answered(self) -> None:
        """Tell the cell that this question is no longer open."""
        self.variable.cell.answered(self.criteria, stream=self.stream, until=self.until)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one submit carries."""

    declarations: tuple[Declaration, ...] = ()
    wants: tuple[Want, ...] = ()
    introduced: Mapping[VariableId, VariableSpec] = field(default_factory=dict[VariableId, VariableSpec])
    """Inputs as they were when they were first sent: a variable that is sent again must not differ."""

    def part(self, declarations: Iterable[Declaration]) -> "Batch":
        """A batch of these of its declarations, without waits."""
        return Batch(tuple(declarations), (), self.introduced)

    def body(self, session: SessionId, lease_seconds: float) -> Submit:
        """The submit. Waits for one variable are merged: the strictest criteria, the longest timeout, streamed if any
        is."""
        specs = [declaration.spec for declaration in self.declarations]
        variables = [
            self.introduced.get(named.id) or named.spec()
            for declaration in self.declarations
            for named in (*declaration.introduced, *declaration.outputs)
        ]
        return Submit(
            session=session,
            lease_seconds=lease_seconds,
            variables=tuple(variables),
            requests=tuple(spec for spec in specs if isinstance(spec, RequestSpec)),
            calls=tuple(spec for spec in specs if isinstance(spec, CallSpec)),
            wait=tuple(want.spec() for want in _merged(self.wants)),
        )


def _merged(wants: Iterable[Want]) -> list[Want]:
    merged: dict[VariableId, Want] = {}
    for want in wants:
        other = merged.get(want.variable.id, want)
        longest = max(want, other, key=lambda each: each.until)
        merged[want.variable.id] = Want(
            variable=want.variable,
            criteria=min(want.criteria, other.criteria, key=STRICTEST_FIRST.index),
            timeout=None if longest.until == FOREVER else longest.timeout,
            stream=want.stream or other.stream,
            until=longest.until,
        )
    return list(merged.values())


class Outbox:
    """Declarations that are not accepted yet, and waits that are not sent yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._declared: dict[str, Declaration] = {}
        self._unsent: set[str] = set()
        """Ids of those declarations that no exchange carries."""
        self._sources: dict[VariableId, Declaration] = {}
        """By variable: the one of these declarations that is the first to name it."""
        self._introduced: dict[VariableId, VariableSpec] = {}
        self._empty: set[VariableId] = set()
        self._wants: list[Want] = []

    def declare(self, declaration: Declaration) -> None:
        """Add a call."""
        with self._lock:
            self._declared[declaration.spec.id] = declaration
            self._unsent.add(declaration.spec.id)
            self._sources |= {named.id: declaration for named in (*declaration.introduced, *declaration.outputs)}

    def want(self, want: Want) -> None:
        """Add a wait."""
        with self._lock:
            self._wants.append(want)

    def take(self) -> Batch | None:
        """Take what the next submit carries; None if nothing is new."""
        with self._lock:
            if not (self._unsent or self._wants):
                return None
            needed = self._needed()
            declarations = tuple(one for name, one in self._declared.items() if name in needed)
            introduced = [named for declaration in declarations for named in declaration.introduced]
            for named in introduced:
                if named.id not in self._introduced:
                    self._introduced[named.id] = named.spec()
            batch = Batch(
                declarations, tuple(self._wants), {named.id: self._introduced[named.id] for named in introduced}
            )
            self._unsent, self._wants = set(), []
            return batch

    def settle(self, declarations: Iterable[Declaration]) -> None:
        """Remove declarations that the service has accepted, or refused for good."""
        with self._lock:
            for declaration in declarations:
                self._unsent.discard(declaration.spec.id)
                if self._declared.pop(declaration.spec.id, None) is not None:
                    for named in declaration.introduced:
                        if self._introduced.pop(named.id, named.spec()).value is None:
                            self._empty.add(named.id)
                    for named in (*declaration.introduced, *declaration.outputs):
                        self._sources.pop(named.id, None)

    def resend(self, declarations: Iterable[Declaration]) -> None:
        """Mark declarations as unsent after their exchange failed before it was accepted; not those that have been
        settled by another one."""
        with self._lock:
            self._unsent |= {each.spec.id for each in declarations} & self._declared.keys()

    def _needed(self) -> set[str]:
        """Ids of the declarations that are new or waited for, and of those upstream that are not accepted yet."""
        needed = set(self._unsent)
        pending = [self._declared[name] for name in needed]
        pending += self._new_sources((want.variable.id for want in self._wants), needed)
        while pending:
            pending += self._new_sources(pending.pop().inputs, needed)
        return needed

    def _new_sources(self, variables: Iterable[VariableId], needed: set[str]) -> list[Declaration]:
        found: list[Declaration] = []
        for variable in variables:
            source = self._sources.get(variable)
            if source is not None and source.spec.id not in needed:
                needed.add(source.spec.id)
                found.append(source)
        return found

    def sent_empty(self, variable: VariableId) -> bool:
        """Whether the service has been told of this input without a value."""
        with self._lock:
            spec = self._introduced.get(variable)
            return variable in self._empty or (spec is not None and spec.value is None)
