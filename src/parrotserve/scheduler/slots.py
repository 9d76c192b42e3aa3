"""The naive scheduler's model of an engine: its capacity, and the requests placed on it."""

from dataclasses import dataclass, field

from parrotserve.graph.events import EngineJoined
from parrotserve.graph.objects import Request
from parrotserve.ids import EngineId, RequestId


@dataclass(slots=True, eq=False)
class EngineSlot:
    """One engine."""

    description: EngineJoined
    running: dict[RequestId, Request] = field(default_factory=dict[RequestId, Request])
    reserved: bool = False
    """Whether it is being emptied for a suspect, or is running one: nothing else is placed there."""

    @property
    def id(self) -> EngineId:
        return self.description.engine

    @property
    def free(self) -> int:
        """Number of further requests that it takes."""
        return 0 if self.reserved else self.description.credits - len(self.running)
