"""Why a request runs where it does: data, written by the scheduler and kept with the request."""

from dataclasses import dataclass
from enum import StrEnum

from parrotserve.ids import EngineId


class PlacedBy(StrEnum):
    """What decided where a request runs."""

    ARRIVAL = "arrival"
    """Order of arrival, least loaded engine: the scheduler's optimisations are off."""
    GROUP = "group"
    """With its task group, so that the last member ends soonest."""
    SHARERS = "sharers"
    """With a queued request that begins alike."""
    RESIDENT = "resident"
    """Where its beginning is resident, and that pays."""
    HARM = "harm"
    """Where it and those who are there lose least time."""
    AHEAD = "ahead"
    """Where it was read while its inputs were still being written."""
    ALONE = "alone"
    """A suspect: on an engine without anything else."""


class Lack(StrEnum):
    """Why a request cannot begin on an engine."""

    ROOM = "room"
    """Others have taken it, of rows, of cache, or of what the engine takes in at all."""
    KEPT = "kept"
    """There is room, which is kept for one that waits for more of it, or for work that nobody waits for."""
    TENANT = "tenant"
    """There is room, but its tenant adds as much to steps there as it may beside others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """An engine that was looked at for a request."""

    engine: EngineId
    seconds: float | None
    """Predicted until the request ends there; None where it cannot begin, or nothing is predicted."""
    cached_tokens: float
    """Of its prompt, as far as they are thought to be resident there."""
    harm: float
    """Seconds that others there were predicted to lose."""
    work: float
    """Seconds of the engine's time that it was predicted to take."""
    lacks: Lack | None = None
    """Why it cannot begin there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One decision to run a request on an engine."""

    by: PlacedBy
    chosen: Considered
    prompt_tokens: float
    """Estimated."""
    others: tuple[Considered, ...] = ()
