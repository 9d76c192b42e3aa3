"""Places on an engine: as a look at everybody who is there would give them."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from parrotserve.criteria import Precedence
from parrotserve.ids import TenantId
from parrotserve.scheduler.lines import TURN_SECONDS
from parrotserve.scheduler.places import Places

STEPS = st.lists(st.tuples(st.booleans(), st.sampled_from(["a", "b"]), st.integers(0, 6)), max_size=60)


@given(STEPS)
def test_a_place_is_the_lowest_of_what_its_tenant_submitted_with_it_or_later(steps: list[tuple[bool, str, int]]):
    places, here, given_so_far = Places(), list[tuple[TenantId, Precedence]](), 0
    for comes, name, number in steps:
        tenant = TenantId(name)
        if comes:
            beside = [one.place for other, one in here if other == tenant and one.submission >= number]
            given_so_far += not beside
            wanted = Precedence(min(beside, default=given_so_far), number)
            assert places.take(tenant, number, 0.0) == wanted
            here.append((tenant, wanted))
        elif here:
            gone, precedence = here.pop(number % len(here))
            places.leave(gone, precedence.submission)
        assert places.holders() == Counter((one, precedence.submission) for one, precedence in here)


def test_nothing_is_kept_of_who_left():
    places = Places()
    for number in range(3):
        places.take(TenantId("t"), number, 0.0)
    for number in (1, 0, 2):
        places.leave(TenantId("t"), number)
    assert places.holders() == {}
    assert places.take(TenantId("t"), 0, 0.0) == Precedence(4, 0)


LONGEST = 2.0


COMINGS = st.tuples(st.booleans(), st.sampled_from("abc"), st.integers(0, 6), st.floats(0.1, LONGEST))


@given(st.lists(COMINGS, max_size=80))
def test_nobody_is_overtaken_by_a_tenant_for_more_than_a_turn_and_a_request(
    steps: list[tuple[bool, str, int, float]],
):
    places, here = Places(), dict[int, tuple[str, Precedence, Counter[str]]]()
    for count, (comes, tenant, number, seconds) in enumerate(steps):
        if comes:
            took = places.take(TenantId(tenant), number, seconds)
            for other, precedence, overtaken in here.values():
                if other != tenant and took.place < precedence.place:
                    overtaken[tenant] += seconds
                    assert overtaken[tenant] <= TURN_SECONDS + LONGEST
            here[count] = tenant, took, Counter()
        elif here:
            gone, precedence, _ = here.pop(list(here)[number % len(here)])
            places.leave(TenantId(gone), precedence.submission)


def test_in_a_turn_what_belongs_together_stays_together():
    places, ann, bob = Places(), TenantId("ann"), TenantId("bob")
    first = places.take(ann, 1, 5.0)
    behind = places.take(bob, 2, 5.0)
    assert places.take(ann, 1, 0.9 * TURN_SECONDS) == first
    assert places.take(ann, 1, 0.9 * TURN_SECONDS) == first
    later = places.take(ann, 1, 0.1)
    assert later > behind
    assert places.take(bob, 2, 0.1) == behind
    assert places.take(ann, 1, 0.1) == later


def test_without_fairness_it_does_for_ever():
    places, ann, bob = Places(fair=False), TenantId("ann"), TenantId("bob")
    first = places.take(ann, 1, 5.0)
    places.take(bob, 2, 5.0)
    assert [places.take(ann, 1, TURN_SECONDS) for _ in range(5)] == [first] * 5
