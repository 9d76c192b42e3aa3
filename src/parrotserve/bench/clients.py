"""Ways to run an application: as one program that the service sees whole, or call by call, as clients do today."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import httpx

from parrotserve.bench.workload import Application, Call, Ref, Tool
from parrotserve.errors import EngineFailed, ServiceUnavailable, UnknownObject
from parrotserve.ids import SessionId, new_id
from parrotserve.models.prompt import PromptTokenizer
from parrotserve.models.tokenizer import Tokenizer
from parrotserve.protocol import (
    CallOffer,
    CallResult,
    CallSpec,
    Failure,
    InputSegment,
    OutputSegment,
    RequestSpec,
    Submit,
    TextSegment,
    Value,
    VariableSpec,
    WaitSpec,
    WireSegment,
)
from parrotserve.sampling import FinishReason, Sampling
from parrotserve.sdk.transport import Transport

_RETRY_SECONDS = 0.005

Runner = Callable[[Application], Awaitable[None]]
"""Runs an application until all of its results are there."""


@dataclass(frozen=True, slots=True)
class Text:
    """A part of a prompt; `value` marks the output of an earlier call."""

    text: str
    value: bool


Complete = Callable[[Sequence[Text], int], Awaitable[str]]
"""Generates a number of tokens for one prompt, in one exchange."""


def whole(transport: Transport) -> Runner:
    """Runs an application as one `Submit`, so that the service knows its dataflow."""

    async def run(application: Application) -> None:
        session = new_id("s")
        ids = {call.name: new_id("v") for call in application.calls}
        tools = {one.name: one for one in application.calls if isinstance(one, Tool)}
        body = Submit(
            session=session,
            variables=tuple(VariableSpec(id=variable, name=name) for name, variable in ids.items()),
            requests=tuple(
                RequestSpec(id=new_id("r"), function=call.name, chat=False, segments=tuple(_segments(call, ids)))
                for call in application.calls
                if isinstance(call, Call)
            ),
            calls=tuple(_native_call(tool, ids) for tool in tools.values()),
            wait=tuple(WaitSpec(variable=ids[name], criteria=application.criteria) for name in application.results),
        )
        if not tools:
            await _values(transport, body)
            return
        async with asyncio.TaskGroup() as group:
            answering = group.create_task(_answer(transport, SessionId(session), tools))
            await _values(transport, body)
            answering.cancel()

    return run


async def _answer(transport: Transport, session: SessionId, tools: Mapping[str, Tool]) -> None:
    """Runs a session's native calls, as a client's process would, until it is cancelled."""

    async def run(offer: CallOffer) -> None:
        tool = tools[offer.function]
        await asyncio.sleep(tool.seconds)
        await transport.put_result(session, offer.id, CallResult(value=tool.result))

    async with asyncio.TaskGroup() as group:
        while True:
            try:
                async for offer in transport.calls(session):
                    group.create_task(run(offer))
            except UnknownObject:  # the session's `Submit` has not arrived yet
                await asyncio.sleep(_RETRY_SECONDS)


def step_by_step(complete: Complete) -> Runner:
    """Runs an application as a client program: each call is sent once the client has the outputs that it reads."""

    async def run(application: Application) -> None:
        outputs: dict[str, asyncio.Task[str]] = {}

        async def produce(call: Call | Tool) -> str:
            values = {name: await outputs[name] for name in call.needs}
            if isinstance(call, Tool):
                await asyncio.sleep(call.seconds)
                return call.result
            parts = [
                Text(values[part.call], value=True) if isinstance(part, Ref) else Text(part, value=False)
                for part in call.parts
            ]
            return await complete(parts, call.tokens)

        async with asyncio.TaskGroup() as group:
            for call in application.calls:
                outputs[call.name] = group.create_task(produce(call))

    return run


def on_parrot(transport: Transport) -> Complete:
    """Single requests to a Parrot service."""

    async def complete(parts: Sequence[Text], tokens: int) -> str:
        variables: list[VariableSpec] = []
        segments: list[WireSegment] = []
        for part in parts:
            if part.value:
                variables.append(VariableSpec(id=new_id("v"), value=part.text))
                segments.append(InputSegment(variable=variables[-1].id))
            else:
                segments.append(TextSegment(text=part.text))
        output = new_id("v")
        segments.append(_output(output, tokens))
        request = RequestSpec(id=new_id("r"), chat=False, segments=tuple(segments))
        body = Submit(
            session=new_id("s"),
            variables=(*variables, VariableSpec(id=output)),
            requests=(request,),
            wait=(WaitSpec(variable=output),),
        )
        return (await _values(transport, body))[output]

    return complete


def on_openai(client: httpx.AsyncClient, model: str, tokenizer: Tokenizer, *, delay: float) -> Complete:
    """Single requests to an OpenAI-compatible server, with the token ids that Parrot makes of the same prompt."""

    async def complete(parts: Sequence[Text], tokens: int) -> str:
        prompt = PromptTokenizer(tokenizer)
        ids = [token for part in parts for token in prompt.text(part.text)] + prompt.before_output()
        body = {"model": model, "prompt": ids, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        await asyncio.sleep(delay)
        try:
            answer = await client.post("/v1/completions", json=body)
            answer.raise_for_status()
            said = cast("dict[str, Any]", answer.json())
        except (httpx.HTTPError, ValueError) as error:
            raise ServiceUnavailable(f"{client.base_url}: {type(error).__name__}: {error}") from error
        if said["usage"]["completion_tokens"] != tokens:
            raise EngineFailed(f"{said['usage']['completion_tokens']} tokens came where {tokens} were asked for.")
        return str(said["choices"][0]["text"]).removeprefix(" ")

    return complete


def _segments(call: Call, ids: dict[str, str]) -> list[WireSegment]:
    segments: list[WireSegment] = [
        InputSegment(variable=ids[part.call]) if isinstance(part, Ref) else TextSegment(text=part)
        for part in call.parts
    ]
    return [*segments, _output(ids[call.name], call.tokens)]


def _native_call(tool: Tool, ids: dict[str, str]) -> CallSpec:
    reads = tuple(ids[name] for name in tool.reads)
    return CallSpec(id=new_id("c"), function=tool.name, inputs=reads, output=ids[tool.name])


def _output(variable: str, tokens: int) -> OutputSegment:
    return OutputSegment(variable=variable, sampling=Sampling(max_tokens=tokens, ignore_eos=True))


async def _values(transport: Transport, body: Submit) -> dict[str, str]:
    """The values that a batch waits for. Raises the error of any that fails, and `EngineFailed` if one is too short."""
    found: dict[str, str] = {}
    async with contextlib.aclosing(transport.submit(body)) as events:  # pyright: ignore[reportArgumentType]
        async for event in events:
            if isinstance(event, Failure):
                raise event.error.to_error()
            if isinstance(event, Value):
                if event.reason is not FinishReason.LENGTH:
                    raise EngineFailed(f"An output ended before its length: {event.reason}.")
                found[event.variable] = event.value
    return found
