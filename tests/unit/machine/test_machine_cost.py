"""Handling an event costs what it changes, however much waits: counted in lines executed, not in time."""

import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest
from machine_world import World, asked, request

from parrotserve.errors import EngineFailed
from parrotserve.graph.events import NewVariable, StepsRun, TenantWeighed, Ticked, Waited
from parrotserve.ids import VariableId
from parrotserve.sampling import Sampling
from parrotserve.segments import Text


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
}


def crowded(size: int, engines: int) -> World:
    """Engines that are full, and `size` queued requests of several tenants, of which some begin alike."""
    world = World(check=False)
    for number in range(engines):
        world.join(f"e{number}", batch=4, pauses=True, late=True)
    for number in range(size + 4 * engines):
        beginning = Text(f"You are assistant number {number % 10}. " * 20)
        made = request(f"r{number}: -> x{number}")
        spec = replace(made, segments=(beginning, Text(f"Question {number}?"), *made.segments))
        tenant = f"t{number % 3}"
        world.submit(spec, session=f"s-{tenant}", tenant=tenant)
    maps = [f"m{number}: -> y{number}" for number in range(size)]
    world.submit(*maps, f"reduce: {' '.join(f'y{number}' for number in range(size))} -> z")
    return world


CROWDED: dict[str, Callable[[World], object]] = {
    "ending": lambda world: world.run("r0"),
    "submitting throughput work": lambda world: world.submit("new: -> w"),
    "submitting what somebody waits for": lambda world: world.submit("now: -> n", waits=["n"]),
    "submitting a reader of what is being written": lambda world: world.submit("read: y0 -> q"),
    "a step": lambda world: world.handle(
        StepsRun(engine="e0", steps=1, prefill_tokens=0, decode_rows=4, kv_tokens=9, attended=9, seconds=0.1)
    ),
    "a weight": lambda world: world.handle(TenantWeighed("t1", 2.0)),
}


@pytest.fixture(scope="module")
def crowds() -> dict[str, tuple[int, int, int]]:
    """What each event costs with few waiting, with many, and with many engines."""
    worlds = crowded(100, 16), crowded(1000, 16), crowded(100, 128)
    found = [{name: lines_of(event, world) for name, event in CROWDED.items()} for world in worlds]
    return {name: (found[0][name], found[1][name], found[2][name]) for name in CROWDED}


@pytest.mark.parametrize("event", CROWDED)
def test_scheduling_costs_the_same_however_many_wait_and_however_many_engines_there_are(
    crowds: dict[str, tuple[int, int, int]], event: str
):
    few, many, wide = crowds[event]
    assert 0 < many <= few * 1.3 + 20
    assert 0 < wide <= few * 1.3 + 300


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


def test_ending_a_session_costs_little_for_each_request_that_waits():
    """Sessions have up to 10,000 of them, and nothing else happens meanwhile."""

    def ending(size: int) -> int:
        world = World("e", places=4, check=False)
        world.submit(*(f"q{n}: -> x{n}" for n in range(size)))
        return lines_of(lambda one: one.end_session(), world)

    assert (ending(400) - ending(200)) / 200 < 150


def test_ending_a_session_costs_next_to_nothing_for_each_variable_that_nobody_has_set():
    """Sessions have up to 100,000 of them, whether somebody waits for them or not."""

    def ending(size: int) -> int:
        world = World(check=False)
        names = [f"v{number}" for number in range(size)]
        world.submit(variables=[NewVariable(VariableId(name)) for name in names], waits=names)
        return lines_of(lambda one: one.end_session(), world)

    assert (ending(400) - ending(200)) / 200 < 20


def reduced(size: int) -> World:
    """`size` requests are being written, short, and one begins with its first output, long, and reads theirs then."""
    world = World(check=False)
    world.join("e", places=size + 64, late=True)
    short = Sampling(seed=0, max_tokens=8)
    world.submit("long: -> long", *(request(f"m{n}: -> x{n}", sampling=short) for n in range(size)))
    read = " ".join(f"x{number}" for number in range(size))
    world.submit(f"reduce: {read} -> y", f"last: long {read} -> z")
    return world


