"""Tenants inside one engine, on a virtual clock: who runs many requests there slows nobody who runs few."""

import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_world import World
from shared_engine import Cost, SharedEngine, Tenant

from parrotserve.bounds import CROWDING
from parrotserve.graph.events import NewRequest, TenantWeighed
from parrotserve.ids import RequestId, TenantId, VariableId
from parrotserve.sampling import Sampling
from parrotserve.scheduler.scheduler import AppScheduler
from parrotserve.segments import Output, Text
from parrotserve.switches import Switches

SMALL = Cost(step=0.007, row=0.0007, prompt=0.024)
"""A small model on a CPU, as measured: prompts weigh most."""
ROWS = Cost(step=0.002, row=0.005)
"""Where a batch saves little."""
WIDE = Cost(step=0.02, row=0.0001, prompt=0.002)
"""Where it saves almost everything."""
SECONDS = 16.0
WITHOUT = Switches.without(["fairness"])


def median(tenant: Tenant) -> float:
    """Of its latencies, once things have settled."""
    return statistics.median(tenant.latencies[len(tenant.latencies) // 5 :])


def beside(cost: Cost, ann: int, bob: int, **others: object) -> SharedEngine:
    return SharedEngine(cost, Tenant("ann", ann), Tenant("bob", bob), **others).run(SECONDS)  # type: ignore[arg-type]


def slowdown(cost: Cost, few: int, **others: object) -> float:
    """How much longer Ann waits with 50 times the load of Bob."""
    alike, many = (beside(cost, few, bob, **others) for bob in (few, 50 * few))
    return median(many.tenants["ann"]) / median(alike.tenants["ann"])


class TestLatency:
    @pytest.mark.parametrize("cost", [SMALL, ROWS, WIDE], ids=["small", "rows", "wide"])
    @pytest.mark.parametrize("few", [1, 4])
    def test_fifty_times_the_load_of_one_tenant_hardly_slows_one_that_has_few_requests(self, cost: Cost, few: int):
        assert slowdown(cost, few) <= 1.3

    def test_without_the_switch_it_does(self):
        assert slowdown(SMALL, 4, switches=WITHOUT) > 3

    def test_so_it_is_where_engines_cannot_pause(self):
        assert slowdown(SMALL, 4, pauses=False) <= 1.3

    def test_nor_do_many_tenants_that_have_few_each_suffer_from_one_that_has_many(self):
        few = [Tenant(f"t{number}", 1) for number in range(8)]
        alike = SharedEngine(SMALL, *few, Tenant("bob", 1)).run(SECONDS)
        before = [median(tenant) for tenant in few]
        few = [Tenant(f"t{number}", 1) for number in range(8)]
        SharedEngine(SMALL, *few, Tenant("bob", 50)).run(SECONDS)
        assert alike.rows("t0") <= 1
        assert statistics.median(median(one) / was for one, was in zip(few, before, strict=True)) <= 1.3

    def test_work_for_which_nobody_waits_slows_others_no_more(self):
        few = beside(SMALL, 4, 4).tenants["ann"]
        ann, bob = Tenant("ann", 4), Tenant("bob", 200, criteria=None)
        SharedEngine(SMALL, ann, bob).run(SECONDS)
        assert median(ann) <= 1.3 * median(few)
        assert bob.latencies


class TestWork:
    def test_who_is_alone_fills_the_engine(self):
        engine = SharedEngine(SMALL, Tenant("bob", 200)).run(1.0)
        assert engine.rows("bob") == 64
        assert engine.pauses == 0

    def test_others_make_room_when_somebody_comes_and_go_on_when_she_has_gone(self):
        engine = SharedEngine(SMALL, Tenant("ann", 4, start=2.0, until=4.0), Tenant("bob", 200))
        assert engine.run(1.9).rows("bob") == 64
        assert engine.run(3.0).rows("bob") <= 12
        assert engine.pauses >= 50
        engine.run(8.0)
        assert engine.rows("ann") == 0
        assert engine.rows("bob") == 64

    def test_little_of_the_engines_work_is_lost(self):
        alone = SharedEngine(SMALL, bob := Tenant("bob", 200)).run(SECONDS)
        shared = beside(SMALL, 4, 200)
        done = sum(len(tenant.latencies) for tenant in shared.tenants.values())
        assert alone.pauses == 0
        assert done >= 0.7 * len(bob.latencies)

    def test_who_has_few_requests_leaves_the_rest_to_who_has_many(self):
        shared = beside(WIDE, 1, 200)
        assert len(shared.tenants["bob"].latencies) >= 4 * len(shared.tenants["ann"].latencies)

    def test_beside_those_for_whom_nobody_waits_others_fill_the_engine(self):
        engine = SharedEngine(SMALL, Tenant("ann", 4, criteria=None), Tenant("bob", 200, criteria=None)).run(1.0)
        assert engine.rows("ann") + engine.rows("bob") == 64

    def test_everybody_gets_on(self):
        """However big one request is beside what others have."""
        ann, bob = Tenant("ann", 1, tokens=200), Tenant("bob", 100, tokens=2)
        SharedEngine(SMALL, ann, bob).run(SECONDS)
        assert ann.latencies
        assert len(bob.latencies) > 50


class TestShares:
    def test_weights_of_three_to_one_give_service_of_three_to_one(self):
        for cost in (SMALL, ROWS):
            ann, bob = Tenant("ann", 200, weight=3.0), Tenant("bob", 200)
            engine = SharedEngine(cost, ann, bob).run(2 * SECONDS)
            assert 2.7 <= engine.service["ann"] / engine.service["bob"] <= 3.3

    def test_a_hundred_sessions_gain_nothing(self):
        one = beside(SMALL, 4, 200)
        ann, bob = Tenant("ann", 4), Tenant("bob", 200, sessions=100)
        many = SharedEngine(SMALL, ann, bob).run(SECONDS)
        assert many.service["bob"] <= 1.05 * one.service["bob"]
        assert median(ann) <= 1.05 * median(one.tenants["ann"])


# --- The bound, whatever happens ----------------------------------------------------------------------------------

NAMES = ("ann", "bob", "cay")


@st.composite
def happenings(draw: st.DrawFn) -> list[tuple[str, int, int, bool]]:
    """(who, characters of the prompt, output tokens, whether somebody waits) for a new request; or an end."""
    new = st.tuples(st.sampled_from(NAMES), st.integers(1, 4000), st.integers(1, 200), st.booleans())
    end = st.tuples(st.just(""), st.integers(0, 100), st.integers(0, 1), st.booleans())
    return draw(st.lists(new | new | end, min_size=1, max_size=60))


def is_queued(world: World, tenant: str) -> bool:
    return any(one.state.value == "queued" and one.session.tenant == tenant
               for one in world.machine.graph.requests.values())  # fmt: skip


def check_bound(world: World, weights: dict[str, float]) -> None:
    """On every engine, for every tenant that has all that it waits for."""
    scheduler = world.machine._scheduler
    assert isinstance(scheduler, AppScheduler)
    for load in scheduler._pools["m"].loads.values():
        running = {name: [one for one in load.aboard.values() if one.tenant == name and not one.paused]
                   for name in weights}  # fmt: skip
        added = {name: sum(one.stretch for one in ones) for name, ones in running.items()}
        most = {name: max((one.stretch for one in ones), default=0.0) for name, ones in running.items()}
        for name, ones in running.items():
            paused = any(one.paused and one.tenant == name for one in load.aboard.values())
            if not any(one.pressing for one in ones) or paused or is_queued(world, name):
                continue
            level = added[name] / weights[name]
            fair = sum(min(more, level * weights[other]) for other, more in added.items())
            excused = sum(one for other, one in most.items() if other != name)
            step = load.cost.rates.step
            assert math.hypot(step, sum(added.values())) <= CROWDING * math.hypot(step, fair) + excused + 1e-9


@given(st.tuples(*[st.sampled_from([0.5, 1.0, 3.0])] * 3), st.integers(1, 2), happenings())
@settings(max_examples=60)
def test_no_step_is_longer_than_fair_by_more_than_the_bound_and_a_request_of_each_other_tenant(
    weights: tuple[float, ...], engines: int, happened: list[tuple[str, int, int, bool]]
):
    """Fair to a tenant is a step to which nobody adds more, by weight, than it does."""
    world, shares = World(), {str(name): weight for name, weight in zip(NAMES, weights, strict=True)}
    for number in range(engines):
        world.join(f"e{number}", places=200, batch=16, pauses=True)
    for name, weight in shares.items():
        world.handle(TenantWeighed(TenantId(name), weight))
    opened: list[str] = []
    for number, (tenant, size, tokens, awaited) in enumerate(happened):
        world.now += 0.05 * tokens
        if tenant:
            opened.append(f"r{number}")
            waits = [f"v-{opened[-1]}"] if awaited else []
            world.submit(asking(opened[-1], size, tokens), waits=waits, tenant=tenant, session=tenant, lease=1e9)
        elif aboard := [one for one in opened if world.machine.request(RequestId(one)).aboard]:
            name = aboard[size % len(aboard)]
            opened.remove(name)
            world.run(name)
        check_bound(world, shares)


def asking(name: str, size: int, tokens: int) -> NewRequest:
    output = Output(VariableId(f"v-{name}"), Sampling(seed=0, max_tokens=tokens, ignore_eos=True))
    return NewRequest(id=RequestId(name), function=name, model="m", segments=(Text(name.ljust(size)), output))
