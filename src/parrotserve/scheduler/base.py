"""What the machine asks of a scheduler: where and when requests run."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

from parrotserve.graph.events import EngineJoined
from parrotserve.graph.objects import Request
from parrotserve.ids import EngineId, RequestId
from parrotserve.scheduler.slots import EngineSnapshot


class Scheduler(ABC):
    """Queued requests, engines, and who runs where."""

    # --- What happens ----------------------------------------------------------------------------------------

    @abstractmethod
    def join(self, description: EngineJoined) -> None:
        """There is a new engine."""

    @abstractmethod
    def lose(self, engine: EngineId) -> list[Request]:
        """An engine is gone: the requests that ran there. None if it was not known."""

    @abstractmethod
    def queue(self, request: Request) -> None:
        """A request waits for an engine."""

    @abstractmethod
    def unqueue(self, request: Request) -> None:
        """A request no longer waits."""

    @abstractmethod
    def free(self, engine: EngineId, request: RequestId) -> None:
        """An engine no longer runs a request."""

    # --- What is decided -------------------------------------------------------------------------------------

    @abstractmethod
    def place(self) -> list[tuple[Request, EngineId]]:
        """Every queued request that can run now, with the engine that is to run it."""

    # --- What can be seen ------------------------------------------------------------------------------------

    @abstractmethod
    def waiting(self, model: str) -> int:
        """How many requests wait for an engine of a model."""

    @abstractmethod
    def engines(self) -> tuple[EngineSnapshot, ...]:
        """All engines, in the order they joined."""

    @abstractmethod
    def check_integrity(self, requests: Iterable[Request]) -> None:
        """Compare queues and engines with these requests, all there are. Raises `AssertionError`."""
