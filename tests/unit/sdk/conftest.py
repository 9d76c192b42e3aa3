"""A fake service that every test's default sessions use."""

from collections.abc import Iterator

import pytest
from fake_service import FakeService

from parrotserve.sdk.connection import use


@pytest.fixture
def service() -> Iterator[FakeService]:
    fake = FakeService()
    with use(fake):
        yield fake
