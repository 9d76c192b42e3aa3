"""Optimisations change no result: random graphs with each of them on and off, on several engines."""

import asyncio
import dataclasses
import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tiny_model import write_tiny_model

from parrotserve.config import ServiceConfig
from parrotserve.criteria import Criteria
from parrotserve.engines.base import Engine
from parrotserve.engines.fake import FakeEngine
from parrotserve.engines.native.engine import NativeEngine
from parrotserve.engines.native.kernels import variants
from parrotserve.engines.native.settings import BackendName, NativeSettings
from parrotserve.ids import EngineId, SessionId
from parrotserve.models.pull import Progress
from parrotserve.protocol import (
    InputSegment,
    OutputSegment,
    RequestSpec,
    RequestView,
    Submit,
    TextSegment,
    Value,
    VariableSpec,
    WaitSpec,
    WireTransform,
)
from parrotserve.runtime.catalog import ServedModel, fake_model
from parrotserve.runtime.service import Service
from parrotserve.sampling import Sampling

BEGINNINGS = ("You are a careful reader of long texts. " * 8, "You write short and plain sentences. " * 8, "Say ")
WITHOUT = [(), ("ahead",), ("prefix", "groups"), ("fairness", "preemption"), ("objectives",)]


def random_graph(seed: int, size: int, *, tokens: int, beginnings: tuple[str, ...] = BEGINNINGS) -> Submit:
    """Requests that read some earlier outputs, of which some are waited for, one way or the other."""
    draw = random.Random(seed)
    names = [f"g{seed}.{index}" for index in range(size)]
    requests: list[RequestSpec] = []
    for index, name in enumerate(names):
        recent = names[max(0, index - 12) : index]
        read = draw.sample(recent, k=min(len(recent), draw.choice([0, 1, 1, 2])))
        ways = [(), (), (), (WireTransform(name="strip"),), (WireTransform(name="lines", args=(1, 2)),)]
        segments = [
            TextSegment(text=draw.choice(beginnings)),
            *(InputSegment(variable=one, transforms=draw.choice(ways)) for one in read),
            TextSegment(text=f" Part {index}: "),
            OutputSegment(variable=name, sampling=Sampling(max_tokens=draw.randint(1, tokens), seed=seed)),
        ]
        requests.append(RequestSpec(id=f"r.{name}", function=f"Step{index % 5}", chat=False, segments=tuple(segments)))
    waits = tuple(
        WaitSpec(variable=name, criteria=draw.choice(list(Criteria)), stream=draw.random() < 0.2) for name in names
    )
    variables = tuple(VariableSpec(id=name) for name in names)
    return Submit(session=f"s{seed}", variables=variables, requests=tuple(requests), wait=waits)


async def results(
    graphs: list[Submit], make: Callable[[EngineId], Engine], *, context: int, without: tuple[str, ...]
) -> tuple[list[dict[str, str]], list[RequestView]]:
    """The values of all graphs, run at the same time, and how their requests ran."""

    def load(name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
        return dataclasses.replace(fake_model(name="tiny"), context_length=context, make_engine=make)

    async def run(graph: Submit) -> dict[str, str]:
        return {event.variable: event.value async for event in service.submit(graph) if isinstance(event, Value)}

    service = await Service.start(ServiceConfig(models=("tiny",), engines=2, without=without), load=load)
    try:
        await service.wait_started()
        values = await asyncio.gather(*map(run, graphs))
        views = [service.session_view(SessionId(graph.session)) for graph in graphs]
    finally:
        await service.close()
    return list(values), [one for view in views for one in view.requests]


def placed_by(requests: list[RequestView]) -> set[str]:
    return {one.placement.by for one in requests if one.placement is not None}


def engines(requests: list[RequestView]) -> int:
    return len({one.engine for one in requests})


def telling(prompt: str) -> str:
    """Words that depend on the whole prompt, so that another prompt would show."""
    digest = hashlib.sha256(prompt.encode()).hexdigest()
    return " ".join(digest[place : place + 5] for place in range(0, 60, 5)) * (1 + int(digest[0], 16) // 4)


async def test_graphs_of_up_to_two_hundred_requests_give_the_same_whatever_is_off():
    def make(engine: EngineId) -> Engine:
        return FakeEngine(engine, script=telling, max_running=8, credits=24, context_length=4096)

    graphs = [random_graph(seed, size, tokens=200) for seed, size in ((1, 200), (2, 60), (3, 9))]
    expected, naive = await results(graphs, make, context=4096, without=("all",))
    assert [len(values) for values in expected] == [200, 60, 9]
    assert placed_by(naive) == {"arrival"}
    for without in WITHOUT:
        values, requests = await results(graphs, make, context=4096, without=without)
        assert values == expected, without
        assert engines(requests) == 2
        assert placed_by(requests) & {"arrival", "harm"} == {"harm"}  # what else decides depends on when engines answer


@pytest.mark.skipif(not variants(), reason="only the compiled backend's results do not depend on the batch")
async def test_two_native_engines_give_the_same_whatever_is_off(tmp_path: Path):
    files = write_tiny_model(tmp_path)
    settings = NativeSettings(backend=BackendName.KERNELS, threads=1, max_running=4, credits=32, speculate=False)

    def make(engine: EngineId) -> Engine:
        return NativeEngine(engine, "tiny", files, settings)

    def make_speculating(engine: EngineId) -> Engine:
        return NativeEngine(engine, "tiny", files, msgspec.structs.replace(settings, speculate=True))

    short = tuple(beginning[:100] for beginning in BEGINNINGS)
    graphs = [random_graph(seed, 8, tokens=80, beginnings=short) for seed in range(6)]
    expected, _ = await results(graphs, make, context=512, without=("all",))
    assert all(len(values) == 8 for values in expected)
    for without in [(), ("ahead",)]:
        values, requests = await results(graphs, make_speculating, context=512, without=without)
        assert values == expected, without
        assert engines(requests) == 2
        assert ("ahead" in placed_by(requests)) == (not without)
