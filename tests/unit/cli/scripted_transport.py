"""A service that answers with the events that a test lists, and a screen that keeps what it is told."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from parrotserve.errors import ParrotError
from parrotserve.protocol import (
    Accepted,
    CallSpec,
    Delta,
    ErrorBody,
    Failure,
    OutputSegment,
    RequestSpec,
    SessionView,
    Submit,
    Value,
    VariableEvent,
    VariableSpec,
    WaitSpec,
)
from parrotserve.sdk.transport import Transport

SESSION = "s-1"
ACCEPTED = Accepted(session=SESSION)


def delta(variable: str, offset: int, text: str) -> Delta:
    return Delta(variable=variable, offset=offset, text=text)


def value(variable: str, text: str, **fields: Any) -> Value:
    return Value(variable=variable, value=text, **fields)


def failure(variable: str, error: ParrotError) -> Failure:
    return Failure(variable=variable, error=ErrorBody.of(error))


def producing(*names: str, function: str = "write", wait: Iterable[WaitSpec] = ()) -> Submit:
    """A batch of one request that has these outputs."""
    request = RequestSpec(id="r-1", function=function, segments=tuple(OutputSegment(variable=name) for name in names))
    variables = tuple(VariableSpec(id=name, name=name.split("-")[0]) for name in names)
    return Submit(session=SESSION, variables=variables, requests=(request,), wait=tuple(wait))


def calling(output: str, function: str) -> Submit:
    """A batch of one native call."""
    call = CallSpec(id="c-1", function=function, inputs=(), output=output)
    return Submit(session=SESSION, variables=(VariableSpec(id=output, name=function),), calls=(call,))


class ScriptedTransport:
    """Answers submits and streams with the events that were scripted, pausing where the script says None."""

    def __init__(self) -> None:
        self.submits: list[Submit] = []
        self.calls: list[str] = []
        self.answers: list[list[VariableEvent | ParrotError | None]] = []
        self.streams: dict[tuple[str, int], list[VariableEvent | ParrotError | None]] = {}
        self.go_on = asyncio.Event()
        self.view = SessionView(id=SESSION, lease_seconds=30, variables=(), requests=(), calls=())

    async def submit(self, body: Submit) -> AsyncIterator[VariableEvent]:
        self.submits.append(body)
        async for event in self._play(self.answers.pop(0)):
            yield event

    def stream(self, _session: str, variable: str, offset: int) -> AsyncIterator[VariableEvent]:
        return self._play(self.streams[variable, offset])

    async def session_view(self, _session: str) -> SessionView:
        return self.view

    async def _play(self, script: Iterable[VariableEvent | ParrotError | None]) -> AsyncIterator[VariableEvent]:
        for event in script:
            if event is None:
                await self.go_on.wait()
            elif isinstance(event, ParrotError):
                raise event
            else:
                yield event

    def __getattr__(self, name: str) -> Any:
        assert name in vars(Transport), name

        async def act(*arguments: Any) -> None:
            self.calls.append(" ".join(map(str, (name, *arguments))))

        return act


class RecordingScreen:
    """Keeps titles, texts and ends."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def starting(self) -> None:
        self.log.append("starting")

    def declared(self, watched: Any) -> None:
        self.log.append(f"declared {watched.title}")

    def grew(self, watched: Any, text: str) -> None:
        self.log.append(f"{watched.title} + {text}")

    def settled(self, watched: Any) -> None:
        self.log.append(f"{watched.title} = {watched.value if watched.error is None else watched.error.code}")
