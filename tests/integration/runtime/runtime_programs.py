"""Small programs as the wire has them, reading their answers, and services to run them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from parrotserve.engines.fake import FakeEngine
from parrotserve.errors import ServiceUnavailable
from parrotserve.protocol import (
    Accepted,
    CallSpec,
    Delta,
    Failure,
    InputSegment,
    OutputSegment,
    RequestSpec,
    Submit,
    TextSegment,
    TokensSegment,
    Value,
    VariableEvent,
    VariableSpec,
    WaitSpec,
    WireTransform,
)
from parrotserve.runtime.keeper import KeeperPolicy
from parrotserve.runtime.service import Service
from parrotserve.sampling import Sampling
from parrotserve.store.journal import Journal

SESSION = "s-1"


def text(content: str) -> TextSegment:
    return TextSegment(text=content)


def taken(variable: str, *transforms: WireTransform) -> InputSegment:
    return InputSegment(variable=variable, transforms=transforms)


def made(variable: str, **sampling: Any) -> OutputSegment:
    return OutputSegment(variable=variable, sampling=Sampling(**sampling))


def request(
    name: str, *segments: TextSegment | TokensSegment | InputSegment | OutputSegment, **fields: Any
) -> RequestSpec:
    return RequestSpec(id=name, function=name, segments=segments, **fields)


def call(name: str, inputs: Iterable[str], output: str, timeout: float | None = None) -> CallSpec:
    return CallSpec(id=name, function=name, inputs=tuple(inputs), output=output, timeout=timeout)


def batch(
    *parts: RequestSpec | CallSpec | VariableSpec | WaitSpec, session: str = SESSION, lease: float = 30.0
) -> Submit:
    """A batch of these parts; every variable that an output or a call names, and no spec declares, is declared."""
    requests = tuple(part for part in parts if isinstance(part, RequestSpec))
    calls = tuple(part for part in parts if isinstance(part, CallSpec))
    variables = {part.id: part for part in parts if isinstance(part, VariableSpec)}
    outputs = [segment.variable for one in requests for segment in one.segments if isinstance(segment, OutputSegment)]
    for name in [*outputs, *(one.output for one in calls)]:
        variables.setdefault(name, VariableSpec(id=name, name=name))
    return Submit(
        session=session,
        lease_seconds=lease,
        variables=tuple(variables.values()),
        requests=requests,
        calls=calls,
        wait=tuple(part for part in parts if isinstance(part, WaitSpec)),
    )


def wait(variable: str, **fields: Any) -> WaitSpec:
    return WaitSpec(variable=variable, **fields)


class Answer:
    """What came for each variable."""

    def __init__(self) -> None:
        self.accepted = False
        self.streamed: dict[str, str] = {}
        self.values: dict[str, str] = {}
        self.failures: dict[str, Failure] = {}

    def take(self, event: VariableEvent) -> None:
        """Checks that deltas join without a gap, and that a value is what was streamed."""
        match event:
            case Accepted():
                assert not self.accepted
                self.accepted = True
            case Delta():
                so_far = self.streamed.setdefault(event.variable, "")
                assert event.offset == len(so_far)
                self.streamed[event.variable] = so_far + event.text
            case Value():
                self.values[event.variable] = event.value
                assert self.streamed.get(event.variable, event.value) == event.value
            case Failure():
                self.failures[event.variable] = event


async def answer(events: AsyncIterator[VariableEvent]) -> Answer:
    """All of it."""
    result = Answer()
    async for event in events:
        result.take(event)
    return result


HEARTBEAT = 0.05
SOON = KeeperPolicy(heartbeat=HEARTBEAT, first_backoff=0.001, longest_backoff=0.001)


@dataclass
class Staged:
    """A service and the engines that it has made so far, oldest first."""

    service: Service
    engines: list[FakeEngine] = field(default_factory=list)
    journal: Journal | None = None

    @property
    def engine(self) -> FakeEngine:
        """The latest."""
        return self.engines[-1]

    @property
    def ready(self) -> bool:
        """Whether the service says that it is ready."""
        try:
            self.service.check_ready()
        except ServiceUnavailable:
            return False
        return True

    async def close(self) -> None:
        await self.service.close()
        if self.journal is not None:
            await self.journal.close()


Stage = Callable[..., Awaitable[Staged]]
