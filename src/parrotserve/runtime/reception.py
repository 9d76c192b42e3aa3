"""Batches on their way in: admitted with the models that they name, and tried before one is fetched for them."""

import asyncio
from functools import partial

from parrotserve.aside import Aside
from parrotserve.config import ServiceConfig
from parrotserve.graph.events import Submitted
from parrotserve.ids import TenantId
from parrotserve.protocol import Submit
from parrotserve.runtime.admission import admit, has_schema, is_big
from parrotserve.runtime.catalog import Models, ServedModel, unfetched_model
from parrotserve.runtime.claims import check_variables
from parrotserve.runtime.fleet import Fleet
from parrotserve.runtime.gate import Gate
from parrotserve.tenancy.directory import Directory


class Reception:
    """Owned by one event loop."""

    def __init__(self, config: ServiceConfig, directory: Directory, fleet: Fleet, gate: Gate) -> None:
        self._config = config
        self._directory = directory
        self._fleet = fleet
        self._gate = gate
        self._aside = Aside("schemas")

    def models_at_once(self, body: Submit) -> Models | None:
        """The models of a batch; None where taking it in takes its time, in which others of its session may come."""
        return None if is_big(body) or has_schema(body) else self._fleet.all_serving(models_of(body))

    def lacks(self, body: Submit) -> bool:
        """Whether a batch names a model that is still to be fetched, if it may be."""
        return self._config.on_demand and any(self._fleet.find(name) is None for name in models_of(body))

    def unfetched(self, name: str | None) -> ServedModel | None:
        """What stands for a model that is not served yet, until it is there; None for one that is.

        Raises `UnknownModel` for one that never is.
        """
        return None if self._fleet.find(name) is not None else unfetched_model(self._fleet.allowed(name))

    async def rehearse(self, body: Submit, tenant: TenantId) -> None:
        """Raises what is refused whatever its models are like, where one is yet to be fetched: that is not done for it.

        Limits on tokens are the exception: how many there are is known once a model's tokenizer is.
        """
        absent = {name: self.unfetched(name) for name in models_of(body)}
        if not any(absent.values()):
            return
        models = {name: model or await self._fleet.require(name) for name, model in absent.items()}
        self._gate.check(await self.admit(body, tenant, models), {model.name for model in models.values()})

    async def admit(self, body: Submit, tenant: TenantId, models: Models) -> Submitted:
        """`admitted`; of a big batch in a thread, of one with schemas in a thread where tenants take turns."""
        if has_schema(body):
            return await asyncio.wrap_future(self._aside.do(tenant, partial(self.admitted, body, tenant, models)))
        if is_big(body):
            return await asyncio.to_thread(self.admitted, body, tenant, models)
        return self.admitted(body, tenant, models)

    def admitted(self, body: Submit, tenant: TenantId, models: Models) -> Submitted:
        """The batch for the machine; see `admit`."""
        check_variables(body, self._config)
        return admit(
            body,
            tenant=tenant,
            models=models,
            longest_lease=self._config.max_lease_seconds,
            count=self._directory.limits(tenant).counts_tokens,
            published=self._directory.published_texts(),
        )

    def take_in(self, batch: Submitted, models: Models) -> None:
        """Engines are started for what was accepted, so that what is refused costs none."""
        self._gate.take_in(batch)
        for model in models.values():
            self._fleet.start_engines(model)


def models_of(body: Submit) -> dict[str | None, None]:
    """The models that a batch names, in order."""
    return dict.fromkeys(spec.model for spec in body.requests)
