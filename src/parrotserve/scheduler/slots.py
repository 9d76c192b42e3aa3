"""The naive scheduler's picture of an engine: what it can take, and what was placed on it."""

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
    """It is being emptied for a suspect, or runs one: nothing else is placed there."""

    @property
    def id(self) -> EngineId:
        return self.description.engine

    @property
    def free(self) -> int:
        """How many more requests it takes."""
        return 0 if self.reserved else self.description.credits - len(self.running)
