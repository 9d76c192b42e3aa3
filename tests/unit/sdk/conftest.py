"""A fake service that every test's default sessions use."""

from collections.abc import Iterator

import pytest
from fake_service import FakeService
from fake_time import FakeTime

from parrotserve.sdk.connection import use


@pytest.fixture
def time() -> FakeTime:
    """Calls leave with the first wait, at an end, or when a test winds this on: never by themselves."""
    return FakeTime()


@pytest.fixture
def service(time: FakeTime) -> Iterator[FakeService]:
    fake = FakeService()
    with use(fake, timer=time):
        yield fake
