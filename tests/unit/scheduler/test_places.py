"""Places on an engine: as a look at everybody who is there would give them."""

from hypothesis import given
from hypothesis import strategies as st

from parrotserve.criteria import Precedence
from parrotserve.ids import TenantId
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
            assert places.take(tenant, number) == wanted
            here.append((tenant, wanted))
        elif here:
            gone, precedence = here.pop(number % len(here))
            places.leave(gone, precedence.submission)
        assert places.holders() == {one: here.count(one) for one in here}


def test_nothing_is_kept_of_who_left():
    places = Places()
    for number in range(3):
        places.take(TenantId("t"), number)
    for number in (1, 0, 2):
        places.leave(TenantId("t"), number)
    assert places.holders() == {}
    assert places.take(TenantId("t"), 0) == Precedence(4, 0)
