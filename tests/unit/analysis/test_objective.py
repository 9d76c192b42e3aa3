"""Objective deduction, against the definition written out naively."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parrotserve.analysis.objective import _Walk, assign, deduce, stricter
from parrotserve.criteria import Criteria, Objective
from parrotserve.graph.changes import Changes
from parrotserve.graph.events import NewCall, NewRequest, NewVariable, Submitted, Wait
from parrotserve.graph.graph import Graph
from parrotserve.graph.growth import grow
from parrotserve.graph.objects import Producer, Request, Variable
from parrotserve.graph.validation import plan_submit
from parrotserve.sampling import Sampling
from parrotserve.segments import Input, Output

LATENCY, GROUP, THROUGHPUT = Objective.LATENCY, Objective.GROUP, Objective.THROUGHPUT


def take_in(graph: Graph, *lines: str, waits: tuple[str, ...] = ()) -> Changes:
    """`"a: x -> y"` is a request, `"a! x -> y"` a native call; variables are declared as they are first named."""
    requests, calls, names = [], [], {}
    for line in lines:
        name, rest = line.replace("!", ":").split(":")
        inputs, outputs = (part.split() for part in rest.split("->"))
        names |= dict.fromkeys([*inputs, *outputs])
        if "!" in line:
            calls.append(NewCall(id=name, function=name, inputs=tuple(inputs), output=outputs[0]))
        else:
            segments = (*map(Input, inputs), *(Output(one, Sampling(seed=0)) for one in outputs))
            requests.append(NewRequest(id=name, function=name, model="m", segments=segments))
    batch = Submitted(
        session="s",
        tenant="t",
        lease_seconds=1.0,
        variables=tuple(NewVariable(name) for name in names if name not in graph.variables),
        requests=tuple(requests),
        calls=tuple(calls),
        waits=tuple(Wait(name, Criteria.LATENCY) for name in waits),
    )
    changes = Changes(0.0)
    grow(graph, plan_submit(graph, batch, {"m"}, 0.0), changes)
    return changes


def apply(changes: Changes) -> None:
    """As the machine does it."""
    results = [*changes.asked, *(one for made in changes.rewired for one in made.outputs if one.urgent)]
    for request, deduction in deduce(results, set(changes.rewired)).items():
        assert stricter(deduction.objective, request.objective)
        assign(request, deduction)


def objectives(*lines: str, waits: tuple[str, ...]) -> dict[str, Objective]:
    graph = Graph()
    apply(take_in(graph, *lines, waits=waits))
    return {one.id: one.objective for one in graph.requests.values()}


def test_a_chain_is_latency_sensitive_throughout():
    found = objectives("a: -> x", "b: x -> y", "c: y -> z", waits=("z",))
    assert found == {"a": LATENCY, "b": LATENCY, "c": LATENCY}


def test_what_comes_after_the_result_is_not():
    assert objectives("a: -> x", "b: x -> y", waits=("x",)) == {"a": LATENCY, "b": THROUGHPUT}


def test_the_maps_of_a_map_reduce_are_a_group():
    found = objectives("m1: -> a", "m2: -> b", "m3: -> c", "reduce: a b c -> z", waits=("z",))
    assert found == {"m1": GROUP, "m2": GROUP, "m3": GROUP, "reduce": LATENCY}


def test_the_stage_before_a_group_is_a_group_and_its_one_ancestor_is_not():
    """An architect, coders with a tester each, and a reviewer."""
    found = objectives(
        "architect: -> plan",
        "coder1: plan -> c1", "coder2: plan -> c2",
        "tester1: c1 -> t1", "tester2: c2 -> t2",
        "reviewer: t1 t2 -> review",
        waits=("review",),
    )  # fmt: skip
    assert found == {
        "architect": LATENCY, "coder1": GROUP, "coder2": GROUP, "tester1": GROUP, "tester2": GROUP, "reviewer": LATENCY,
    }  # fmt: skip


def test_a_short_cut_does_not_make_its_maker_parallel():
    """The design is read by the code and by the review: it is before the code all the same."""
    found = objectives("design: -> d", "code: d -> c", "review: d c -> r", waits=("r",))
    assert found == {"design": LATENCY, "code": LATENCY, "review": LATENCY}


def test_a_native_call_between_them_leaves_stages_as_they_are():
    found = objectives("a: -> x", "strip! x -> s", "b: -> y", "merge: s y -> z", waits=("z",))
    assert found == {"a": GROUP, "b": GROUP, "merge": LATENCY}


def test_a_native_call_that_is_waited_for_passes_it_on():
    assert objectives("a: -> x", "strip! x -> s", waits=("s",)) == {"a": LATENCY}
    assert objectives("a: -> x", "b: -> y", "join! x y -> s", waits=("s",)) == {"a": GROUP, "b": GROUP}


def test_the_strictest_of_several_results_counts():
    lines = ("m1: -> a", "m2: -> b", "reduce: a b -> z")
    assert objectives(*lines, waits=("z", "a")) == {"m1": LATENCY, "m2": GROUP, "reduce": LATENCY}
    assert objectives(*lines, waits=("a", "z")) == {"m1": LATENCY, "m2": GROUP, "reduce": LATENCY}


def test_results_that_are_waited_for_together_are_not_a_group():
    assert objectives("a: -> x", "b: -> y", waits=("x", "y")) == {"a": LATENCY, "b": LATENCY}


def test_a_chain_with_a_wait_at_every_link_is_walked_once():
    length, graph, seen = 300, Graph(), list[object]()
    lines = [f"r{n}: v{n} -> v{n + 1}" for n in range(length)]
    changes = take_in(graph, *lines, waits=tuple(f"v{n}" for n in range(1, length + 1)))

    class Watched(set[Producer]):
        def __contains__(self, one: object) -> bool:
            seen.append(one)
            return super().__contains__(one)

    found = deduce(changes.asked, Watched(changes.rewired))
    assert {deduction.objective for deduction in found.values()} == {LATENCY}
    for link, deduction in found.items():
        assign(link, deduction)
    seen.clear()
    assert deduce(changes.asked, Watched()) == {}
    assert len(seen) == length, "what was walked an earlier time is not walked again"
    seen.clear()
    assert deduce(changes.asked, Watched(changes.rewired)) == {}
    assert len(seen) <= 2 * length, "nor is it twice at one time, where all of it came back"


def irregular(size: int, share: float, seed: int, *, calls: float = 0.1) -> tuple[list[str], tuple[str, ...]]:
    """Each reads up to three of the twelve before it; so many are asked for."""
    draw, lines = random.Random(seed), list[str]()
    for number in range(size):
        near = range(max(0, number - 12), number)
        inputs = draw.sample(near, min(len(near), draw.randint(0, 3)))
        kind = "!" if draw.random() < calls else ":"
        lines.append(f"p{number}{kind} {' '.join(f'v{one}' for one in inputs)} -> v{number}")
    return lines, tuple(f"v{one}" for one in draw.sample(range(size), round(size * share)))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.8, 1.0])
def test_what_irregular_graphs_have_in_common_is_walked_once(share: float, monkeypatch: pytest.MonkeyPatch):
    looked, need = 0, _Walk._need

    def counted(walk: _Walk, producer: Producer | None, level: int) -> None:
        nonlocal looked
        looked += 1
        need(walk, producer, level)

    monkeypatch.setattr(_Walk, "_need", counted)
    for size in (400, 1600):
        lines, waits = irregular(size, share, seed=size)
        looked = 0
        apply(take_in(Graph(), *lines, waits=waits))
        assert looked < 12 * size


def test_every_stage_is_a_group_of_its_own():
    graph = Graph()
    lines = ("c1: -> a", "c2: -> b", "t1: a -> x", "t2: b -> y", "r: x y -> z", "s1: -> p", "s2: -> q", "u: p q -> w")
    apply(take_in(graph, *lines, waits=("z", "w")))
    assert groups(graph) == {
        "t1": ("z", 1), "t2": ("z", 1), "c1": ("z", 2), "c2": ("z", 2), "s1": ("w", 1), "s2": ("w", 1),
    }  # fmt: skip


def test_a_member_that_somebody_waits_for_leaves_its_group():
    graph = Graph()
    apply(take_in(graph, "m1: -> a", "m2: -> b", "m3: -> c", "reduce: a b c -> z", waits=("z",)))
    apply(take_in(graph, waits=("b",)))
    assert groups(graph) == {"m1": ("z", 1), "m3": ("z", 1)}
    assert {one.id for one in graph.variables["z"].stages[1].members} == {"m1", "m3"}


# --- Against the definition -----------------------------------------------------------------------------------


def by_definition(graph: Graph) -> dict[Request, Objective]:
    """For every urgent result: the longest distance of every request upstream; who is alone at one is serial."""
    found = dict.fromkeys(graph.requests.values(), THROUGHPUT)
    for result in graph.variables.values():
        distances: dict[Producer, int] = {}
        if result.urgent:
            _measure(result, 0, distances)
        stages: dict[int, list[Request]] = {}
        for one, distance in distances.items():
            if isinstance(one, Request):
                stages.setdefault(distance, []).append(one)
        for stage in stages.values():
            for one in stage:
                objective = LATENCY if len(stage) == 1 else GROUP
                found[one] = objective if stricter(objective, found[one]) else found[one]
    return found


def _measure(variable: Variable, distance: int, distances: dict[Producer, int]) -> None:
    one = variable.producer
    if one is None or distances.get(one, -1) >= distance:
        return
    distances[one] = distance
    for needed in one.inputs:
        _measure(needed, distance + isinstance(one, Request), distances)


def groups_by_definition(graph: Graph, asked: tuple[str, ...]) -> dict[str, tuple[str, int]]:
    """Who counts by a group's end: the result asked for first that has it in a stage of several, and which stage."""
    objectives = by_definition(graph)
    found: dict[str, tuple[str, int]] = {}
    for result in asked:
        distances: dict[Producer, int] = {}
        _measure(graph.variables[result], 0, distances)
        stages = [distance for one, distance in distances.items() if isinstance(one, Request)]
        for one, distance in distances.items():
            if isinstance(one, Request) and stages.count(distance) > 1 and objectives[one] is GROUP:
                found.setdefault(one.id, (result, distance))
    return found


