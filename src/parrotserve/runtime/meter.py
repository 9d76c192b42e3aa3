"""The meter: tracks what tenants claim, run and use, in step with the machine and the engines.

A claim stands until the machine is done with its request and no engine has it any more: a cancelled request is charged
for what it used until its engine released it, which is known only then.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from parrotserve.graph.events import EngineLost, Event, RequestEnded
from parrotserve.ids import EngineId, RequestId, SessionId, TenantId
from parrotserve.listing import TenantUsage
from parrotserve.runtime.metrics import Metrics
from parrotserve.sampling import Usage as RunUsage
from parrotserve.tenancy.directory import Directory
from parrotserve.tenancy.ledger import Claim, Ledger
from parrotserve.tenancy.usage import Usage


@dataclass(slots=True)
class _Metered:
    tenant: TenantId
    aboard: dict[int, EngineId] = field(default_factory=dict[int, EngineId])
    """The engines that have the request, by epoch."""
    taken: int = 0
    over: bool = False


_NOTHING = RunUsage()

SAVE_SECONDS = 5.0
"""Seconds between saves. Usage since the last save is lost if the service is killed."""


class Meter:
    """Accounts for usage. Owned by one event loop. `clock` gives seconds, from any origin."""

    def __init__(self, directory: Directory, metrics: Metrics, clock: Callable[[], float]) -> None:
        self.ledger = Ledger()
        self.unsaved: dict[TenantId, Usage] = {}
        """Usage that is neither in the store nor being written to it."""
        self._writing: asyncio.Task[None] | None = None
        self._directory = directory
        self._metrics = metrics
        self._clock = clock
        self._names = 0
        self._requests: dict[RequestId, _Metered] = {}
        self._aboard: dict[EngineId, set[RequestId]] = {}
        self._departed: dict[tuple[RequestId, int], RequestId] = {}
        """New names of requests whose id is used again while engines still have runs of them; by old id and epoch."""

    def accept(self, tenant: TenantId, session: SessionId, claims: Sequence[Claim], *, again: bool = False) -> None:
        """Claim for new requests, or (`again`) for retried ones.

        Raises `LimitExceeded`; then nothing has changed.
        """
        if not again:
            for claim in claims:
                self._set_apart(claim.request)
        fresh = [claim for claim in claims if claim.request not in self._requests]
        self.ledger.accept(tenant, session, fresh, self._directory.limits(tenant), now=self._clock())
        self._note(tenant, fresh)
        for claim in claims:
            # A request that is retried while an engine still has its old run still has its claim.
            self._requests[claim.request].over = False

    def restore(self, tenant: TenantId, session: SessionId, claims: Sequence[Claim], used: Iterable[RunUsage]) -> None:
        """Claim for a session that was accepted before the service was restarted, whatever the limits are now; `used`
        is what its requests used."""
        taken = sum(map(_tokens, used))
        self.ledger.restore(tenant, session, claims, taken, now=self._clock())
        self._note(tenant, claims)

    def withdraw(self, claims: Iterable[Claim]) -> None:
        """Withdraw claims that were accepted here but whose requests were refused elsewhere."""
        for claim in claims:
            self.over(claim.request)

    def end_session(self, session: SessionId) -> None:
        """Note that a session is over; its last requests may still be aboard engines."""
        self.ledger.end_session(session)

    def sized(self, request: RequestId, tokens: int) -> None:
        """Resize a claim, now that the most that the request may take is known. Raises `LimitExceeded` if that is too
        much after all."""
        found = self._requests.get(request)
        if found is not None:
            self.ledger.resize(request, tokens, self._directory.limits(found.tenant), now=self._clock())

    def opened(self, request: RequestId, epoch: int, engine: EngineId) -> None:
        """Note that an engine gets a run of the request."""
        found = self._requests.get(request)
        if found is not None:
            found.aboard[epoch] = engine
            self._aboard.setdefault(engine, set()).add(request)

    def heard(self, event: Event) -> None:
        """Note an event of an engine, before the machine handles it."""
        match event:
            case RequestEnded(usage=RunUsage() as used):
                self.ended(event.request, event.epoch, used)
            case EngineLost():
                self.lost(event.engine)
            case _:
                pass

    def ended(self, request: RequestId, epoch: int, usage: RunUsage) -> None:
        """Note that an engine no longer has the request, and record what it used there."""
        request = self._departed.pop((request, epoch), request)
        found = self._requests.get(request)
        if found is None:
            return
        engine = found.aboard.pop(epoch, None)
        if engine is not None and engine not in found.aboard.values():
            self._aboard[engine].discard(request)
        if usage != _NOTHING:
            found.taken += _tokens(usage)
            self.unsaved[found.tenant] = self.unsaved.get(found.tenant, Usage()).plus(usage)
            self._metrics.used(found.tenant, usage)
        self._settle(request, found)

    def lost(self, engine: EngineId) -> None:
        """Note that an engine died; the usage of its requests is lost with it."""
        for request in self._aboard.pop(engine, set()):
            found = self._requests[request]
            self._departed = {run: name for run, name in self._departed.items() if name != request}
            found.aboard = {epoch: other for epoch, other in found.aboard.items() if other != engine}
            self._settle(request, found)

    def over(self, request: RequestId) -> None:
        """Note that the machine is done with the request."""
        found = self._requests.get(request)
        if found is not None:
            found.over = True
            self._settle(request, found)

    async def usage(self, tenant: TenantId | None) -> list[TenantUsage]:
        """Usage of a tenant (None: of all tenants) by day."""
        await self.save()
        stored = await asyncio.to_thread(self._directory.usage, tenant) if self._directory.stores_usage else []
        unsaved = [(_today(), name, one) for name, one in self.unsaved.items()]  # what cannot be stored now
        rows: dict[tuple[str, TenantId], Usage] = {}
        for day, name, one in (*stored, *unsaved):
            rows[day, name] = rows.get((day, name), Usage()).merged(one)
        return [
            TenantUsage(
                tenant=name,
                day=day,
                requests=one.requests,
                prompt_tokens=one.prompt_tokens,
                cached_tokens=one.cached_tokens,
                output_tokens=one.output_tokens,
                engine_seconds=one.seconds,
            )
            for (day, name), one in rows.items()
            if tenant in (None, name)
        ]

    async def save(self, *, wait: bool = True) -> None:
        """Write unsaved usage to the store, if there is one, without blocking the event loop. What cannot be written is
        kept for the next save. Without `wait`, it gives up at once if another process is writing."""
        while self._writing is not None:
            await asyncio.shield(self._writing)
        if self.unsaved and self._directory.stores_usage:
            # A task of its own: its caller may be cancelled, and half-written usage must not be saved again.
            self._writing = asyncio.ensure_future(self._write(wait=wait))
            await asyncio.shield(self._writing)

    async def _write(self, *, wait: bool) -> None:
        used, self.unsaved = self.unsaved, {}
        written = False
        try:
            written = await asyncio.to_thread(self._directory.add_usage, _today(), used, wait=wait)
        finally:
            self._writing = None
            if not written:
                for tenant, since in self.unsaved.items():
                    used[tenant] = used.get(tenant, Usage()).merged(since)
                self.unsaved = used

    async def save_now_and_then(self) -> None:
        """Save at intervals, for ever."""
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            await self.save(wait=False)

    def _note(self, tenant: TenantId, claims: Sequence[Claim]) -> None:
        self._metrics.tenant_served(tenant)
        for claim in claims:
            self._requests[claim.request] = _Metered(tenant)

    def _set_apart(self, request: RequestId) -> None:
        """Rename an earlier request of the same id that engines still have, so that its account stays separate."""
        found = self._requests.pop(request, None)
        if found is None:
            return
        self._names += 1
        name = RequestId(f"{request}#{self._names}")
        self._requests[name] = found
        self.ledger.rename(request, name)
        for epoch, engine in found.aboard.items():
            self._departed[request, epoch] = name
            self._aboard[engine].discard(request)
            self._aboard[engine].add(name)

    def _settle(self, request: RequestId, found: _Metered) -> None:
        if found.over and not found.aboard:
            del self._requests[request]
            self.ledger.settle(request, found.taken, now=self._clock())


def _tokens(usage: RunUsage) -> int:
    return usage.prompt_tokens + usage.output_tokens


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())
