"""Tenants on a contended engine, on a virtual clock: who sends more, or in more sessions, takes nothing from others."""

import math
import statistics

from shared_engine import Cost, SharedEngine, Tenant

PLACES = 8
COST = Cost(step=0.01, row=0.001, prompt_tokens=8)
TOKENS = 40
SECONDS = 10.0
"""Of each simulation."""
CAPACITY = PLACES / (TOKENS * math.hypot(COST.step, PLACES * COST.row))
"""Requests a second of an engine that is always full."""


def sending(ann: float, bob: float, *, sessions: int = 1, weight: float = 1.0) -> SharedEngine:
    """Ann and Bob send so many requests a second."""
    return SharedEngine(
        COST,
        Tenant("ann", every=1 / ann, until=SECONDS, tokens=TOKENS, weight=weight),
        Tenant("bob", every=1 / bob, until=SECONDS, tokens=TOKENS, sessions=sessions, start=0.003),
        places=PLACES,
    ).run(SECONDS)


def median_of_ann(ann: float, bob: float, *, sessions: int = 1) -> float:
    return statistics.median(sending(ann, bob, sessions=sessions).tenants["ann"].latencies)


def test_fifty_times_the_load_of_one_tenant_hardly_slows_another():
    for share in (0.1, 0.5):
        rate = share * CAPACITY
        assert median_of_ann(rate, 50 * rate) <= 1.3 * median_of_ann(rate, rate)


def test_who_asks_for_less_than_her_share_waits_for_little_more_than_a_place():
    in_a_full_engine = PLACES / CAPACITY
    for share in (0.1, 0.3):
        assert median_of_ann(share * CAPACITY, 10 * CAPACITY) <= in_a_full_engine


def test_a_hundred_sessions_gain_nothing():
    engine = sending(2 * CAPACITY, 2 * CAPACITY, sessions=100)
    assert 0.95 <= engine.service["bob"] / engine.service["ann"] <= 1.05
    assert median_of_ann(0.45 * CAPACITY, 10 * CAPACITY, sessions=100) <= 1.05 * median_of_ann(
        0.45 * CAPACITY, 10 * CAPACITY
    )


def test_weights_of_three_to_one_give_service_of_three_to_one():
    engine = sending(2 * CAPACITY, 2 * CAPACITY, weight=3.0)
    assert 2.7 <= engine.service["ann"] / engine.service["bob"] <= 3.3


def test_who_is_waited_for_and_long_work_of_another_tenant_get_equal_service():
    """Also where all of the latter is aboard already, and pauses; what it has still to get is not held against it, nor
    is it service that it got."""
    engine = SharedEngine(
        Cost(step=0.007, row=0.0007, prompt=0.024),
        Tenant("ann", 16, start=0.5),
        Tenant("bob", PLACES, tokens=4000, criteria=None),
        places=PLACES,
    )
    before = dict(engine.run(4.0).service)
    engine.run(4.0 + SECONDS)
    got = {name: seconds - before[name] for name, seconds in engine.service.items()}
    assert abs(got["ann"] - got["bob"]) <= 1.5