def groups(graph: Graph) -> dict[str, tuple[str, int]]:
    return {one.id: (one.group.result.id, one.group.level) for one in graph.requests.values() if one.group}


FEW = st.integers(1, 12)


@st.composite
def graphs(draw: st.DrawFn, sizes: st.SearchStrategy[int] = FEW) -> tuple[list[str], tuple[str, ...]]:
    size = draw(sizes)
    lines = []
    for number in range(size):
        nearest = st.integers(max(0, number - 12), number - 1)
        inputs = draw(st.lists(nearest, max_size=3, unique=True)) if number else []
        kind = draw(st.sampled_from([":", ":", ":", "!"]))
        lines.append(f"p{number}{kind} {' '.join(f'v{one}' for one in inputs)} -> v{number}")
    many = size if size <= 12 else 4
    waits = draw(st.lists(st.integers(0, size - 1), max_size=draw(st.sampled_from([4, many])), unique=True))
    return draw(st.permutations(lines)), tuple(f"v{one}" for one in waits)


@given(graphs())
@settings(max_examples=300)
def test_a_whole_graph_gets_what_the_definition_says(drawn: tuple[list[str], tuple[str, ...]]):
    lines, waits = drawn
    graph = Graph()
    apply(take_in(graph, *lines, waits=waits))
    assert {one.id: one.objective for one in graph.requests.values()} == {
        one.id: objective for one, objective in by_definition(graph).items()
    }
    assert groups(graph) == groups_by_definition(graph, waits)


