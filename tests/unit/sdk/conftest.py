"""A fake service that every test's default sessions use."""

from collections.abc import Iterator

import pytest
from fake_service import FakeService

from parrotserve.sdk import courier
from parrotserve.sdk.connection import use


@pytest.fixture(autouse=True)
def no_flush_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine milliseconds pass between any two lines: calls leave with the first wait, or at an end."""
    monkeypatch.setattr(courier, "FLUSH_SECONDS", 3600.0)


@pytest.fixture
def service() -> Iterator[FakeService]:
    fake = FakeService()
    with use(fake):
        yield fake
