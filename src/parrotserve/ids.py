"""Typed identifiers: distinct types for the type checker, plain strings on the wire."""

import secrets
from typing import NewType

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
