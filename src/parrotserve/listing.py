"""Lists on the wire: sessions, engines and tenants, for those who run a service. No program needs them.

They are not a part of `protocol`: client and service can talk to each other without them.
"""

from parrotserve.ids import EngineId, SessionId, TenantId
from parrotserve.protocol import Wire


class SessionSummary(Wire):
    """A session in the list of them. Times are in seconds since 1970."""

    id: SessionId
    tenant: TenantId
    opened: float
    last_used: float
    """When its client was last in touch: now, if exchanges of it are open."""
    lease_seconds: float
    exchanges: int
    """Number of its HTTP exchanges that are open now."""
    variables: int
    requests: dict[str, int]
    """Number of its requests in each state; states without any are left out."""
    calls: dict[str, int]


class SessionList(Wire):
    """Sessions that live, in the order in which they were opened."""

    data: tuple[SessionSummary, ...]
    next: int | None
    """Value of `after` for the next page; None: this is the last one."""


class TenantUsage(Wire):
    """What a tenant used on a day (UTC)."""

    tenant: TenantId
    day: str
    requests: int
    """Runs of requests that ended."""
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    engine_seconds: float


class EngineView(Wire):
    """An engine, and what it is doing."""

    id: EngineId
    model: str
    state: str
    running: int
    waiting: int
    used_tokens: int
    cached_tokens: int
    free_tokens: int
    error: str | None = None
    retry_after: float | None = None
    """Seconds until an engine that was given up (`failed`) is tried again; `error` is why it did not start."""
