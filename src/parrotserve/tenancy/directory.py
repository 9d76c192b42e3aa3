"""Whom a key belongs to, as the store has it now."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from parrotserve.errors import ServiceUnavailable, Unauthorized
from parrotserve.ids import LOCAL_TENANT, TenantId
from parrotserve.tenancy.keys import hash_key
from parrotserve.tenancy.limits import Limits
from parrotserve.tenancy.store import Tenant, TenantStore
from parrotserve.tenancy.usage import Usage

log = logging.getLogger(__name__)

_TELLING_FAILURES = 2
"""Failures in a row to save usage without waiting, at which a line is logged."""
_SAY_SECONDS = 60.0
"""Time between two log lines about a store that cannot be read: every exchange reads it, and refused clients retry."""
_LOCAL = Tenant(LOCAL_TENANT, Limits())


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf an exchange is made."""

    tenant: TenantId
    operator: bool
    """Whether it may see what belongs to all tenants, such as metrics and usage."""


_ANYBODY = Caller(LOCAL_TENANT, operator=True)


class Directory:
    """Tenants and keys in memory. They are read again, if another process has changed them, whenever a key is checked
    (with every exchange) and whenever all tenants are listed.

    Without a store, or as long as no key was ever made, the service is open: everybody is one tenant. Once a key has
    been made it stays closed, even if all are revoked. `always` closes it from the start; `never` leaves it open.
    """

    def __init__(
        self,
        store: TenantStore | None = None,
        *,
        always: bool = False,
        never: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._never = never
        self._clock = clock
        self.closed = always
        """Whether keys are asked for."""
        self._tenants: dict[TenantId, Tenant] = {}
        self._keys: dict[bytes, Caller] = {}
        self._published: frozenset[str] = frozenset()
        self._failures = 0
        """Number of consecutive failures to save usage."""
        self._stale = False
        """Whether the store has changed since it was last read completely."""
        self._unread_since: float | None = None
        """Since when the store cannot be read; None while it can."""
        self._quiet_until = 0.0
        self._read()

    def authenticate(self, key: str | None) -> Caller:
        """The caller that a key belongs to. Raises `Unauthorized`, and what `refresh` raises."""
        self.refresh()
        if not self.closed:
            return _ANYBODY
        if not key:
            raise Unauthorized(
                "This service needs a key: send 'Authorization: Bearer KEY' (PARROT_API_KEY in programs of Parrot). "
                "Its operator makes keys with `parrot key create`."
            )
        caller = self._keys.get(hash_key(key))
        if caller is None:
            raise Unauthorized("This key is not valid here: it was mistyped, revoked, or made for another service.")
        return caller

    @property
    def usable(self) -> bool:
        """Whether any key is valid."""
        return bool(self._keys)

    def limits(self, tenant: TenantId) -> Limits:
        """A tenant's limits; the defaults for one that is not known."""
        return self._tenants.get(tenant, _LOCAL).limits

    def published_texts(self) -> frozenset[str]:
        """Texts whose KV all tenants share, stripped, as of the last `refresh`."""
        return self._published

    def tenants(self) -> list[Tenant]:
        """All tenants, including the one that uses an open service."""
        self.refresh()
        return [_LOCAL, *self._tenants.values()]

    @property
    def stores_usage(self) -> bool:
        """Whether usage is stored."""
        return self._store is not None

    def usage(self, tenant: TenantId | None) -> list[tuple[str, TenantId, Usage]]:
        """The stored usage of a tenant (None: of all tenants), by day. Thread-safe."""
        return self._store.usage(tenant) if self._store is not None else []

    def add_usage(self, day: str, used: Mapping[TenantId, Usage], *, wait: bool = True) -> bool:
        """Store what was used on a day, with `wait` after other writers; returns whether it was stored. Thread-safe."""
        if self._store is None:
            return False
        try:
            self._store.add_usage(day, used, wait=wait)
        except ServiceUnavailable as error:
            self._failures += 1
            # Without `wait` it fails whenever somebody else writes at that moment, so one failure says nothing yet; and
            # a full disk stays full for long, so that later failures are not logged again.
            if wait or self._failures == _TELLING_FAILURES:
                log.warning("usage is not saved yet: %s", error)
            return False
        if self._failures >= _TELLING_FAILURES:
            log.warning("usage is saved again")
        self._failures = 0
        return True

    def refresh(self) -> None:
        """Read the store again if another process changed it. Raises `ServiceUnavailable` if it cannot be read."""
        if self._store is None:
            return
        try:
            self._stale = self._store.changed() or self._stale
            if self._stale:
                self._read()
        except ServiceUnavailable as error:
            self._tell_unread(error)
            # Clients need not know where the store lies.
            raise ServiceUnavailable("Keys cannot be looked up now; the log of the service says why.") from error
        if self._unread_since is not None:
            log.warning("tenants are read again, after %.0f s", self._clock() - self._unread_since)
            self._unread_since = None

    def _tell_unread(self, error: ServiceUnavailable) -> None:
        now = self._clock()
        if self._unread_since is None:
            self._unread_since = now
            log.error("nobody's key can be looked up: %s", error)
        elif now >= self._quiet_until:
            log.error("nobody's key can be looked up, for %.0f s by now: %s", now - self._unread_since, error)
        else:
            return
        self._quiet_until = now + _SAY_SECONDS

    def _read(self) -> None:
        if self._store is None:
            return
        keys = self._store.keys()
        self._tenants = {tenant.name: tenant for tenant in self._store.tenants()}
        self._keys = {key.hash: Caller(key.tenant, key.operator) for key in keys if key.revoked is None}
        self._published = frozenset(one.text.strip() for one in self._store.published())
        self.closed = (self.closed or bool(keys)) and not self._never
        self._stale = False
