"""What a session has declared and asked for and the service has not accepted yet. Thread-safe; no I/O.

Every submit carries all declarations that are not accepted yet, those that are on their way in an earlier submit
included: ids make that harmless, and a program never waits for one exchange before it starts the next.
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
        """For the wire; with its value if it has one by now."""
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
    """Somebody asks for a variable."""

    variable: Named
    criteria: Criteria
    timeout: float | None
    """Seconds."""
    stream: bool
    until: float
    """When the timeout runs out, on the monotonic clock."""

    def spec(self) -> WaitSpec:
        """For the wire."""
        return WaitSpec(variable=self.variable.id, criteria=self.criteria, timeout=self.timeout, stream=self.stream)

    def answered(self) -> None:
        """Let the cell know that this question is no longer open."""
        self.variable.cell.answered(self.criteria, stream=self.stream, until=self.until)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one submit carries."""

    declarations: tuple[Declaration, ...] = ()
    wants: tuple[Want, ...] = ()
    introduced: Mapping[VariableId, VariableSpec] = field(default_factory=dict[VariableId, VariableSpec])
    """Inputs as they were when they were first sent: sent again, a variable says the same."""

    def part(self, declarations: Iterable[Declaration]) -> "Batch":
        """Some of its declarations, alone."""
        return Batch(tuple(declarations), (), self.introduced)

    def body(self, session: SessionId, lease_seconds: float) -> Submit:
        """The submit itself, each variable waited for once: as strictly, as long and as live as anybody asks."""
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
        self._unsent = False
        self._introduced: dict[VariableId, VariableSpec] = {}
        self._empty: set[VariableId] = set()
        self._wants: list[Want] = []

    def declare(self, declaration: Declaration) -> None:
        """A new call."""
        with self._lock:
            self._declared[declaration.spec.id] = declaration
            self._unsent = True

    def want(self, want: Want) -> None:
        """A new wait."""
        with self._lock:
            self._wants.append(want)

    def take(self) -> Batch | None:
        """What the next submit carries; None where nothing is new."""
        with self._lock:
            if not (self._unsent or self._wants):
                return None
            for declaration in self._declared.values():
                for named in declaration.introduced:
                    if named.id not in self._introduced:
                        self._introduced[named.id] = named.spec()
            batch = Batch(tuple(self._declared.values()), tuple(self._wants), dict(self._introduced))
            self._unsent, self._wants = False, []
            return batch

    def settle(self, declarations: Iterable[Declaration]) -> None:
        """The service has accepted these, or refused them for good."""
        with self._lock:
            for declaration in declarations:
                if self._declared.pop(declaration.spec.id, None) is not None:
                    for named in declaration.introduced:
                        if self._introduced.pop(named.id, named.spec()).value is None:
                            self._empty.add(named.id)

    def resend(self) -> None:
        """An exchange failed before it was accepted: what it carried is new again."""
        with self._lock:
            self._unsent = bool(self._declared)

    def sent_empty(self, variable: VariableId) -> bool:
        """Whether the service has been told of this input without a value."""
        with self._lock:
            spec = self._introduced.get(variable)
            return variable in self._empty or (spec is not None and spec.value is None)
