"""A service in memory: a `Transport` with scripted outputs that keeps the graph's rules. No sockets, no clocks."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field

from parrotserve.errors import (
    AlreadyProduced,
    Cancelled,
    InvalidGraph,
    NativeCallFailed,
    ParrotError,
    ServiceUnavailable,
    TooLarge,
    UnknownObject,
)
from parrotserve.ids import CallId, SessionId, VariableId
from parrotserve.protocol import (
    Accepted,
    CallOffer,
    CallResult,
    CallSpec,
    CallState,
    Delta,
    ErrorBody,
    Failure,
    InputSegment,
    OutputSegment,
    RequestSpec,
    SessionView,
    Submit,
    TextSegment,
    Value,
    VariableEvent,
    VariableView,
    WaitSpec,
)
from parrotserve.sampling import FinishReason
from parrotserve.sdk.loop import background


@dataclass
class Slot:
    """A variable."""

    name: str | None
    value: str | None = None
    error: ParrotError | None = None
    text: str = ""
    producer: str | None = None

    @property
    def settled(self) -> bool:
        return self.value is not None or self.error is not None

    @property
    def state(self) -> str:
        if self.value is not None:
            return "ready"
        if self.error is not None:
            return "cancelled" if isinstance(self.error, Cancelled) else "failed"
        return "producing" if self.producer else "empty"


@dataclass
class FakeService:
    """Outputs are `<name>` unless `script` says otherwise: a text, a function of the inputs' texts, or an error.

    Functions named in `held` produce nothing until `release`d. `down` is raised by everything.
    """

    script: dict[str, str | Callable[..., str] | ParrotError] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    refused: dict[str, ParrotError] = field(default_factory=dict)
    """By function: submits with a call of it are refused."""
    most_requests: int | None = None
    """Submits that would bring more into the session are refused."""
    down: ParrotError | None = None
    fragile: int = 0
    """The submit of this number, from 1, finds nobody there."""
    submits: list[Submit] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    results: dict[str, CallResult] = field(default_factory=dict)
    slots: dict[str, Slot] = field(default_factory=dict)
    requests: dict[str, RequestSpec] = field(default_factory=dict)
    native: dict[str, CallSpec] = field(default_factory=dict)
    offered: set[str] = field(default_factory=set)
    attempts: dict[str, int] = field(default_factory=dict)
    """Of native calls that were retried."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    # --- Transport ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        self.log.append("open")

    async def close(self) -> None:
        self.log.append("close")

    async def submit(self, body: Submit) -> AsyncGenerator[VariableEvent, None]:
        self.submits.append(body)
        if len(self.submits) == self.fragile:
            raise ServiceUnavailable("Gone for a moment.")
        self._check(body)
        self._declare(body)
        yield Accepted(session=SessionId(body.session))
        waits = {wait.variable: wait for wait in body.wait}
        told = dict.fromkeys(waits, 0)
        while waits:
            for wait in list(waits.values()):
                for event in self._news(wait, told):
                    if not isinstance(event, Delta):
                        del waits[wait.variable]
                    yield event
            if waits:
                await self._change()

    async def stream(
        self, session: SessionId, variable: VariableId, offset: int
    ) -> AsyncGenerator[VariableEvent, None]:
        told = {variable: offset}
        wait = WaitSpec(variable=variable, stream=True)
        while True:
            for event in self._news(wait, told):
                yield event
                if not isinstance(event, Delta):
                    return
            await self._change()

    async def set_value(self, session: SessionId, variable: VariableId, value: str) -> None:
        self.log.append(f"set {value}")
        if self.down is not None:
            raise self.down
        slot = self._slot(variable)
        if slot.settled and slot.value != value:
            raise AlreadyProduced("It has a value.")
        slot.value = value
        self._advance()

    async def retry(self, session: SessionId, variable: VariableId) -> None:
        self.log.append("retry")
        slot = self._slot(variable)
        slot.error = None
        if slot.producer in self.native:
            self.offered.discard(slot.producer)
            self.attempts[slot.producer] = self.attempts.get(slot.producer, 1) + 1
        self._advance()

    async def cancel(self, session: SessionId, variable: VariableId) -> None:
        self.log.append("cancel")
        self._slot(variable).error = Cancelled("Somebody cancelled it.")
        self._advance()

    async def end_session(self, session: SessionId) -> None:
        self.log.append("end")

    async def session_view(self, session: SessionId) -> SessionView:
        self.log.append("view")
        variables = tuple(
            VariableView(
                id=VariableId(name),
                name=slot.name,
                state=slot.state,
                producer=slot.producer,
                value=slot.value,
                error=None,
            )
            for name, slot in self.slots.items()
        )
        return SessionView(id=session, lease_seconds=30, variables=variables, requests=(), calls=())

    async def calls(self, session: SessionId) -> AsyncGenerator[CallOffer, None]:
        self.log.append("calls")
        while True:
            for call in self.native.values():
                inputs = [self.slots[name].value for name in call.inputs]
                texts = tuple(text for text in inputs if text is not None)
                if call.sandbox is None and call.id not in self.offered and len(texts) == len(inputs):
                    self.offered.add(call.id)
                    attempt = self.attempts.get(call.id, 1)
                    yield CallOffer(id=CallId(call.id), function=call.function, inputs=texts, attempt=attempt)
            await self._change()

    async def put_result(
        self, session: SessionId, call: CallId, result: CallResult, *, attempt: int | None = None
    ) -> CallState:
        slot = self.slots[self.native[call].output]
        if not slot.settled and attempt in (None, self.attempts.get(call, 1)):
            self.results[call] = result
            if result.error is not None:
                slot.error = NativeCallFailed(result.error, upstream=call)  # as it is told of what reads it
            else:
                slot.value = result.value
            self._advance()
        return CallState(state={"ready": "done", "producing": "offered"}.get(slot.state, slot.state))

    # --- For tests, on any thread ---------------------------------------------------------------------------

    def release(self, function: str) -> None:
        """Let the requests of a function that was held produce."""

        async def act() -> None:
            self.held.discard(function)
            self._advance()

        background().call(act())

    def grow(self, name: str, text: str) -> None:
        """A variable's text grows."""

        async def act() -> None:
            slot = next(slot for slot in self.slots.values() if slot.name == name)
            slot.text += text
            self._advance()

        background().call(act())

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the service is about to see."""

        async def act() -> None:
            async with asyncio.timeout(10):
                while not condition():
                    await asyncio.sleep(0.001)

        background().call(act())

    @property
    def waits(self) -> list[list[str | None]]:
        """Names of the variables that each submit waited for."""
        return [[self.slots[wait.variable].name for wait in body.wait] for body in self.submits]

    def functions(self, body: Submit) -> list[str]:
        """The functions that a submit calls."""
        return [spec.function for spec in (*body.requests, *body.calls)]

    # --- The graph ------------------------------------------------------------------------------------------

    def _check(self, body: Submit) -> None:
        if self.down is not None:
            raise self.down
        for spec in (*body.requests, *body.calls):
            if spec.function in self.refused:
                raise self.refused[spec.function]
        more = sum(request.id not in self.requests for request in body.requests)
        if self.most_requests is not None and more and more + len(self.requests) > self.most_requests:
            raise TooLarge(f"It has {len(self.requests)} and {more} are too many.", limit="session_requests")
        known = {*self.slots, *(variable.id for variable in body.variables)}
        for name in [*self._inputs(body), *(wait.variable for wait in body.wait)]:
            if name not in known:
                raise UnknownObject(f"There is no variable {name}.")

    def _inputs(self, body: Submit) -> Iterable[str]:
        for request in body.requests:
            yield from (segment.variable for segment in request.segments if isinstance(segment, InputSegment))
        for call in body.calls:
            yield from call.inputs

    def _declare(self, body: Submit) -> None:
        for variable in body.variables:
            self.slots.setdefault(variable.id, Slot(variable.name, variable.value))
        for request in body.requests:
            if request.id not in self.requests:
                self.requests[request.id] = request
                for segment in request.segments:
                    if isinstance(segment, OutputSegment):
                        self._produce(segment.variable, request.id)
        for call in body.calls:
            if call.id not in self.native:
                self.native[call.id] = call
                self._produce(call.output, call.id)
        self._advance()

    def _produce(self, variable: str, producer: str) -> None:
        slot = self.slots[variable]
        if slot.producer is not None:
            raise InvalidGraph("Two producers.")
        slot.producer = producer

    def _advance(self) -> None:
        """Run every request whose inputs are there."""
        while sum(map(self._run, self.requests.values())) + sum(map(self._run_here, self.native.values())):
            pass
        self.changed.set()
        self.changed = asyncio.Event()

    def _run(self, request: RequestSpec) -> bool:
        outputs = [self.slots[each.variable] for each in request.segments if isinstance(each, OutputSegment)]
        inputs = [self.slots[each.variable] for each in request.segments if isinstance(each, InputSegment)]
        open_outputs = [slot for slot in outputs if not slot.settled]
        if not open_outputs:
            return False
        failed = next((slot.error for slot in inputs if slot.error is not None), None)
        values = [slot.value for slot in inputs]
        if failed is None and (request.function in self.held or None in values):
            return False
        for slot in open_outputs:
            scripted = self.script.get(request.function, f"<{slot.name}>")
            if failed is not None or isinstance(scripted, ParrotError):
                slot.error = failed or (scripted if isinstance(scripted, ParrotError) else None)
            else:
                slot.value = scripted if isinstance(scripted, str) else scripted(*values)
        return True

    def _run_here(self, call: CallSpec) -> bool:
        """In the sandbox, of which this one knows results only."""
        slot = self.slots[call.output]
        ready = all(self.slots[name].value is not None for name in call.inputs)
        if call.sandbox is None or slot.settled or not ready:
            return False
        scripted = self.script.get(call.function, f"<{slot.name}>")
        assert isinstance(scripted, str)
        slot.value = scripted
        return True

    def _news(self, wait: WaitSpec, told: dict[str, int]) -> Iterable[VariableEvent]:
        slot, name = self.slots[wait.variable], VariableId(wait.variable)
        offset = told[wait.variable]
        if wait.stream and len(slot.text) > offset:
            told[wait.variable] = len(slot.text)
            yield Delta(variable=name, offset=offset, text=slot.text[offset:])
        if slot.value is not None:
            yield Value(variable=name, value=slot.value, reason=FinishReason.STOP if slot.producer else None)
        elif slot.error is not None:
            yield Failure(variable=name, error=ErrorBody.of(slot.error))

    async def _change(self) -> None:
        await self.changed.wait()

    def _slot(self, variable: str) -> Slot:
        if self.down is not None:
            raise self.down
        return self.slots[variable]


def prompt(service: FakeService, request: RequestSpec) -> str:
    """A request's text with `[name]` for inputs and `{name}` for outputs."""
    pieces: list[str] = []
    for segment in request.segments:
        match segment:
            case TextSegment():
                pieces.append(segment.text)
            case InputSegment():
                pieces.append(f"[{service.slots[segment.variable].value}]")
            case OutputSegment():
                pieces.append(f"{{{service.slots[segment.variable].name}}}")
            case _:
                pieces.append(f"({segment.role})")
    return "".join(pieces)
