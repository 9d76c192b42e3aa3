"""Why a request runs where it does: data, written by the scheduler and kept with the request."""

from dataclasses import dataclass
from enum import StrEnum

from parrotserve.ids import EngineId


class PlacedBy(StrEnum):
    """What decided where a request runs."""

    ARRIVAL = "arrival"
    """In order of arrival, on the least loaded engine: the scheduler's optimisations are off."""
    GROUP = "group"
    """With its task group, so that the last member ends soonest."""
    SHARERS = "sharers"
    """With a queued request that has the same prefix."""
    RESIDENT = "resident"
    """Where its prefix is resident, because that saves time."""
    HARM = "harm"
    """Where it and the requests already there lose the least time."""
    AHEAD = "ahead"
    """Where it was prefilled while its inputs were still being written."""
    ALONE = "alone"
    """On an engine that runs nothing else, because it is a suspect."""


class Lack(StrEnum):
    """Why a request cannot begin on an engine."""

    ROOM = "room"
    """There is no room left: no row, not enough of the cache, or no credit."""
    KEPT = "kept"
    """There is room, but it is reserved: for a request that needs more room, for a suspect, or for throughput work."""
    TENANT = "tenant"
    """There is room, but its tenant already adds as much to steps there as it may beside other tenants (ADR 008)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """An engine that was considered for a request, and what was predicted for the request there."""

    engine: EngineId
    seconds: float | None
    """Predicted seconds until the request ends there; None if it cannot begin there, or nothing was predicted."""
    cached_tokens: float
    """Number of its prompt tokens that are believed to be resident there."""
    harm: float
    """Predicted seconds that the other requests there lose in sum; throughput work counts less."""
    work: float
    """Predicted seconds of the engine's time that it takes."""
    lacks: Lack | None = None
    """Why it cannot begin there; None if it can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One decision to run a request on an engine."""

    by: PlacedBy
    chosen: Considered
    prompt_tokens: float
    """Estimated length of its prompt."""
    others: tuple[Considered, ...] = ()
