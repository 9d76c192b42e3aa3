"""The service: one façade for the HTTP server and the embedded transport; it takes and gives the protocol's models."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing
from typing import TypeVar
from weakref import WeakValueDictionary

from prometheus_client import CollectorRegistry

from parrotserve.config import ServiceConfig
from parrotserve.criteria import Criteria
from parrotserve.errors import ParrotError, RequestRefused, ServiceUnavailable
from parrotserve.graph.events import CallReturned, ValueSet, Wait, Withdrawn
from parrotserve.graph.memory import size_of_text
from parrotserve.graph.snapshots import SessionSnapshot
from parrotserve.ids import LOCAL_TENANT, CallId, RequestId, SessionId, TenantId, VariableId, owned, shown
from parrotserve.listing import EngineView, SessionList, TenantUsage
from parrotserve.machine import Machine
from parrotserve.models.pull import Progress
from parrotserve.protocol import (
    Accepted,
    CallOffer,
    CallResult,
    CallState,
    Failure,
    ModelView,
    SessionView,
    Submit,
    Value,
    WaitSpec,
)
from parrotserve.runtime import views
from parrotserve.runtime.attachments import Attachments
from parrotserve.runtime.calls import outcome_of
from parrotserve.runtime.catalog import Loader, ServedModel, load_model
from parrotserve.runtime.driver import Driver
from parrotserve.runtime.durability import Durability
from parrotserve.runtime.ending import Ending
from parrotserve.runtime.exchanges import Exchanges, WaitEvent
from parrotserve.runtime.fleet import Fleet
from parrotserve.runtime.gate import Gate
from parrotserve.runtime.keeper import KeeperPolicy
from parrotserve.runtime.meter import Meter
from parrotserve.runtime.metrics import Metrics
from parrotserve.runtime.reception import Reception, models_of
from parrotserve.runtime.recovery import recover
from parrotserve.sampling import Usage
from parrotserve.store.journal import Journal
from parrotserve.tenancy.directory import Directory
from parrotserve.texts import check_text

_MANY_OBJECTS = 500
"""Variables and requests of a session, up to which its snapshot is read on the event loop."""

AnswerEvent = Accepted | WaitEvent
T = TypeVar("T")


class Service:
    """Models, engines and the machine behind one interface. Owned by one event loop.

    Ids are chosen by clients. Each tenant has its own namespace: two tenants may use the same id for different
    objects. Every method raises the machine's refusals (`RequestRefused`), and `ServiceUnavailable` once the service
    closes. Abandoning an iterator, or a task that waits, cancels only the waiting. A session's lease is suspended
    while one of its exchanges is open.
    """

    def __init__(
        self,
        config: ServiceConfig,
        *,
        load: Loader = load_model,
        policy: KeeperPolicy | None = None,
        directory: Directory | None = None,
        by_path: bool = False,
    ) -> None:
        self.config = config
        self.directory = directory or Directory()
        self._metrics = Metrics(engines=self.engines, sessions=lambda: len(self._driver.machine.graph.sessions))
        self.meter = Meter(self.directory, self._metrics, asyncio.get_running_loop().time)
        self._driver = Driver(Machine(switches=config.switches, bounds=config.bounds), self.meter, config.sandbox)
        policy = policy or KeeperPolicy()
        self._fleet = Fleet(
            config, self._driver, self._metrics, load=load, policy=policy, directory=self.directory, by_path=by_path
        )
        self._gate = Gate(config, self.directory, self.meter, self._driver, find=self._fleet.find)
        self.reception = Reception(config, self.directory, self._fleet, self._gate)
        self._attachments = Attachments(self._driver)
        self._saving = asyncio.ensure_future(self.meter.save_now_and_then())
        self._admissions: WeakValueDictionary[SessionId, asyncio.Lock] = WeakValueDictionary()
        self.ending = Ending(awaited=lambda: self._driver.awaited)
        self._durability = Durability()
        self.recovered = 0
        """Number of sessions that came back from the journal."""
        self._exchanges = Exchanges(self._driver, self._attachments, self.ending, self._durability.committed)

    @classmethod
    async def start(
        cls,
        config: ServiceConfig,
        *,
        progress: Progress | None = None,
        load: Loader = load_model,
        policy: KeeperPolicy | None = None,
        directory: Directory | None = None,
        journal: Journal | None = None,
        by_path: bool = False,
    ) -> "Service":
        """Return a service whose models are loaded (pulled if needed, reporting `progress`) and whose engines are
        starting; with a `journal`, its sessions go on, and all that is accepted from now on is kept there. Models on
        demand that these sessions name are loaded meanwhile.

        `by_path` lets requests name models on demand by path, too: for callers that may read the files anyway.
        Raises `ModelError`, and `ServiceUnavailable` for a journal that cannot be read; then nothing is left running.
        """
        service = cls(config, load=load, policy=policy, directory=directory, by_path=by_path)
        try:
            for name in config.models:
                service._fleet.start_engines((await service._fleet.load(name, progress=progress)).name)
            if journal is not None:
                parts = service._driver, service._fleet, service._gate
                service.recovered = recover(journal, *parts, longest_lease=config.max_lease_seconds)
                service._durability.journal = journal
        except BaseException:
            await service.close()
            raise
        return service

    async def wait_started(self) -> None:
        """Wait until all engines are up. Raises the error of the first that cannot be started."""
        await self._fleet.wait_started()

    def drain(self) -> None:
        """Accept no new work. Accepted work runs on, and can be waited for."""
        self.ending.draining = True

    def end_exchanges(self) -> None:
        """Accept no new work, and end open exchanges with `ServiceUnavailable`."""
        self.drain()
        if not self.ending.ended:
            self.ending.ended = True
            self._driver.board.close(self.ending.error)
            self._driver.desk.close()
            self._driver.end_waiting()

    async def close(self) -> None:
        """End everything. Safe to call twice."""
        self.end_exchanges()
        self._driver.close()
        await self._driver.workshop.close()
        await self._fleet.close()
        self._saving.cancel()
        await asyncio.gather(self._saving, return_exceptions=True)
        await self.meter.save()

    # --- Declaring and waiting -------------------------------------------------------------------------------

    async def declare(
        self,
        body: Submit,
        *,
        tenant: TenantId = LOCAL_TENANT,
        progress: Progress | None = None,
        lasting: bool = True,
    ) -> tuple[Accepted, AsyncGenerator[WaitEvent, None]]:
        """Accept a batch. Returns the acceptance, and an iterator over the events that the batch waits for.

        Without `lasting`, the session is not kept in the journal: it ends with its client's connection.
        """
        session = owned(tenant, SessionId(body.session))
        try:
            self.ending.check_takes(body)
            self._durability.check()
            models = self.reception.models_at_once(body) if session not in self._admissions else None
            if models is not None:
                self.reception.take_in(self.reception.admitted(body, tenant, models), models, lasting=lasting)
            else:
                async with self._admission(session):
                    await self.reception.rehearse(body, tenant)
                    models = await self._fleet.require_all(models_of(body), progress=progress)
                    batch = await self.reception.admit(body, tenant, models)
                    self.ending.check_takes(body)
                    self.reception.take_in(batch, models, lasting=lasting)
        except ParrotError as error:
            self._metrics.refused(tenant, error.code)
            raise
        await (self._durability.batch_committed() if lasting else self._durability.committed())
        accepted = Accepted(session=SessionId(body.session))
        return accepted, self._exchanges.watched(accepted.session, body.wait, tenant)

    async def submit(self, body: Submit, *, tenant: TenantId = LOCAL_TENANT) -> AsyncGenerator[AnswerEvent, None]:
        """Declare a batch: yields `Accepted`, then deltas, values and failures until every wait is answered.

        A refusal is raised before `Accepted`; then nothing has changed.
        """
        accepted, answer = await self.declare(body, tenant=tenant)
        async with aclosing(answer) as events:
            yield accepted
            async for event in events:
                yield event

    async def wait(
        self,
        session: SessionId,
        variable: VariableId,
        *,
        criteria: Criteria = Criteria.LATENCY,
        timeout: float | None = None,  # noqa: ASYNC109 - running out is an answer, and cancels nothing
        tenant: TenantId = LOCAL_TENANT,
    ) -> Value:
        """A variable's value. Raises its failure, or `GetTimeout`."""
        self._exchanges.ask(session, Wait(owned(tenant, variable), criteria), tenant)
        wait = WaitSpec(variable=variable, criteria=criteria, timeout=timeout)
        async with aclosing(self._exchanges.watched(session, [wait], tenant)) as events:
            async for event in events:
                if isinstance(event, Failure):
                    raise event.error.to_error()
                if isinstance(event, Value):
                    return event
        raise ServiceUnavailable("The wait ended without an answer.")

    def stream(
        self, session: SessionId, variable: VariableId, *, offset: int = 0, tenant: TenantId = LOCAL_TENANT
    ) -> AsyncGenerator[WaitEvent, None]:
        """Stream a variable's text from character `offset` on: deltas as it grows, then its value or failure.

        A refusal is raised by the call itself, not at the first event.
        """
        self._exchanges.ask(session, Wait(owned(tenant, variable), Criteria.LATENCY, stream=True), tenant)
        return self._exchanges.watched(session, [WaitSpec(variable=variable, stream=True)], tenant, offset=offset)

    def request_of(
        self, session: SessionId, variable: VariableId, *, tenant: TenantId = LOCAL_TENANT
    ) -> RequestId | None:
        """The request that produces a variable of a session, if one does. Raises `UnknownObject`."""
        found = self._driver.machine.request_of(owned(tenant, session), tenant, owned(tenant, variable))
        return None if found is None else shown(found)

    async def request_usage(self, session: SessionId, request: RequestId, *, tenant: TenantId = LOCAL_TENANT) -> Usage:
        """Wait until a request no longer runs, and return its usage. Raises `UnknownObject` for an unknown session."""
        session = owned(tenant, session)
        self._attachments.touch(session, tenant)
        usage = await self._driver.usage(session, owned(tenant, request))
        await self.committed()
        return usage

    # --- Changing what was declared --------------------------------------------------------------------------

    def set_value(
        self, session: SessionId, variable: VariableId, value: str, *, tenant: TenantId = LOCAL_TENANT
    ) -> None:
        """Make an EMPTY variable READY; setting the same value again is allowed. Raises `AlreadyProduced`."""
        self.ending.check_there()
        check_text(value, f"The value of {variable}")
        self._gate.check_memory(tenant, size_of_text(value))
        session, variable = owned(tenant, session), owned(tenant, variable)
        self._driver.apply(ValueSet(session=session, tenant=tenant, variable=variable, value=value))

    def cancel_variable(self, session: SessionId, variable: VariableId, *, tenant: TenantId = LOCAL_TENANT) -> None:
        """Cancel a variable's producer, and upstream producers that nothing else needs."""
        self._driver.apply(Withdrawn(session=owned(tenant, session), tenant=tenant, variable=owned(tenant, variable)))

    def retry(self, session: SessionId, variable: VariableId, *, tenant: TenantId = LOCAL_TENANT) -> None:
        """Run the failed or cancelled producer of a variable again, and the producers that failed upstream of it."""
        self.ending.check_open()
        session = owned(tenant, session)
        for back in self._gate.retry(session, tenant, owned(tenant, variable)):
            self._driver.reopen(session, back.id)

    def end_session(self, session: SessionId, *, tenant: TenantId = LOCAL_TENANT) -> None:
        """Cancel all that still runs in a session, and free the session's objects."""
        self._driver.end_session(owned(tenant, session), tenant)

    def session_view(self, session: SessionId, *, tenant: TenantId = LOCAL_TENANT) -> SessionView:
        """The session's graph, with states and timings."""
        session = owned(tenant, session)
        self._attachments.touch(session, tenant)
        return views.session_view(self._driver.machine.session_view(session, tenant))

    async def read_session(
        self, session: SessionId, read: Callable[[SessionSnapshot], T], *, tenant: TenantId = LOCAL_TENANT
    ) -> T:
        """What `read` makes of a session's snapshot. Big ones are read in a thread, off the event loop."""
        session = owned(tenant, session)
        self._attachments.touch(session, tenant)
        picture = self._driver.machine.session_view(session, tenant)
        await self.committed()
        if len(picture.variables) + len(picture.requests) <= _MANY_OBJECTS:
            return read(picture)
        return await asyncio.to_thread(read, picture)

    def sessions(self, tenant: TenantId | None, *, after: int = 0, most: int = 100) -> SessionList:
        """A page of a tenant's sessions (None: of all tenants). Listing sessions does not renew their leases."""
        found = self._driver.machine.sessions(tenant, after=after)
        return views.session_list(found, most=most, clock=self._driver.now(), wall=time.time())

    # --- Native calls ----------------------------------------------------------------------------------------

    def calls(self, session: SessionId, *, tenant: TenantId = LOCAL_TENANT) -> AsyncGenerator[CallOffer, None]:
        """Native calls for this client, until the session ends. Refuses when called, not at the first offer."""
        self.ending.check_there()
        self._attachments.touch(owned(tenant, session), tenant)
        return self._exchanges.offers(session, tenant)

    def put_result(
        self,
        session: SessionId,
        call: CallId,
        result: CallResult,
        *,
        attempt: int | None = None,
        tenant: TenantId = LOCAL_TENANT,
    ) -> CallState:
        """Report a native call's value or error. Returns what the call is then. Ignored if it comes too late, or if it
        belongs to an earlier `attempt` than the last (None: the last)."""
        self.ending.check_there()
        value, error = outcome_of(result)
        self._gate.check_memory(tenant, size_of_text(value))
        session = owned(tenant, session)
        returned = CallReturned(
            session=session, tenant=tenant, call=owned(tenant, call), attempt=attempt, value=value, error=error
        )
        self._driver.apply(returned)
        self._driver.desk.settle(session, call, attempt=attempt)
        return CallState(state=self._driver.machine.call_state(session, tenant, returned.call))

    # --- What the service is ---------------------------------------------------------------------------------

    def check_ready(self) -> None:
        """Raises `ServiceUnavailable` unless the service accepts requests and every configured model has an engine that
        is up."""
        if self.ending.draining:
            raise ServiceUnavailable("The service is shutting down.")
        self._durability.check()
        if not self._fleet.ready:
            raise ServiceUnavailable("A model has no engine that is up; /v1/engines says which are.")

    @property
    def metrics(self) -> CollectorRegistry:
        """The registry of metrics for Prometheus."""
        return self._metrics.registry

    def most_bytes(self, tenant: TenantId) -> int:
        """The largest HTTP body that a tenant may send, in bytes."""
        most = self.config.max_body_bytes
        return min(most, self.directory.limits(tenant).body_bytes or most)

    def held(self, tenant: TenantId) -> int:
        """About how many bytes of memory a tenant's sessions hold."""
        return self._driver.machine.graph.held[tenant]

    def usual_output(self, tenant: TenantId, *, texts: int = 1) -> int | None:
        """Default `max_tokens` of each of `texts` outputs of a tenant that has a limit on tokens; None without one."""
        return self.directory.limits(tenant).usual_output(texts)

    async def usage(self, tenant: TenantId | None) -> list[TenantUsage]:
        """Usage of a tenant (None: of all tenants) by day, as far back as it is kept."""
        return await self.meter.usage(tenant)

    def models(self) -> list[ModelView]:
        """The models that requests may name."""
        return self._fleet.models()

    def model_view(self, name: str) -> ModelView:
        """A model that is already served, found by any name that requests may use. Raises `UnknownModel`."""
        return self._fleet.model_view(name)

    async def model(self, name: str | None) -> ServedModel:
        """Load a model if needed, found by any name that requests may use, and return it with its prompt format.

        Raises `UnknownModel`, and the engines' error if none of the model's engines can be started.
        """
        self.ending.check_open()
        return await self._fleet.require(name)

    def engines(self) -> list[EngineView]:
        """The engines and how busy they are."""
        return self._fleet.engines()

    def attached(
        self, session: SessionId, tenant: TenantId = LOCAL_TENANT
    ) -> AbstractContextManager[RequestRefused | None]:
        """Suspend the session's lease while this is open. Gives the refusal if the session does not exist."""
        return self._attachments.attached(owned(tenant, session), tenant)

    async def committed(self) -> None:
        """Wait until all that happened so far would survive the death of this process: to be awaited before anything of
        it is shown to a client. Raises `ServiceUnavailable` while the journal cannot be written."""
        await self._durability.committed()

    # --- Inside ----------------------------------------------------------------------------------------------

    def _admission(self, session: SessionId) -> asyncio.Lock:
        """The lock by which batches of one session are admitted one at a time, in order of arrival."""
        lock = self._admissions.get(session)
        if lock is None:
            lock = self._admissions[session] = asyncio.Lock()
        return lock
