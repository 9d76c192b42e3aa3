"""A connection that is closed, and whose client does not read the rest."""

import asyncio
from typing import Any

import pytest

from parrotserve.server import corked
from parrotserve.server.corked import Corked


class Socket(asyncio.Transport):
    """Keeps what is written until the client reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.unread = 0
        self.aborted = False

    def write(self, data: Any) -> None:
        self.unread += len(data)

    def close(self) -> None:
        pass

    def abort(self) -> None:
        self.aborted, self.unread = True, 0

    def get_write_buffer_size(self) -> int:
        return self.unread


@pytest.fixture
def socket(monkeypatch: pytest.MonkeyPatch) -> Socket:
    monkeypatch.setattr(corked, "UNREAD_SECONDS", 0.01)
    return Socket()


async def closed(socket: Socket) -> Corked:
    connection = Corked(socket, asyncio.get_running_loop())
    connection.write(b"x" * 10)
    connection.close()
    return connection


async def test_one_that_nobody_reads_is_ended(socket: Socket):
    await closed(socket)
    assert (socket.unread, socket.aborted) == (10, False)
    async with asyncio.timeout(10):
        while not socket.aborted:
            await asyncio.sleep(0.01)


async def test_one_that_is_read_slowly_is_seen_through(socket: Socket, monkeypatch: pytest.MonkeyPatch):
    looks: list[int] = []

    def read_one() -> int:
        looks.append(socket.unread)
        socket.unread -= 1
        return looks[-1]

    monkeypatch.setattr(socket, "get_write_buffer_size", read_one)
    await closed(socket)
    async with asyncio.timeout(10):
        while socket.unread >= 0:
            await asyncio.sleep(0.01)
    assert looks == [*range(10, -1, -1)]
    assert not socket.aborted


async def test_closing_twice_ends_nothing_early(socket: Socket):
    socket.unread = 5
    connection = await closed(socket)
    connection.close()
    assert not socket.aborted
