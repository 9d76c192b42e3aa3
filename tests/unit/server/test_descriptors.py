"""A service that runs out of file descriptors."""

import asyncio
import errno
import logging

import pytest

from parrotserve.server import descriptors
from parrotserve.server.descriptors import ShortageHandler

resource = pytest.importorskip("resource")


def test_a_service_takes_as_many_as_it_may_have(monkeypatch: pytest.MonkeyPatch):
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: told.append(limits))
    descriptors.raise_limit()
    assert told == [(4096, 4096)]


@pytest.mark.parametrize(("limit", "connections"), [(4096, 3840), (200, 100), (resource.RLIM_INFINITY, None)])
def test_so_many_connections_are_taken_that_some_descriptors_are_left(
    monkeypatch: pytest.MonkeyPatch, limit: int, connections: int | None
):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert descriptors.most_connections() == connections


async def test_a_shortage_is_told_once_in_a_while(caplog: pytest.LogCaptureFixture):
    handle, loop = ShortageHandler(), asyncio.get_running_loop()
    with caplog.at_level(logging.ERROR):
        for _ in range(1000):
            handle(loop, {"message": "accept", "exception": OSError(errno.EMFILE, "Too many open files")})
        assert len(caplog.records) == 1
        handle(loop, {"message": "something else"})
    assert [record.message for record in caplog.records][1:] == ["something else"]
