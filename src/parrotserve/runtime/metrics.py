"""Metrics for Prometheus: counts, gauges and durations of requests, never a text."""

from collections.abc import Callable, Iterable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from parrotserve.criteria import Objective
from parrotserve.engines.base import EndStatus, SequenceEnded
from parrotserve.ids import TenantId
from parrotserve.listing import EngineView
from parrotserve.sampling import Usage

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Seconds: from a few tokens on an idle machine up to a long text on a fully loaded one."""


class Metrics:
    """The metrics of one service, in a registry of its own. Gauges are read when they are collected."""

    def __init__(self, *, engines: Callable[[], list[EngineView]], sessions: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self._sequences = self._counter("parrot_sequences", "Runs of requests on engines that ended.", "status")
        self._tokens = self._counter(
            "parrot_tokens", "Tokens of ended runs: prompt, of these cached, output.", "tenant", "kind"
        )
        self._seconds = self._counter("parrot_engine_seconds", "Engine time of ended runs.", "tenant")
        self._losses = self._counter("parrot_engine_losses", "Engines that died or hung.", "model")
        self._refusals = self._counter("parrot_refusals", "Batches refused, by error code.", "tenant", "code")
        self._waited = self._histogram(
            "parrot_request_waiting_seconds",
            "From a request's last input to its engine, of requests that were done.",
            "objective",
        )
        self._ran = self._histogram(
            "parrot_request_running_seconds", "From there to its end, pauses and reruns included.", "objective"
        )
        self.registry.register(_Present(engines, sessions))
        for status in EndStatus:
            self._sequences(status.value)

    # Counters are created at 0 where their labels are known: Prometheus sees no increase in one that begins at 1.

    def model_served(self, model: str) -> None:
        """Engines of a model are being started."""
        self._losses(model)

    def tenant_served(self, tenant: TenantId) -> None:
        """A tenant's batch was accepted."""
        for kind in ("prompt", "cached", "output"):
            self._tokens(tenant, kind)
        self._seconds(tenant)

    def sequence_ended(self, event: SequenceEnded) -> None:
        """A run of a request ended."""
        self._sequences(event.status.value).inc()

    def request_done(self, objective: Objective, *, waited: float, ran: float) -> None:
        """A request is done; it `waited` for an engine and then `ran`, in seconds."""
        self._waited(objective.value).observe(waited)
        self._ran(objective.value).observe(ran)

    def used(self, tenant: TenantId, usage: Usage) -> None:
        """Add the usage of a tenant's run."""
        self._tokens(tenant, "prompt").inc(usage.prompt_tokens)
        self._tokens(tenant, "cached").inc(usage.cached_tokens)
        self._tokens(tenant, "output").inc(usage.output_tokens)
        self._seconds(tenant).inc(usage.engine_seconds)

    def engine_lost(self, model: str) -> None:
        """An engine died or hung."""
        self._losses(model).inc()

    def refused(self, tenant: TenantId, code: str) -> None:
        """A tenant's batch was refused."""
        self._refusals(tenant, code).inc()

    # Children are cached by their labels: the library takes as long to find one as to count.

    def _counter(self, name: str, about: str, *labels: str) -> Callable[..., Counter]:
        return cache(Counter(name, about, labels, registry=self.registry).labels)

    def _histogram(self, name: str, about: str, *labels: str) -> Callable[..., Histogram]:
        return cache(Histogram(name, about, labels, registry=self.registry, buckets=_BUCKETS).labels)


class _Present(Collector):
    def __init__(self, engines: Callable[[], list[EngineView]], sessions: Callable[[], int]) -> None:
        self._engines = engines
        self._sessions = sessions

    def collect(self) -> Iterable[GaugeMetricFamily]:
        up = _of_engines("up", "1 while the engine is up.")
        running = _of_engines("running", "Sequences in the engine's steps.")
        waiting = _of_engines("waiting", "Sequences that wait in the engine.")
        used = _of_engines("used_tokens", "KV that open requests hold.")
        cached = _of_engines("cached_tokens", "KV kept of earlier requests, which makes way for others.")
        free = _of_engines("free_tokens", "Room that holds nothing: little, on an engine that has worked.")
        for engine in self._engines():
            labels = [engine.id, engine.model]
            up.add_metric(labels, float(engine.state == "up"))
            running.add_metric(labels, engine.running)
            waiting.add_metric(labels, engine.waiting)
            used.add_metric(labels, engine.used_tokens)
            cached.add_metric(labels, engine.cached_tokens)
            free.add_metric(labels, engine.free_tokens)
        yield from (up, running, waiting, used, cached, free)
        yield GaugeMetricFamily("parrot_sessions", "Sessions that live.", value=self._sessions())


def _of_engines(name: str, about: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"parrot_engine_{name}", about, labels=["engine", "model"])
