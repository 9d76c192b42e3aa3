"""What the catalog decides about engines from the service's settings."""

import pytest

from parrotserve.config import ServiceConfig
from parrotserve.runtime import catalog
from parrotserve.runtime.catalog import engine_threads


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