@given(graphs(st.integers(100, 200)))
@settings(max_examples=15, suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow])
def test_a_big_graph_does_too_whether_waits_come_together_or_later(drawn: tuple[list[str], tuple[str, ...]]):
    lines, waits = drawn
    graph = Graph()
    apply(take_in(graph, *lines, waits=waits[:2]))
    for wait in waits[2:]:
        apply(take_in(graph, waits=(wait,)))
    assert {one: one.objective for one in graph.requests.values()} == by_definition(graph)
    assert groups(graph) == groups_by_definition(graph, waits)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("in_order", [True, False])
def test_a_big_graph_that_much_is_asked_of_does_too(seed: int, in_order: bool):
    lines, waits = irregular(80 + 20 * seed, share=(0.1, 0.3, 0.8, 1.0)[seed % 4], seed=seed)
    if not in_order:
        random.Random(seed).shuffle(lines)
    graph = Graph()
    apply(take_in(graph, *lines, waits=waits))
    assert {one: one.objective for one in graph.requests.values()} == by_definition(graph)
    assert groups(graph) == groups_by_definition(graph, waits)


@given(graphs(), st.data())
@settings(max_examples=300)
def test_waits_that_come_later_give_the_same(drawn: tuple[list[str], tuple[str, ...]], data: st.DataObject):
    lines, waits = drawn
    graph = Graph()
    apply(take_in(graph, *lines))
    asked = data.draw(st.permutations(waits))
    for wait in asked:
        apply(take_in(graph, waits=(wait,)))
    assert {one: one.objective for one in graph.requests.values()} == by_definition(graph)
    assert groups(graph) == groups_by_definition(graph, tuple(asked))


@given(graphs(), st.data())
@settings(max_examples=300)
def test_a_graph_that_grows_gets_no_less_than_the_definition_says(
    drawn: tuple[list[str], tuple[str, ...]], data: st.DataObject
):
    """Objectives are only ever raised: who was serial when it was asked for stays so when others join its stage."""
    lines, waits = drawn
    graph = Graph()
    named = [line.replace("!", ":").split("-> ")[1] for line in lines]
    while lines:
        cut = data.draw(st.integers(1, len(lines)))
        now = tuple(wait for wait in waits if wait in graph.variables or wait in named[:cut])
        apply(take_in(graph, *lines[:cut], waits=now))
        lines, named = lines[cut:], named[cut:]
    apply(take_in(graph, waits=waits))
    for one, objective in by_definition(graph).items():
        assert not stricter(objective, one.objective), one
