"""Reception: admits batches with the models that they name, and checks them before a model is fetched for them."""

import asyncio
from dataclasses import replace
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
    """Admits batches. Owned by one event loop."""

    def __init__(self, config: ServiceConfig, directory: Directory, fleet: Fleet, gate: Gate) -> None:
        self._config = config
        self._directory = directory
        self._fleet = fleet
        self._gate = gate
        self._aside = Aside("schemas")

    def models_at_once(self, body: Submit) -> Models | None:
        """The models of a batch that can be admitted without waiting; None if others of its session may arrive before
        it is admitted."""
        return None if is_big(body) or has_schema(body) else self._fleet.all_serving(models_of(body))

    def lacks(self, body: Submit) -> bool:
        """Whether a batch names a model that is not served yet, and models are served on demand."""
        return self._config.on_demand and any(self._fleet.find(name) is None for name in models_of(body))

    def unfetched(self, name: str | None) -> ServedModel | None:
        """A stand-in for a model that is not served yet; None for one that is.

        Raises `UnknownModel` for one that may not be served.
        """
        return None if self._fleet.find(name) is not None else unfetched_model(self._fleet.allowed(name))

    async def rehearse(self, body: Submit, tenant: TenantId) -> None:
        """Raise the refusals of a batch that do not depend on its models, before a model is fetched for it.

        Limits on tokens are the exception: these can be counted only once the model's tokenizer is there.
        """
        absent = {name: self.unfetched(name) for name in models_of(body)}
        if not any(absent.values()):
            return
        models = {name: model or await self._fleet.require(name) for name, model in absent.items()}
        self._gate.check(await self.admit(body, tenant, models), {model.name for model in models.values()})

    async def admit(self, body: Submit, tenant: TenantId, models: Models) -> Submitted:
        """As `admitted`: for a big batch in a thread, for one with schemas in a thread that tenants take turns on."""
        if has_schema(body):
            return await asyncio.wrap_future(self._aside.do(tenant, partial(self.admitted, body, tenant, models)))
        if is_big(body):
            return await asyncio.to_thread(self.admitted, body, tenant, models)
        return self.admitted(body, tenant, models)

    def admitted(self, body: Submit, tenant: TenantId, models: Models) -> Submitted:
        """The batch for the machine; see `admission.admit`."""
        check_variables(body, self._config)
        return admit(
            body,
            tenant=tenant,
            models=models,
            longest_lease=self._config.max_lease_seconds,
            count=self._directory.limits(tenant).counts_tokens,
            published=self._directory.published_texts(),
        )

    def take_in(self, batch: Submitted, models: Models, *, lasting: bool) -> None:
        """Pass a batch to the machine, and start its models' engines: only once it is accepted, as refused batches must
        cost no engines. Without `lasting` it is not recorded."""
        self._gate.take_in(batch if lasting else replace(batch, lasting=False))
        for model in models.values():
            self._fleet.start_engines(model.name)


def models_of(body: Submit) -> dict[str | None, None]:
    """The models that a batch names, in order, each once."""
    return dict.fromkeys(spec.model for spec in body.requests)
