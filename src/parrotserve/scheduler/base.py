"""What the machine asks of a scheduler: where and when requests run."""

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
    """A queued request is to run."""

    request: Request
    placement: Placement
    precedence: Precedence = NO_PRECEDENCE
    """Among the engine's requests of one objective."""


@dataclass(frozen=True, slots=True)
class Paused:
    """A running request is to make room."""

    request: Request


@dataclass(frozen=True, slots=True)
class Resumed:
    """A paused request is to go on."""

    request: Request


@dataclass(frozen=True, slots=True)
class Ahead:
    """Where a request runs ahead from now on, and which other one no longer does, for there was no other place."""

    engine: EngineId
    instead_of: Request | None = None


@dataclass(frozen=True, slots=True)
class ReadNoMore:
    """A request that runs ahead is to do so no more, for another one is to be alone there."""

    request: Request


@dataclass(frozen=True, slots=True)
class Retained:
    """An engine is to keep what this request, which is still to run, begins with, up to so many segments."""

    request: Request
    engine: EngineId
    key: str
    segments: int


@dataclass(frozen=True, slots=True)
class Released:
    """That is over: `request` was the last one."""

    request: Request
    engine: EngineId
    key: str


Outcome = Placed | Paused | Resumed | ReadNoMore | Retained | Released


class Scheduler(ABC):
    """Queued requests, engines, and who runs where."""

    # --- What happens ----------------------------------------------------------------------------------------

    @abstractmethod
    def join(self, description: EngineJoined) -> None:
        """There is a new engine."""

    @abstractmethod
    def lose(self, engine: EngineId) -> list[Request]:
        """An engine is gone: the requests that ran there, or ran ahead. None if it was not known."""

    @abstractmethod
    def wait(self, request: Request) -> None:
        """A request waits for values: it came, or one more of them is known. What it begins with is worth keeping."""

    @abstractmethod
    def queue(self, request: Request) -> None:
        """A request waits for an engine."""

    @abstractmethod
    def unqueue(self, request: Request) -> None:
        """A request no longer waits."""

    @abstractmethod
    def run_ahead(self, request: Request, near: EngineId | None) -> Ahead | None:
        """Where a request that still waits for inputs runs ahead from now on: on this engine, or on any, where it is
        None, gone, or one of another model. None: nowhere."""

    @abstractmethod
    def free(self, engine: EngineId, request: RequestId, usage: Usage | None, now: float) -> None:
        """An engine no longer runs a request (ahead or not), which has used so much; None: it is yet to say so."""

    @abstractmethod
    def settle(self, request: RequestId, epoch: int, usage: Usage) -> None:
        """What a run used that was freed before that was known. Other runs than those are ignored."""

    @abstractmethod
    def reclassify(self, request: Request) -> Precedence | None:
        """A request that is queued, or runs, has another objective or task group. Gives its precedence on the engine
        where it runs, if it has one."""

    @abstractmethod
    def wrote(self, request: Request) -> None:
        """An output of a running request is known."""

    @abstractmethod
    def finish(self, request: Request, usage: Usage | None) -> None:
        """A request is over for good; `usage` is of its last run, if that made all of its outputs."""

    @abstractmethod
    def timed(self, event: StepsRun, now: float) -> None:
        """Steps of an engine took so long."""

    @abstractmethod
    def weigh(self, tenant: TenantId, weight: float) -> None:
        """A tenant's share is proportional to this from now on."""

    # --- What is decided -------------------------------------------------------------------------------------

    @abstractmethod
    def place(self, now: float) -> Sequence[Outcome]:
        """Every queued request that can run now, with the engine that is to run it, and what makes room for it."""

    @property
    def unfinished(self) -> bool:
        """Whether requests that were queued are still to be looked at, by another `place`."""
        return False

    # --- What always holds -----------------------------------------------------------------------------------

    @abstractmethod
    def check_integrity(self, requests: Iterable[Request]) -> None:
        """Compare queues and engines with these requests, all there are. Raises `AssertionError`."""
