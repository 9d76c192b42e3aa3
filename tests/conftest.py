"""What every test relies on."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every machine and every run: a failure here is a change's, not the day's. The long tests
# look further, and at other places each time; Hypothesis prints how to see a failure again.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile("fixed")

# A job that a shell runs in the background ignores Ctrl-C, and so would every program that a test starts and stops.
signal.signal(signal.SIGINT, signal.default_int_handler)


KEPT_SETTINGS = {"PARROT_CACHE", "PARROT_INDEX_URL"}
"""Where the real model comes from and is kept; what a test means does not depend on them."""


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, no_data: Path):
    """The developer's own PARROT_URL, PARROT_ENGINES, file of settings and the like must not steer a test."""
    for name in os.environ.keys() - KEPT_SETTINGS:
        if name.startswith("PARROT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PARROT_CONFIG", os.devnull)
    monkeypatch.setenv("PARROT_DATA", str(no_data))
    monkeypatch.setenv("XDG_DATA_HOME", str(no_data))  # for processes that tests start
    monkeypatch.setattr("platformdirs.user_data_path", lambda _name: no_data)


@pytest.fixture(scope="session")
def no_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder without tenants and keys."""
    return tmp_path_factory.mktemp("data")
