"""The clients of the benchmarks: whole programs and single calls are the same prompts, token for token."""

import json
from collections.abc import Callable
from typing import cast

import httpx
import pytest

from parrotserve.bench.clients import on_openai, on_parrot, step_by_step, whole
from parrotserve.bench.workload import Application, Call, Ref, Tool
from parrotserve.config import ServiceConfig
from parrotserve.embedded import EmbeddedTransport
from parrotserve.engines.base import Fill, Open
from parrotserve.engines.fake import FakeEngine
from parrotserve.engines.fake_tokenizer import FakeTokenizer
from parrotserve.errors import EngineFailed, ServiceUnavailable
from parrotserve.ids import EngineId
from parrotserve.models.pull import Progress
from parrotserve.models.tokenizer import Tokenizer
from parrotserve.runtime.catalog import ServedModel, fake_model

CHAIN = Application(
    kind="chain",
    calls=(
        Call("first", ("Tell me. ", "Begin: "), 6),
        Call("second", ("Read ", Ref("first"), " and go on:"), 4),
        Tool("tool", ("first", "second"), "found", 0.001),
        Call("third", (Ref("first"), " + ", Ref("second"), " + ", Ref("tool"), ":"), 3),
    ),
    results=("third",),
)
SAID = {"Tell": "abcdef", "Read": "wxyz", "abcdef + wxyz + found": "end"}


class Listening(FakeEngine):
    """Keeps the token ids of every prompt."""

    prompts: list[tuple[int, ...]]

    async def send(self, commands):  # type: ignore[no-untyped-def]
        for command in commands:
            if isinstance(command, Open):
                fill = command.segments[0]
                assert isinstance(fill, Fill)
                self.prompts.append(fill.tokens or ())
        await super().send(commands)


async def prompts_on_parrot(client: Callable[[EmbeddedTransport], object]) -> list[tuple[int, ...]]:
    heard: list[tuple[int, ...]] = []

    def make(engine: EngineId) -> FakeEngine:
        made = Listening(engine, script=SAID)
        made.prompts = heard
        return made

    def load(name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
        return fake_model(make, name=name)

    # Prompts that run ahead come in parts, in the end the same ones (tests/unit/runtime/test_runtime_ahead.py).
    transport = EmbeddedTransport(ServiceConfig(models=("fake",), without=("ahead",)), load=load)
    await transport.open()
    try:
        await client(transport)(CHAIN)  # type: ignore[operator]
    finally:
        await transport.close()
    return heard


def openai(answer: Callable[[dict[str, object]], httpx.Response]):  # type: ignore[no-untyped-def]
    wire = httpx.MockTransport(lambda request: answer(json.loads(request.content)))
    client = httpx.AsyncClient(transport=wire, base_url="http://peer")
    return step_by_step(on_openai(client, "m", cast("Tokenizer", FakeTokenizer()), delay=0.0))


def completion(text: str, tokens: int) -> httpx.Response:
    return httpx.Response(200, json={"choices": [{"text": text}], "usage": {"completion_tokens": tokens}})


async def test_all_clients_send_the_same_token_ids():
    heard: list[tuple[int, ...]] = []

    def answer(body: dict[str, object]) -> httpx.Response:
        prompt = tuple(cast("list[int]", body["prompt"]))
        heard.append(prompt)
        assert body["ignore_eos"] is True
        assert body["temperature"] == 0
        text = next(said for key, said in SAID.items() if key in FakeTokenizer().decode(prompt))
        return completion(f" {text}", cast("int", body["max_tokens"]))

    await openai(answer)(CHAIN)
    program = await prompts_on_parrot(whole)
    single = await prompts_on_parrot(lambda transport: step_by_step(on_parrot(transport)))
    assert heard == program == single
    assert FakeTokenizer().decode(heard[2]) == "abcdef + wxyz + found:"


async def test_a_peer_that_writes_less_than_asked_is_not_a_result():
    with pytest.raises(ExceptionGroup) as raised:
        await openai(lambda body: completion("abc", 2))(CHAIN)
    assert raised.group_contains(EngineFailed, match="2 tokens came where 6")


async def test_a_peer_that_refuses_is_named():
    with pytest.raises(ExceptionGroup) as raised:
        await openai(lambda body: httpx.Response(500))(CHAIN)
    assert raised.group_contains(ServiceUnavailable, match="http://peer")
