"""What the catalog decides about engines from the service's settings."""

from typing import Any

import pytest

from parrotserve.config import ServiceConfig
from parrotserve.engines.native import memory
from parrotserve.errors import DeclarationError
from parrotserve.runtime import catalog
from parrotserve.runtime.catalog import engine_threads, load_model, native_engines


@pytest.mark.parametrize(
    ("config", "threads"),
    [
        (ServiceConfig(), 12),
        (ServiceConfig(engines=3), 4),
        (ServiceConfig(models=("default", "other"), engines=3), 2),
        (ServiceConfig(models=("fake", "default")), 12),
        (ServiceConfig(models=("fake",)), 12),
        (ServiceConfig(engines=64), 1),
        (ServiceConfig(engines=3, threads=7), 7),
    ],
)
def test_engines_share_the_cores(config: ServiceConfig, threads: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalog, "usable_cores", lambda: 12)
    assert engine_threads(config) == threads


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"kv_memory": 900 << 30}, "900GiB does not fit the 25.3 GB of memory here: lower it."),
        ({"kv_memory": 12 << 30, "engines": 2}, "12GiB for each of 2 engines does not fit"),
        ({"kv_memory": 6 << 30, "engines": 2, "models": ("one", "fake", "other")}, "6GiB for each of 4 engines does"),
        ({"kv_memory": 12 << 30, "models": ("other",), "on_demand": True}, "12GiB for each of 2 engines does not fit"),
        ({"engines": 24}, "1.1 GB, the default, for each of 24 engines does not fit"),
    ],
)
def test_kv_caches_beyond_the_memory_here_are_refused_before_anything_is_fetched(
    config: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory, "usable_memory", lambda: 25_300_000_000)
    monkeypatch.setattr(catalog, "resolve", lambda *_args, **_keywords: pytest.fail("fetched"))
    with pytest.raises(DeclarationError) as refused:
        load_model("one", ServiceConfig(**{"models": ("one",)} | config))
    assert refused.value.message.startswith(f"kv_memory = {told}")
    advice = ": lower it, or have fewer engines." if "engines" in told else ": lower it."
    assert refused.value.message.endswith(f"of memory here{advice}")


@pytest.mark.parametrize("config", [ServiceConfig(kv_memory=11 << 30, engines=2), ServiceConfig(engines=23)])
def test_kv_caches_that_fit_together_are_taken(config: ServiceConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "usable_memory", lambda: 25_300_000_000)
    assert memory.kv_fault(config.kv_memory, native_engines(config)) is None
