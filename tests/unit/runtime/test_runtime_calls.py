import asyncio
from collections.abc import AsyncGenerator

import pytest

from parrotserve.ids import CallId, SessionId
from parrotserve.protocol import CallOffer
from parrotserve.runtime.calls import CallDesk

SESSION = SessionId("s")


@pytest.fixture
def desk() -> CallDesk:
    return CallDesk()


def call(name: str) -> CallOffer:
    return CallOffer(id=CallId(name), function="f", inputs=("x",))


async def leave(connection: AsyncGenerator[CallOffer, None]) -> None:
    await connection.aclose()


async def test_calls_are_handed_out_in_order_of_offer(desk: CallDesk):
    desk.offer(SESSION, call("c1"))
    connection = desk.connect(SESSION)
    assert await anext(connection) == call("c1")
    waiting = asyncio.ensure_future(anext(connection))
    await asyncio.sleep(0)
    desk.offer(SESSION, call("c2"))
    assert await waiting == call("c2")
    await leave(connection)


async def test_a_call_is_with_one_connection_at_a_time(desk: CallDesk):
    first, second = desk.connect(SESSION), desk.connect(SESSION)
    desk.offer(SESSION, call("c1"))
    assert await anext(first) == call("c1")
    waiting = asyncio.ensure_future(anext(second))
    await asyncio.sleep(0)
    assert not waiting.done()
    await leave(first)
    assert await waiting == call("c1")
    await leave(second)


async def test_the_next_connection_gets_what_was_not_answered(desk: CallDesk):
    for name in ("c1", "c2", "c3"):
        desk.offer(SESSION, call(name))
    connection = desk.connect(SESSION)
    assert [await anext(connection) for _ in range(3)] == [call("c1"), call("c2"), call("c3")]
    desk.settle(SESSION, CallId("c2"))
    await leave(connection)
    again = desk.connect(SESSION)
    assert [await anext(again) for _ in range(2)] == [call("c1"), call("c3")]
    await leave(again)


async def test_a_call_that_is_no_longer_wanted_is_not_handed_out(desk: CallDesk):
    desk.offer(SESSION, call("c1"))
    desk.offer(SESSION, call("c2"))
    desk.settle(SESSION, CallId("c1"))
    connection = desk.connect(SESSION)
    assert await anext(connection) == call("c2")
    await leave(connection)


async def test_connections_end_with_the_session(desk: CallDesk):
    connection = desk.connect(SESSION)
    reading = asyncio.ensure_future(anext(connection, None))
    await asyncio.sleep(0)
    desk.forget(SESSION)
    assert await reading is None
    assert desk.is_empty


async def test_closing_ends_connections_now_and_later(desk: CallDesk):
    desk.offer(SESSION, call("c1"))
    connection = desk.connect(SESSION)
    await anext(connection)
    desk.close()
    assert await anext(connection, None) is None
    assert await anext(desk.connect(SESSION), None) is None


async def test_nothing_is_kept_for_sessions_without_calls_or_connections(desk: CallDesk):
    desk.offer(SESSION, call("c1"))
    connection = desk.connect(SESSION)
    await anext(connection)
    desk.settle(SESSION, CallId("c1"))
    await leave(connection)
    assert desk.is_empty


async def test_a_call_that_is_offered_again_is_not_taken_back_by_who_had_it_before(desk: CallDesk):
    desk.offer(SESSION, call("c1"))
    desk.offer(SESSION, call("c2"))
    first, second = desk.connect(SESSION), desk.connect(SESSION)
    assert await anext(first) == call("c1")
    desk.settle(SESSION, CallId("c1"))
    desk.offer(SESSION, call("c1"))
    assert [await anext(second) for _ in range(2)] == [call("c2"), call("c1")]
    await leave(first)
    third = asyncio.ensure_future(anext(desk.connect(SESSION)))
    await asyncio.sleep(0)
    assert not third.done()
    await leave(second)
    assert await third == call("c2")


class Sought(str):
    """An id that counts how often it is looked up."""

    __slots__ = ()
    times = 0

    def __hash__(self) -> int:
        Sought.times += 1
        return super().__hash__()

    __eq__ = str.__eq__


async def test_taking_a_call_costs_the_same_however_many_are_with_the_connection(desk: CallDesk):
    names = [CallId(Sought(f"c{number}")) for number in range(200)]
    for name in names:
        desk.offer(SESSION, CallOffer.model_construct(id=name, function="f", inputs=()))
    connection = desk.connect(SESSION)

    async def taking(calls: int) -> int:
        before = Sought.times
        for _ in range(calls):
            await anext(connection)
        return Sought.times - before

    assert 0 < await taking(50) <= 50 * 10
    await taking(100)
    assert 0 < await taking(50) <= 50 * 10
    await leave(connection)
