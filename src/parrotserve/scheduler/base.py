"""The interface between the machine and its scheduler, which decides where and when requests run."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from parrotserve.criteria import NO_PRECEDENCE, Precedence
from parrotserve.graph.events import EngineJoined, StepsRun
from parrotserve.graph.objects import Request
from parrotserve.graph.placements import Placement
from parrotserve.ids import EngineId, RequestId, TenantId
from parrotserve.sampling import Usage


@dataclass(frozen=True, slots=True)
class Placed:
    """Start a queued request."""

    request: Request
    placement: Placement
    precedence: Precedence = NO_PRECEDENCE
    """Its precedence among the engine's requests of the same objective."""


@dataclass(frozen=True, slots=True)
class Paused:
    """Pause a running request to make room."""

    request: Request


@dataclass(frozen=True, slots=True)
class Resumed:
    """Resume a paused request."""

    request: Request


@dataclass(frozen=True, slots=True)
class Ahead:
    """Where a request reads ahead from now on, and which other request had to stop doing so to make room."""

    engine: EngineId
    instead_of: Request | None = None


@dataclass(frozen=True, slots=True)
class ReadNoMore:
    """Stop a request from reading ahead, because its engine is needed for a request that has to run alone."""

    request: Request


@dataclass(frozen=True, slots=True)
class Retained:
    """Tell an engine to evict last the first `segments` segments of a request that is still to run."""

    request: Request
    engine: EngineId
    key: str
    segments: int


@dataclass(frozen=True, slots=True)
class Released:
    """Undo `Retained`: `request` was the last one that needed this prefix."""

    request: Request
    engine: EngineId
    key: str


Outcome = Placed | Paused | Resumed | ReadNoMore | Retained | Released


class Scheduler(ABC):
    """Keeps queued requests and engines, and decides which request runs where."""

    # --- Events ----------------------------------------------------------------------------------------------

    @abstractmethod
    def join(self, description: EngineJoined) -> None:
        """Add an engine."""

    @abstractmethod
    def lose(self, engine: EngineId) -> list[Request]:
        """Remove an engine. Returns the requests that ran or read ahead there; an empty list if it was unknown."""

    @abstractmethod
    def wait(self, request: Request) -> None:
        """Note that a request waits for values: it is new, or one more value is known. Its prefix is worth keeping."""

    @abstractmethod
    def queue(self, request: Request) -> None:
        """Add a request that is ready to run."""

    @abstractmethod
    def unqueue(self, request: Request) -> None:
        """Remove a request from the queue."""

    @abstractmethod
    def run_ahead(self, request: Request, near: EngineId | None) -> Ahead | None:
        """Let a request that still waits for inputs read ahead: on engine `near`, or on any if that is None, gone, or
        of another model. None if there is no place for it."""

    @abstractmethod
    def free(self, engine: EngineId, request: RequestId, usage: Usage | None, now: float) -> None:
        """Note that an engine no longer runs a request or reads it ahead. `usage` is None until the engine reports
        it."""

    @abstractmethod
    def settle(self, request: RequestId, epoch: int, usage: Usage) -> None:
        """Report the usage of a run that was freed before it was known. Other runs are ignored."""

    @abstractmethod
    def reclassify(self, request: Request) -> Precedence | None:
        """Account for the new objective or task group of a queued or running request. Returns its new precedence on its
        engine, if it has one."""

    @abstractmethod
    def wrote(self, request: Request) -> None:
        """Note that an output of a running request has become known."""

    @abstractmethod
    def finish(self, request: Request, usage: Usage | None) -> None:
        """Forget a request. `usage` is that of its last run, if it produced all of its outputs."""

    @abstractmethod
    def timed(self, event: StepsRun, now: float) -> None:
        """Learn from the measured times of an engine's steps."""

    @abstractmethod
    def weigh(self, tenant: TenantId, weight: float) -> None:
        """Set a tenant's weight, to which its share is proportional."""

    # --- Decisions -------------------------------------------------------------------------------------------

    @abstractmethod
    def place(self, now: float) -> Sequence[Outcome]:
        """Place every queued request that can run now. Returns the placements, and what is paused or resumed for
        them."""

    @property
    def unfinished(self) -> bool:
        """Whether queued requests remain that only another `place` will look at."""
        return False

    # --- Invariants ------------------------------------------------------------------------------------------

    @abstractmethod
    def check_integrity(self, requests: Iterable[Request]) -> None:
        """Check queues and engines against `requests`, which are all there are. Raises `AssertionError`."""
