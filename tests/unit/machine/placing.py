"""Requests to be placed, and what became of them."""

from collections.abc import Iterable

from machine_world import World, asked, only

from parrotserve.criteria import Criteria
from parrotserve.graph.decisions import (
    Decision,
    OpenSequence,
    PauseSequence,
    ResumeSequence,
)
from parrotserve.graph.events import NewRequest, StepsRun
from parrotserve.graph.placements import PlacedBy
from parrotserve.ids import EngineId, RequestId, VariableId
from parrotserve.sampling import Sampling
from parrotserve.segments import Input, Output, Text

POEM = "You write poems in the manner of the old masters. " * 40
CODE = "You are an expert in every programming language. " * 40


def asking(name: str, *parts: str, reads: Iterable[str] = (), tokens: int = 20) -> NewRequest:
    """A request of constant texts, then inputs, then one output that has the request's name behind `o-`."""
    segments = (*map(Text, parts), *(Input(VariableId(one)) for one in reads))
    output = Output(VariableId(f"o-{name}"), Sampling(seed=0, max_tokens=tokens, ignore_eos=True))
    return NewRequest(id=RequestId(name), function="f", model="m", segments=(*segments, output))


def places(decisions: list[Decision]) -> dict[str, str]:
    return {one.request: one.engine for one in only(decisions, OpenSequence)}


def paused(decisions: list[Decision]) -> list[str]:
    return [one.request for one in only(decisions, PauseSequence)]


def resumed(decisions: list[Decision]) -> list[str]:
    return [one.request for one in only(decisions, ResumeSequence)]


def by(world: World, request: str) -> PlacedBy:
    placement = world.machine.request(RequestId(request)).placement
    assert placement is not None
    return placement.by


def waits(*names: str, criteria: Criteria = Criteria.LATENCY) -> list[object]:
    return [asked(f"o-{name}", criteria) for name in names]


def two_engines(**fields: object) -> World:
    world = World()
    for engine in ("e", "f"):
        world.join(engine, **fields)
    return world


def steps(world: World, engine: str = "e", *, rows: int = 4, seconds: float = 0.1) -> list[Decision]:
    world.now += seconds
    return world.handle(
        StepsRun(engine=EngineId(engine), steps=1, prefill_tokens=0, decode_rows=rows, kv_tokens=100, attended=100,
                 seconds=seconds)
    )  # fmt: skip