@pytest.mark.parametrize("backwards", [False, True])
def test_a_value_costs_a_reader_the_same_however_much_else_it_reads(backwards: bool):
    def of_a_value(size: int) -> float:
        world = reduced(size)
        order = reversed(range(1, size)) if backwards else range(size - 1)
        return lines_of(lambda one: [one.produce(f"m{n}", f"x{n}") for n in order], world) / size

    assert of_a_value(400) <= of_a_value(100) * 1.1


def test_a_model_that_is_given_up_costs_little_for_each_request_that_waits():
    """All of them are placed at once then, to fail."""

    def giving_up(size: int) -> int:
        world = World(check=False)
        for number in range(size):
            world.submit(f"q{number}: -> x{number}", session=f"s{number}")
        return lines_of(lambda one: one.join("e", places=1 << 40), world)

    assert giving_up(600) - giving_up(400) < (giving_up(400) - giving_up(200)) * 1.1


def ladder(size: int) -> list[str]:
    """Stages of two, each of which reads both before it."""
    reads = (f"v{number - number % 2 - 2} v{number - number % 2 - 1}" if number > 1 else "" for number in range(size))
    return [f"r{number}: {read} -> v{number}" for number, read in enumerate(reads)]


def tangle(size: int) -> list[str]:
    """Requests that read three of the twelve before them, of which no two stages are alike."""
    read = ({max(number - 1 - number * factor % 12, 0) for factor in (1, 5, 7)} - {number} for number in range(size))
    return [
        f"r{number}: {' '.join(f'v{one}' for one in sorted(some))} -> v{number}" for number, some in enumerate(read)
    ]


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("graph", "each"), [(ladder, 1), (ladder, 2), (tangle, 1)])
def test_asking_for_many_results_costs_little_for_each(graph: Callable[[int], list[str]], each: int, backwards: bool):
    """In one event; every `each`-th one is asked for."""

    def asking(size: int) -> int:
        world = World(check=False)
        world.submit(*graph(size))
        waits = tuple(asked(f"v{number}") for number in range(0, size, each))
        event = Waited(session="s", tenant="t", waits=waits[::-1] if backwards else waits)
        return lines_of(lambda one: one.handle(event), world)

    assert asking(600) - asking(400) < (asking(400) - asking(200)) * 1.1


def test_retrying_costs_what_comes_back_however_much_has_fallen():
    def retrying(size: int) -> int:
        world = World("e", places=4, check=False)
        world.submit(*(f"q{n}: -> x{n}" for n in range(size)))
        for number in range(size):
            world.cancel(f"x{number}")
        return lines_of(lambda one: (one.machine.revival("s", "t", "x7"), one.retry("x7")), world)

    assert retrying(400) == retrying(100)


def paused(size: int) -> World:
    """As many requests are paused as run, for which somebody waits."""
    world = World(check=False)
    world.join("e", batch=size, places=4 * size, pauses=True)
    world.submit(*(f"bulk{number}: -> b{number}" for number in range(size)))
    chats = [f"chat{number}: -> c{number}" for number in range(size)]
    world.submit(*chats, waits=[f"c{number}" for number in range(size)], session="chats")
    return world


def test_asking_for_many_that_are_paused_costs_little_for_each():
    def asking(size: int) -> int:
        waits = tuple(asked(f"b{number}") for number in range(size))
        return lines_of(lambda one: one.handle(Waited(session="s", tenant="t", waits=waits)), paused(size))

    assert asking(150) - asking(100) < (asking(100) - asking(50)) * 1.1


def test_many_that_are_paused_go_on_at_little_cost_for_each():
    def going_on(size: int) -> int:
        return lines_of(lambda one: one.end_session("chats"), paused(size))

    assert going_on(150) - going_on(100) < (going_on(100) - going_on(50)) * 1.1
