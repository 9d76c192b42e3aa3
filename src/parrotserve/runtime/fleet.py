"""The fleet: the models served, the engines that serve them, and engines' reports turned into the machine's events."""

import asyncio
import logging
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from copy import copy
from functools import partial

from parrotserve.aside import Aside
from parrotserve.config import ServiceConfig
from parrotserve.engines.base import (
    Capability,
    Command,
    Engine,
    EngineDescription,
    Event,
    Heartbeat,
    SegmentFinished,
    SequenceEnded,
    StepsTimed,
    TokensGenerated,
)
from parrotserve.errors import ParrotError, PullFailed, ServiceUnavailable, UnknownModel
from parrotserve.graph.decisions import (
    CompleteSequence,
)
from parrotserve.graph.events import EngineJoined, EngineLost, RequestEnded
from parrotserve.graph.states import ProducerState
from parrotserve.ids import EngineId, RequestId
from parrotserve.listing import EngineView
from parrotserve.models.pull import Progress
from parrotserve.models.registry import DEFAULT_ALIAS
from parrotserve.protocol import ModelView
from parrotserve.runtime.catalog import NAMES_ON_DEMAND, Loader, Models, ServedModel, may_serve, slug_of
from parrotserve.runtime.driver import Driver
from parrotserve.runtime.keeper import EngineKeeper, Extending, KeeperPolicy, KeeperState, Order
from parrotserve.runtime.metrics import Metrics
from parrotserve.runtime.orders import Orders
from parrotserve.runtime.render import Opening
from parrotserve.runtime.runs import request_ended, steps_run
from parrotserve.runtime.views import engine_view
from parrotserve.tenancy.directory import Directory

log = logging.getLogger(__name__)

_BOUNDLESS = 1 << 40
_CLEARING_SECONDS = 1.0
"""Time for a model's cancelled download to remove its partial file."""
_RUNS_AHEAD = {Capability.TOKENS, Capability.LATE_SEGMENTS, Capability.UPDATE}


