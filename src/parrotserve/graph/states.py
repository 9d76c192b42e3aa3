"""The states of variables, requests and native calls, and the transitions between them that are legal."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Generic, TypeVar

HISTORY_LENGTH = 16
"""Number of an object's last states that are remembered."""


class VariableState(StrEnum):
    """Where a semantic variable's value stands."""

    EMPTY = "empty"
    """Nothing produces it; a client may set it."""
    PRODUCING = "producing"
    """A request or native call produces it, now or later."""
    READY = "ready"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ProducerState(StrEnum):
    """Where a request or a native call stands."""

    WAITING = "waiting"
    """Not all of its inputs are known."""
    QUEUED = "queued"
    """Requests only: its inputs are known, and it waits for an engine."""
    RUNNING = "running"
    """Requests only: an engine runs it."""
    OFFERED = "offered"
    """Native calls only: it was handed to the session's client, or to the sandbox."""
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


FALLEN = frozenset({"failed", "cancelled"})
"""Ended without a value; a retry is possible."""
SETTLED = FALLEN | {"ready"}
FINISHED = FALLEN | {"done"}

Transitions = Mapping[str, frozenset[str]]


def _table(rows: dict[StrEnum, set[StrEnum]]) -> Transitions:
    return {state: frozenset(successors) for state, successors in rows.items()}


_V, _P = VariableState, ProducerState

VARIABLE_TRANSITIONS = _table(
    {
        _V.EMPTY: {_V.PRODUCING, _V.READY, _V.CANCELLED},
        _V.PRODUCING: {_V.READY, _V.FAILED, _V.CANCELLED},
        _V.READY: set(),
        _V.FAILED: {_V.PRODUCING},
        _V.CANCELLED: {_V.PRODUCING, _V.EMPTY},
    }
)
# Only those that were done before the service was restarted go from WAITING to DONE.
REQUEST_TRANSITIONS = _table(
    {
        _P.WAITING: {_P.QUEUED, _P.DONE, _P.FAILED, _P.CANCELLED},
        _P.QUEUED: {_P.RUNNING, _P.CANCELLED},
        _P.RUNNING: {_P.DONE, _P.FAILED, _P.CANCELLED, _P.QUEUED},
        _P.DONE: set(),
        _P.FAILED: {_P.WAITING},
        _P.CANCELLED: {_P.WAITING},
    }
)
CALL_TRANSITIONS = _table(
    {
        _P.WAITING: {_P.OFFERED, _P.DONE, _P.FAILED, _P.CANCELLED},
        _P.OFFERED: {_P.DONE, _P.FAILED, _P.CANCELLED},
        _P.DONE: set(),
        _P.FAILED: {_P.WAITING},
        _P.CANCELLED: {_P.WAITING},
    }
)

S = TypeVar("S", bound=StrEnum)


@dataclass(slots=True, eq=False, kw_only=True, repr=False)
class Tracked(Generic[S]):
    """An object whose state changes only as its table of transitions allows, and which keeps its history."""

    transitions: ClassVar[Transitions]

    state: S
    history: list[tuple[float, S, str]] = field(default_factory=list[tuple[float, S, str]])
    """(time, state, why), oldest first."""

    def move(self, state: S, now: float, why: str) -> None:
        """Enter a state. Raises `RuntimeError` with the history if the table has no such transition."""
        if state not in self.transitions[self.state]:
            past = "; ".join(f"{when:.3f} {entered} ({reason})" for when, entered, reason in self.history)
            raise RuntimeError(f"{self} cannot go from {self.state} to {state} ({why}). History: {past or 'none'}.")
        self.state = state
        self.history.append((now, state, why))
        if len(self.history) > HISTORY_LENGTH:
            del self.history[0]
