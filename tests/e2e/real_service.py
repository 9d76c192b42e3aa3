"""A service of the real model in this process, its engines within reach of a test that harms or counts them."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from parrotserve.config import ServiceConfig
from parrotserve.engines.process import ProcessEngine
from parrotserve.ids import EngineId
from parrotserve.models.pull import Progress
from parrotserve.protocol import OutputSegment, RequestSpec, Submit, TextSegment, VariableSpec, WaitSpec
from parrotserve.runtime.catalog import ServedModel, load_model
from parrotserve.runtime.service import Service
from parrotserve.sampling import Sampling


@dataclasses.dataclass(frozen=True, slots=True)
class RealService:
    service: Service
    engines: list[ProcessEngine]
    """Every engine that was ever started, the one that runs last."""


@asynccontextmanager
async def real_service(**settings: Any) -> AsyncIterator[RealService]:
    engines: list[ProcessEngine] = []

    def load(name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
        model = load_model(name, config, progress)

        def make(engine: EngineId) -> ProcessEngine:
            made = model.make_engine(engine)
            assert isinstance(made, ProcessEngine)
            engines.append(made)
            return made

        return dataclasses.replace(model, make_engine=make)

    service = await Service.start(ServiceConfig(**settings), load=load)
    try:
        await service.wait_started()
        yield RealService(service, engines)
    finally:
        await service.close()


def program(session: str, *prompts: str, stream: bool = True, **sampling: Any) -> Submit:
    """One request whose prompts are each followed by an output, all of them waited for."""
    outputs = [f"{session}.{index}" for index in range(len(prompts))]
    segments = [
        segment
        for prompt, output in zip(prompts, outputs, strict=True)
        for segment in (TextSegment(text=prompt), OutputSegment(variable=output, sampling=Sampling(**sampling)))
    ]
    return Submit(
        session=session,
        variables=tuple(VariableSpec(id=output) for output in outputs),
        requests=(RequestSpec(id=f"{session}.request", function="Tell", segments=tuple(segments)),),
        wait=tuple(WaitSpec(variable=output, stream=stream) for output in outputs),
    )