class Fleet:
    """Models by every name that they are asked for, and the keepers of their engines. Owned by one event loop."""

    def __init__(
        self,
        config: ServiceConfig,
        driver: Driver,
        metrics: Metrics,
        *,
        load: Loader,
        policy: KeeperPolicy,
        directory: Directory,
        by_path: bool,
    ) -> None:
        self._config = config
        self._orders = Orders(driver, directory)
        self._by_path = by_path
        self._driver = driver
        self._metrics = metrics
        self._load = load
        self._policy = policy
        self._asked: dict[str, ServedModel] = {}
        self._models: dict[str, ServedModel] = {}
        self._stand_ins: dict[str, EngineId] = {}
        """By model whose engines are all given up: the engine that the machine is told is up, so that requests fail at
        once."""
        self._started: set[str] = set()
        self._loading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By name, so that a model that takes long, or never comes, holds up no other."""
        self._closed = False

    # --- Models ----------------------------------------------------------------------------------------------

    @property
    def default(self) -> str:
        """The model of requests that name none."""
        return self._config.models[0]

    def _meant(self, name: str | None) -> str:
        """Resolve the alias `default` to the first model, so that programs may use it with any service, unless a model
        of that name is configured."""
        if name is not None and name.lower() == DEFAULT_ALIAS:
            return next((one for one in self._config.models if one.lower() == DEFAULT_ALIAS), self.default)
        return self.default if name is None else name

    def find(self, name: str | None) -> ServedModel | None:
        """A model that is already served, found by its own name or by a name that was used for it before."""
        name = self._meant(name)
        return self._asked.get(name) or self._models.get(name) or self._models.get(name.lower())

    def allowed(self, name: str | None) -> str:
        """The resolved name of a model that may be served. Raises `UnknownModel` for others."""
        name = self._meant(name)
        if not may_serve(name, self._config, by_path=self._by_path):
            raise self._unknown(name)
        return name

    async def load(self, name: str | None, *, progress: Progress | None = None) -> ServedModel:
        """Load a model, without engines: `start_engines` starts these. Raises `UnknownModel`, the errors of loading,
        and `ServiceUnavailable` if the service ended meanwhile."""
        name = self._meant(name)
        found = self.find(name)
        if found is not None:
            return found
        async with self._loading[self.allowed(name).lower()]:
            found = self.find(name)
            if found is not None:
                return found
            found = await self._load_in_thread(name, progress)
            if self._closed:
                raise ServiceUnavailable("The service ended before the model was ready.")
            # One file may be named by many paths, but has only one set of engines.
            found = next((one for one in self._models.values() if found.path and one.path == found.path), found)
            self._asked[name] = found = self._models.setdefault(found.name, found)
            if found.name not in self._driver.renderers:
                self._driver.renderers[found.name] = found.renderer
                self._driver.machine.add_model(found.name)
            return found

    async def _load_in_thread(self, name: str, progress: Progress | None) -> ServedModel:
        """Load in a thread. A thread cannot be cancelled, but it is stopped when it next reports progress. If it does
        not, as while the network does not answer, it is left behind: the process's exit does not wait for it."""
        unwanted = threading.Event()

        def watched(done: int, total: int) -> None:
            if unwanted.is_set():
                raise PullFailed("The service was stopped before the model was fetched.")
            if progress is not None:
                progress(done, total)

        loading = asyncio.wrap_future(Aside("model").do(name, partial(self._load, name, self._config, watched)))
        loading.add_done_callback(lambda done: done.cancelled() or done.exception())  # mark its error as retrieved
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            unwanted.set()
            await asyncio.wait({loading}, timeout=_CLEARING_SECONDS)
            raise

    async def require(self, name: str | None, *, progress: Progress | None = None) -> ServedModel:
        """A model that can serve, now or soon. Raises the errors of `load`, and the engines' error if all of the
        model's engines are given up."""
        return self.serving(name) or self._checked(await self.load(name, progress=progress))

    def serving(self, name: str | None) -> ServedModel | None:
        """As `require`, for models that are already served; None for others."""
        model = self.find(name)
        return self._checked(model) if model is not None else None

    async def require_all(self, names: Iterable[str | None], *, progress: Progress | None = None) -> Models:
        """The results of `require`, by name."""
        return {name: await self.require(name, progress=progress) for name in names}

    def all_serving(self, names: Iterable[str | None]) -> Models | None:
        """The results of `serving`, by name; None if one of the models is not served yet."""
        models: dict[str | None, ServedModel] = {}
        for name in names:
            model = self.serving(name)
            if model is None:
                return None
            models[name] = model
        return models

    def _checked(self, model: ServedModel) -> ServedModel:
        keepers = self._keepers_of(model.name)
        if keepers and all(keeper.state is KeeperState.FAILED for keeper in keepers):
            raise copy(next(keeper.error for keeper in keepers if keeper.error is not None))
        return model

    def expect(self, names: Iterable[str]) -> None:
        """Requests may name these models from now on, and wait for them. Raises `UnknownModel`, before anything
        changes, if one of them may not be served."""
        names = list(names)
        for name in names:
            if self.find(name) is None:
                self.allowed(name)
        for name in names:
            self._driver.machine.add_model(name)

    def models(self) -> list[ModelView]:
        """The models that are served."""
        return [self._view(model) for model in self._models.values()]

    def model_view(self, name: str) -> ModelView:
        """A model that is already served. Raises `UnknownModel`."""
        found = self.find(name)
        if found is None:
            raise self._unknown(name)
        return self._view(found)

    def _view(self, model: ServedModel) -> ModelView:
        return ModelView(
            id=model.name,
            created=model.created,
            name=model.name,
            default=model is self.find(None),
            context_length=self._context_length(model),
        )

    def _unknown(self, name: str) -> UnknownModel:
        served = ", ".join(self._models) or "none yet"
        more = f"; when named: {', '.join(NAMES_ON_DEMAND)}" if self._config.on_demand else ""
        told = f"This service does not serve {name!r}; it serves: {served}{more}."
        return UnknownModel(told, model=name.encode(errors="backslashreplace").decode())

    # --- Engines ---------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether every configured model has an engine that is up; others of its engines may be restarting."""
        return all(map(self._runs, self._config.models))

    async def wait_started(self) -> None:
        """Wait until every engine of the configured models is up. Raises the error of the first that was given up."""
        configured = {model.name for name in self._config.models if (model := self.find(name)) is not None}
        for keeper in [one for one in self._driver.keepers.values() if one.model in configured]:
            await keeper.wait_started()

    def engines(self) -> list[EngineView]:
        """The engines and how busy they are."""
        return [engine_view(keeper) for keeper in self._driver.keepers.values()]

    async def close(self) -> None:
        """End all engines."""
        self._closed = True
        await asyncio.gather(*(keeper.close() for keeper in self._driver.keepers.values()))

    def start_engines(self, model: str) -> None:
        """Start the engines of a model, by its own name, unless they were started before. One that is not loaded yet is
        loaded first; its engines are starting until it is there."""
        if model in self._started:
            return
        self._started.add(model)
        self._metrics.model_served(model)
        for number in range(self._config.engines):
            engine = self._free_id(f"{slug_of(model)}-{number}")
            keeper = EngineKeeper(engine, model, partial(self._made, model, engine), self, policy=self._policy)
            self._driver.keepers[engine] = keeper
            keeper.start()

    async def _made(self, name: str, engine: EngineId) -> Engine:
        model = await self.load(name)
        self._driver.renderers.setdefault(name, model.renderer)  # its file may be served by another name as well
        return model.make_engine(engine)

    def _free_id(self, wanted: str) -> EngineId:
        """An unused engine id: the wanted one, or one with a number, as the slugs of two paths may be equal."""
        names = (wanted, *(f"{wanted}.{number}" for number in range(2, len(self._driver.keepers) + 3)))
        return next(EngineId(name) for name in names if name not in self._driver.keepers)

    def _context_length(self, model: ServedModel) -> int:
        known = [keeper.description.context_length for keeper in self._keepers_of(model.name) if keeper.description]
        return min(known, default=model.context_length)

    def _runs(self, name: str) -> bool:
        model = self.find(name)
        return model is not None and any(keeper.state is KeeperState.UP for keeper in self._keepers_of(model.name))

    def _keepers_of(self, model: str) -> list[EngineKeeper]:
        return [keeper for keeper in self._driver.keepers.values() if keeper.model == model]

    # --- What keepers report and ask (`Office`) --------------------------------------------------------------

    def joined(self, engine: EngineId, description: EngineDescription) -> None:
        """An engine is up."""
        model = self._driver.keepers[engine].model
        stand_in = self._stand_ins.pop(model, None)
        if stand_in is not None:
            self._driver.apply(EngineLost(engine=stand_in, reason="an engine of its model is back"))
        if description.cut_by_cache:
            self._tell_of_small_cache(engine, description)
        joined = EngineJoined(
            engine=engine,
            model=model,
            context_length=description.context_length,
            cache_tokens=description.cache_tokens,
            credits=description.credits,
            batch=description.batch,
            pauses=Capability.PAUSE in description.capabilities,
            retains=description.capabilities >= {Capability.TOKENS, Capability.RETENTION},
            late=description.capabilities >= _RUNS_AHEAD,
        )
        self._driver.apply(joined)

    def _tell_of_small_cache(self, engine: EngineId, description: EngineDescription) -> None:
        model = self.find(self._driver.keepers[engine].model)
        assert model is not None, "a model whose engine is up was loaded"
        # Many models' contexts need more memory than any machine has: with the default memory that is no fault.
        log.log(
            logging.INFO if self._config.kv_memory is None else logging.WARNING,
            "the KV cache of engine %s holds %s tokens, and no request may have more, though the model's context has "
            "%s: raise kv_memory for longer ones",
            engine,
            f"{description.cache_tokens:,}",
            f"{model.context_length:,}",
        )

    def lost(self, engine: EngineId, reason: str) -> None:
        """An engine died or hung."""
        if not self._closed:
            self._metrics.engine_lost(self._driver.keepers[engine].model)
            self._driver.apply(EngineLost(engine=engine, reason=reason))

    def given_up(self, engine: EngineId, error: ParrotError) -> None:
        """An engine cannot be started for now. If it was its model's last, the machine is told that it is up: then its
        keeper refuses every request until an engine is back, so that nobody waits for ever."""
        model = self._driver.keepers[engine].model
        if all(keeper.state is KeeperState.FAILED for keeper in self._keepers_of(model)):
            joined = EngineJoined(
                engine=engine, model=model, context_length=_BOUNDLESS, cache_tokens=_BOUNDLESS, credits=_BOUNDLESS
            )
            self._stand_ins[model] = engine
            self._driver.apply(joined)

    def refuse(self, engine: EngineId, order: Order, error: ParrotError) -> None:
        """Fail the request of an order that cannot be carried out."""
        if isinstance(order, Opening | Extending | CompleteSequence):
            self._driver.apply(RequestEnded(request=order.request, epoch=order.epoch, error=error))

    def heard(self, engine: EngineId, events: Sequence[Event]) -> None:
        """Handle the events of an engine. Raises `EngineFailed` if they break the contract."""
        runs = self._driver.runs
        for event in events:
            match event:
                case TokensGenerated():
                    variable = runs.tokens(event)
                    if variable is not None:
                        self._driver.grew(variable)
                case SegmentFinished():
                    produced = runs.finished(event)
                    if produced is not None:
                        self._driver.apply(produced)
                        runs.take_logprobs(produced.variable)  # still there if the machine no longer wanted it
                case SequenceEnded():
                    self._metrics.sequence_ended(event)
                    self._driver.apply(request_ended(event))
                    self._note_times(event.sequence, event.epoch)
                case StepsTimed():
                    self._driver.apply(steps_run(engine, event))
                case Heartbeat():
                    pass

    def _note_times(self, request: RequestId, epoch: int) -> None:
        found = self._driver.machine.graph.requests.get(request)
        if found is None or found.state is not ProducerState.DONE or found.epoch != epoch:
            return
        ready, started, ended = found.times.ready, found.times.started, found.times.ended
        if ready is not None and started is not None and ended is not None:
            began = max(ready, started)  # it may have started before its inputs were ready, running ahead
            self._metrics.request_done(found.objective, waited=began - ready, ran=ended - began)

    async def commands(self, order: Order, description: EngineDescription) -> Sequence[Command]:
        """The commands for an order; see `Orders.commands`."""
        return await self._orders.commands(order, description)
