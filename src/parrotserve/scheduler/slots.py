"""The scheduler's picture of an engine: what it can take, and what was placed on it."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSnapshot:
    """An engine as the scheduler sees it."""

    id: EngineId
    model: str
    context_length: int
    cache_tokens: int
    credits: int
    running: tuple[RequestId, ...]
    reserved: bool
    """It is kept for a suspect alone."""

    @classmethod
    def of(cls, description: EngineJoined, running: tuple[RequestId, ...], *, reserved: bool) -> "EngineSnapshot":
        """An engine that was described so, and runs these."""
        return cls(
            id=description.engine,
            model=description.model,
            context_length=description.context_length,
            cache_tokens=description.cache_tokens,
            credits=description.credits,
            running=running,
            reserved=reserved,
        )
