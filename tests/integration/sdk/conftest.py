"""Servers for the programs."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sdk_server import Served


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Starts servers; keywords are for their engines."""
    servers: list[Served] = []

    def start(**options: Any) -> Served:
        servers.append(Served(**options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
