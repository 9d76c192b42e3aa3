"""Ids belong to their tenants inside the service, and look to everybody as their clients made them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from parrotserve.ids import LOCAL_TENANT, TenantId, VariableId, owned, shown
from parrotserve.protocol import Identifier

IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}", fullmatch=True).map(VariableId)
TENANTS = st.one_of(st.just(LOCAL_TENANT), st.text(min_size=1).map(TenantId))


@given(tenant=TENANTS, identity=IDS)
def test_an_id_is_shown_as_its_client_made_it(tenant: TenantId, identity: VariableId):
    assert shown(owned(tenant, identity)) == identity


@given(one=st.tuples(TENANTS, IDS), other=st.tuples(TENANTS, IDS))
def test_no_two_tenants_own_the_same_id(one: tuple[TenantId, VariableId], other: tuple[TenantId, VariableId]):
    assert (owned(*one) == owned(*other)) == (one == other)


@given(tenant=TENANTS.filter(lambda name: name != LOCAL_TENANT), identity=IDS)
def test_no_client_can_write_an_id_as_another_tenant_owns_it(tenant: TenantId, identity: VariableId):
    with pytest.raises(ValueError, match="pattern"):
        TypeAdapter(Identifier).validate_python(owned(tenant, identity))


@given(identity=IDS)
def test_with_one_tenant_ids_stay_as_they_are(identity: VariableId):
    assert owned(LOCAL_TENANT, identity) == identity == shown(identity)
