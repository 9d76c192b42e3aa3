"""Handling an event costs what it changes, however much waits: counted in lines executed, not in time."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from machine_world import World

from parrotserve.errors import EngineFailed
from parrotserve.graph.events import Ticked


def lines_of(act: Callable[[World], object], world: World) -> int:
    """How many lines the machine executes."""
    executed = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal executed
        if "parrotserve" not in frame.f_code.co_filename:
            return None
        executed += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act(world)
    finally:
        sys.settrace(before)
    return executed


def busy(size: int) -> World:
    """A machine with `size` queued requests, as many in a waiting chain, and as many sessions."""
    world = World("e", "f", places=4, check=False)
    world.submit(*(f"q{n}: -> x{n}" for n in range(size)))
    world.submit(*(f"c{n}: v{n} -> v{n + 1}" for n in range(size)), waits=[f"v{size}"])
    world.submit(calls=["once: -> o", "other: -> p"])
    for number in range(size):
        world.submit(session=f"s{number}")
    return world


EVENTS: dict[str, Callable[[World], object]] = {
    "submitting": lambda world: world.submit("new: x1 -> z", waits=["z"]),
    "submitting onto the end of the chain": lambda world: world.submit("onto: v200 -> w"),
    "waiting": lambda world: world.wait("x100"),
    "waiting in a chain that was walked": lambda world: world.wait("v150"),
    "setting": lambda world: world.set("v0"),
    "producing": lambda world: world.produce("q0", "x0"),
    "ending": lambda world: world.run("q0"),
    "failing": lambda world: world.end("q1", EngineFailed("boom")),
    "cancelling what is queued": lambda world: world.cancel("x100"),
    "cancelling what runs": lambda world: world.cancel("x2"),
    "losing an engine": lambda world: world.lose("e"),
    "an engine joining": lambda world: world.join("g", places=4),
    "touching": lambda world: world.touch(attached=1),
    "a tick": lambda world: world.handle(Ticked()),
    "a native call": lambda world: world.answer("once", "1"),
    "ending another session": lambda world: world.end_session("s7"),
    "looking at one variable": lambda world: world.machine.variable_state("s", "t", "x1"),
}


@pytest.fixture(scope="module")
def costs() -> dict[str, tuple[int, int]]:
    """What each event costs with little and with much around it."""
    few, many = ({name: lines_of(event, world) for name, event in EVENTS.items()}
                 for world in (busy(201), busy(1500)))  # fmt: skip
    return {name: (few[name], many[name]) for name in EVENTS}


@pytest.mark.parametrize("event", EVENTS)
def test_what_waits_elsewhere_costs_nothing(costs: dict[str, tuple[int, int]], event: str):
    few, many = costs[event]
    assert 0 < many <= few * 1.2 + 20
