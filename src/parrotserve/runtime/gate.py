"""The gate: checks batches against their tenant's limits, claims for them, and passes them to the machine."""

from collections.abc import Set as AbstractSet
from dataclasses import replace

from parrotserve.config import ServiceConfig
from parrotserve.engines.native.memory import usable_memory
from parrotserve.errors import LimitExceeded, ParrotError, TooLarge
from parrotserve.graph.events import Retried, Submitted, TenantWeighed
from parrotserve.graph.memory import size_of_new
from parrotserve.graph.objects import Variable
from parrotserve.graph.validation import plan_submit
from parrotserve.ids import SessionId, TenantId, VariableId
from parrotserve.runtime.claims import Find, check_size, claims_of, claims_of_batch
from parrotserve.runtime.driver import Driver
from parrotserve.runtime.meter import Meter
from parrotserve.store.recovery import Recovered, outputs_of
from parrotserve.tenancy.directory import Directory

_PART_OF_MEMORY = 2
"""Sessions may hold one byte of this many of the machine's memory: engines need the rest."""


class Gate:
    """Enforces limits. Methods raise `LimitExceeded` and `TooLarge`; then nothing has changed."""

    def __init__(
        self, config: ServiceConfig, directory: Directory, meter: Meter, driver: Driver, *, find: Find
    ) -> None:
        self._config = config
        self._directory = directory
        self._meter = meter
        self._driver = driver
        self._find = find
        self._weights: dict[TenantId, float] = {}
        self._memory = usable_memory() // _PART_OF_MEMORY

    def take_in(self, batch: Submitted) -> None:
        """Claim what a batch may use, and pass it to the machine. Withdraws the claims if the machine refuses it."""
        graph = self._driver.machine.graph
        known = graph.sessions.get(batch.session)
        limits = self._directory.limits(batch.tenant)
        self._weigh(batch.tenant, limits.weight)
        check_size(batch, known, limits, self._config)
        self.check_memory(batch.tenant, size_of_new(batch, graph))
        claims = claims_of_batch(batch, graph, self._find, count=limits.counts_tokens)
        self._meter.accept(batch.tenant, batch.session, claims)
        try:
            self._driver.apply(batch)
        except ParrotError:
            self._meter.withdraw(claims)
            if known is None:
                self._meter.end_session(batch.session)
            raise

    def restore(self, found: Recovered) -> None:
        """Bring back a session of the journal: it was within the limits when it was accepted. Raises the machine's
        refusals; then nothing has changed."""
        batch, graph = found.event.batch, self._driver.machine.graph
        plan_submit(graph, batch, set(found.models), self._driver.now())  # before its texts are on the board
        limits = self._directory.limits(batch.tenant)
        self._weigh(batch.tenant, limits.weight)
        done = {spec.id for spec in batch.requests if found.is_done(spec)}
        claims = claims_of_batch(_with_values(found), graph, self._find, count=limits.counts_tokens)
        open_claims = [claim for claim in claims if claim.request not in done]
        self._meter.restore(batch.tenant, batch.session, open_claims, found.event.usages.values())
        try:
            self._driver.restore(found)
        except ParrotError:
            self._meter.withdraw(claims)
            self._meter.end_session(batch.session)
            raise

    def check_memory(self, tenant: TenantId, more: int) -> None:
        """Raises `LimitExceeded` if `more` bytes would exceed what a tenant's sessions may hold in memory, and
        `TooLarge` if they would even if nothing else were held.

        Without `held_bytes`, a tenant may hold as much of the sessions' memory as it leaves free for others: alone it
        may hold half, two a third each. Without tenants (an open directory), all of it may be held.
        """
        graph = self._driver.machine.graph
        own, every = graph.held[tenant], sum(graph.held.values())
        free = self._memory - (every if self._directory.closed else 0)
        limit = self._directory.limits(tenant).held_bytes
        most = min(free, limit or free)
        alone = self._memory // (2 if self._directory.closed else 1)
        if more > min(alone, limit or alone):
            raise TooLarge(
                f"This would take about {more / 1e6:,.1f} MB of memory, more than all of a tenant's sessions may hold.",
                limit="held_bytes",
            )
        if more and own + more > most:
            raise LimitExceeded(
                f"The sessions of this tenant hold about {own / 1e6:,.1f} MB, and may not hold {more / 1e6:,.1f} MB "
                "more. End finished sessions, or send less. Try again in 1 s.",
                limit="held_bytes",
                retry_after="1",
            )

    def check(self, batch: Submitted, models: AbstractSet[str]) -> None:
        """Raises the refusal of a batch as if these models were served, limits on tokens aside. Changes nothing."""
        graph = self._driver.machine.graph
        limits = self._directory.limits(batch.tenant)
        check_size(batch, graph.sessions.get(batch.session), limits, self._config)
        self.check_memory(batch.tenant, size_of_new(batch, graph))
        claims = claims_of_batch(batch, graph, self._find, count=False)
        self._meter.ledger.check(batch.tenant, batch.session, len(claims), limits)
        plan_submit(graph, batch, models, self._driver.now())

    def _weigh(self, tenant: TenantId, weight: float) -> None:
        if self._weights.get(tenant, 1.0) != weight:
            self._weights[tenant] = weight
            self._driver.apply(TenantWeighed(tenant=tenant, weight=weight))

    def retry(self, name: SessionId, tenant: TenantId, variable: VariableId) -> list[Variable]:
        """Claim what a retry of a variable's producers may use, and have the machine retry them. Returns the variables
        that are produced again."""
        machine = self._driver.machine
        back = machine.revival(name, tenant, variable)
        count = self._directory.limits(tenant).counts_tokens
        claims = claims_of(back.requests, machine.graph, self._find, count=count)
        self._meter.accept(tenant, name, claims, again=True)
        try:
            self._driver.apply(Retried(session=name, tenant=tenant, variable=variable))
        finally:
            still = {request.id for request in back.requests if request.fallen}
            self._meter.withdraw(claim for claim in claims if claim.request in still)
        return [one for one in back.variables if not one.fallen]


def _with_values(found: Recovered) -> Submitted:
    """A session's batch as if what clients had set, and native calls returned, had been declared: how long prompts are
    that read it cannot be told from the batch alone."""
    batch = found.event.batch
    written = {output for spec in batch.requests for output in outputs_of(spec)}
    known = {variable: entry.value for variable, entry in found.values.items() if variable not in written}
    return replace(batch, variables=tuple(replace(one, value=known.get(one.id, one.value)) for one in batch.variables))
