"""Random graphs on an engine whose cache holds little more than one request: every one finishes."""

import asyncio
import dataclasses
import random
from pathlib import Path

import pytest
from tiny_model import write_tiny_model

from parrotserve.config import ServiceConfig
from parrotserve.engines.base import Engine
from parrotserve.engines.native.build import page_bytes
from parrotserve.engines.native.engine import NativeEngine
from parrotserve.engines.native.settings import PAGE_TOKENS, BackendName, NativeSettings
from parrotserve.ids import EngineId, SessionId
from parrotserve.models.config import load_config
from parrotserve.models.pull import Progress
from parrotserve.protocol import (
    InputSegment,
    OutputSegment,
    RequestSpec,
    Submit,
    TextSegment,
    Value,
    VariableSpec,
    WaitSpec,
)
from parrotserve.runtime.catalog import ServedModel, fake_model
from parrotserve.runtime.service import Service
from parrotserve.sampling import Sampling

LONGEST = 160
"""Tokens (bytes) of the longest request; the cache holds 1.2 times as many."""
GRAPHS = 40


def random_graph(seed: int) -> Submit:
    """Up to six requests, each reading earlier outputs, all within `LONGEST` tokens."""
    draw = random.Random(seed)
    names = [f"g{seed}.{index}" for index in range(draw.randint(1, 6))]
    requests: list[RequestSpec] = []
    for index, name in enumerate(names):
        read = draw.sample(names[:index], k=min(index, draw.randint(0, 2)))
        segments = [
            TextSegment(text=draw.choice(["a shared beginning of prompts. ", "another one: "])),
            *(InputSegment(variable=one) for one in read),
            OutputSegment(variable=name, sampling=Sampling(max_tokens=draw.randint(1, 40), seed=seed, temperature=0.7)),
        ]
        requests.append(RequestSpec(id=f"r.{name}", function="Step", chat=False, segments=tuple(segments)))
    return Submit(
        session=f"s{seed}",
        variables=tuple(VariableSpec(id=name) for name in names),
        requests=tuple(requests),
        wait=tuple(WaitSpec(variable=name) for name in names),
    )


async def run(service: Service, graph: Submit) -> dict[str, str]:
    values = {event.variable: event.value async for event in service.submit(graph) if isinstance(event, Value)}
    service.end_session(SessionId(graph.session))
    return values


@pytest.mark.parametrize("backend", [BackendName.REFERENCE, BackendName.AUTO])
async def test_a_cache_with_room_for_little_more_than_one_request_finishes_every_graph(
    tmp_path: Path, backend: BackendName, caplog: pytest.LogCaptureFixture
):
    files = write_tiny_model(tmp_path)
    pages = -(-LONGEST * 12 // 10 // PAGE_TOKENS)
    settings = NativeSettings(kv_bytes=pages * page_bytes(backend, load_config(files)), backend=backend, threads=1)

    def make(engine: EngineId) -> Engine:
        return NativeEngine(engine, "tiny", files, settings)

    def load(name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
        return dataclasses.replace(fake_model(name="tiny"), context_length=LONGEST, make_engine=make)

    service = await Service.start(ServiceConfig(models=("tiny",), kv_memory=1 << 20), load=load)
    try:
        await service.wait_started()
        (warning,) = [record.getMessage() for record in caplog.records if "raise kv_memory" in record.getMessage()]
        assert f"holds {pages * PAGE_TOKENS} tokens" in warning
        graphs = [random_graph(seed) for seed in range(GRAPHS)]
        results = await asyncio.gather(*(run(service, graph) for graph in graphs))
    finally:
        await service.close()
    for graph, values in zip(graphs, results, strict=True):
        assert set(values) == {wait.variable for wait in graph.wait}
