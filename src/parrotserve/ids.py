"""Typed identifiers: distinct types for the type checker, plain strings on the wire.

Clients make the ids of what they declare, and each tenant has an id space of its own: inside the service ids carry
their tenant (`owned`), while people and clients see them as the client made them (`shown`).
"""

import secrets
from typing import NewType, TypeVar, cast

SessionId = NewType("SessionId", str)
VariableId = NewType("VariableId", str)
RequestId = NewType("RequestId", str)
"""A request; an engine knows the same string as its sequence."""
CallId = NewType("CallId", str)
"""A native call."""
EngineId = NewType("EngineId", str)
TenantId = NewType("TenantId", str)

LOCAL_TENANT = TenantId("local")
"""The one tenant of a service that runs without authentication."""


def new_id(prefix: str) -> str:
    """A fresh unguessable id such as `v-3f9c2e7ab01d4c88`; clients make the ids of what they declare."""
    return f"{prefix}-{secrets.token_hex(8)}"


_OWNER_ENDS = "/"
"""Separates the tenant from the client's id, in which it cannot occur."""

Id = TypeVar("Id", bound=str)


def owned(tenant: TenantId, shown: Id) -> Id:
    """A client's id in the form that the service uses inside, which no other tenant's id has."""
    return shown if tenant == LOCAL_TENANT else cast("Id", f"{tenant}{_OWNER_ENDS}{shown}")


def shown(owned: Id) -> Id:
    """An id as its client made it."""
    return cast("Id", owned.rpartition(_OWNER_ENDS)[2])
