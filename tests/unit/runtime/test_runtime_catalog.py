"""What the catalog decides about engines from the service's settings."""

import pytest

from parrotserve.config import ServiceConfig
from parrotserve.engines.native import memory
from parrotserve.errors import DeclarationError
from parrotserve.runtime import catalog
from parrotserve.runtime.catalog import engine_threads, load_model


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


def test_a_kv_cache_beyond_the_memory_here_is_refused_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "usable_memory", lambda: 25_300_000_000)
    monkeypatch.setattr(catalog, "resolve", lambda *_args, **_keywords: pytest.fail("fetched"))
    told = r"kv_memory = 900GiB does not fit the 25\.3 GB of memory here: lower it"
    with pytest.raises(DeclarationError, match=told):
        load_model("default", ServiceConfig(kv_memory=900 << 30))
