import asyncio
from collections.abc import AsyncGenerator

import pytest

from parrotserve.errors import EngineFailed, GetTimeout, ServiceUnavailable
from parrotserve.ids import SessionId, VariableId
from parrotserve.protocol import Delta, ErrorBody, Failure, Value
from parrotserve.runtime.board import AT_ONCE, Board, Watch
from parrotserve.sampling import TokenLogprob

SESSION = SessionId("s")
A, B = VariableId("a"), VariableId("b")


@pytest.fixture
def board() -> Board:
    return Board()


def value(variable: VariableId, text: str) -> Value:
    return Value(variable=variable, value=text)


def failure(variable: VariableId, message: str = "no") -> Failure:
    return Failure(variable=variable, error=ErrorBody.of(EngineFailed(message)))


async def events_of(watch: Watch) -> AsyncGenerator[Delta | Value | Failure, None]:
    try:
        while watch.reading:
            for event in await watch.news():
                yield event
    finally:
        watch.close()


async def rest(watch: Watch) -> list[Delta | Value | Failure]:
    return [event async for event in events_of(watch)]


async def test_a_reader_gets_the_value_that_comes_later(board: Board):
    watch = board.watch(SESSION)
    watch.read(A)
    reading = asyncio.create_task(rest(watch))
    await asyncio.sleep(0)
    board.append(A, "half")
    board.publish(A, value(A, "half and half"))
    assert await reading == [value(A, "half and half")]


async def test_a_reader_gets_the_value_that_is_there_already(board: Board):
    board.publish(A, value(A, "text"))
    watch = board.watch(SESSION)
    watch.read(A)
    assert await rest(watch) == [value(A, "text")]


async def test_a_stream_is_the_text_from_its_offset_and_then_the_value(board: Board):
    board.append(A, "one ")
    watch = board.watch(SESSION)
    watch.read(A, stream=True, offset=2)
    events = events_of(watch)
    assert await anext(events) == Delta(variable=A, offset=2, text="e ")
    board.append(A, "two")
    assert await anext(events) == Delta(variable=A, offset=4, text="two")
    board.publish(A, value(A, "one two."))
    assert [event async for event in events] == [Delta(variable=A, offset=7, text="."), value(A, "one two.")]


async def test_a_slow_reader_gets_in_one_piece_what_it_missed(board: Board):
    watch = board.watch(SESSION)
    watch.read(A, stream=True)
    for _ in range(1000):
        board.append(A, "x")
    board.publish(A, value(A, "x" * 1000))
    assert await rest(watch) == [Delta(variable=A, offset=0, text="x" * 1000), value(A, "x" * 1000)]


async def test_a_failure_comes_after_the_text_before_it(board: Board):
    board.append(A, "so far")
    board.publish(A, failure(A))
    watch = board.watch(SESSION)
    watch.read(A, stream=True)
    assert await rest(watch) == [Delta(variable=A, offset=0, text="so far"), failure(A)]


async def test_variables_are_read_as_they_come_each_to_its_own_end(board: Board):
    watch = board.watch(SESSION)
    watch.read(A)
    watch.read(B, timeout=0)
    watch.read(A, stream=True)
    events = events_of(watch)
    timed_out = await anext(events)
    assert isinstance(timed_out, Failure)
    assert (timed_out.variable, timed_out.error.code) == (B, GetTimeout.code)
    board.publish(A, value(A, "done"))
    assert [event async for event in events] == [
        value(A, "done"),
        Delta(variable=A, offset=0, text="done"),
        value(A, "done"),
    ]


async def test_a_value_that_is_there_wins_over_a_timeout_of_nothing(board: Board):
    board.publish(A, value(A, "text"))
    watch = board.watch(SESSION)
    watch.read(A, timeout=0)
    assert await rest(watch) == [value(A, "text")]


async def test_a_retried_variable_is_waited_for_again(board: Board):
    board.append(A, "be")
    board.publish(A, failure(A))
    board.reopen(A)
    watch = board.watch(SESSION)
    watch.read(A, stream=True)
    events = events_of(watch)
    assert await anext(events) == Delta(variable=A, offset=0, text="be")
    board.publish(A, value(A, "begin"))
    assert [event async for event in events] == [Delta(variable=A, offset=2, text="gin"), value(A, "begin")]


async def test_readers_of_what_is_forgotten_are_told(board: Board):
    watch = board.watch(SESSION)
    watch.read(A)
    board.forget([A])
    (event,) = await rest(watch)
    assert isinstance(event, Failure)
    assert event.error.code == "cancelled"
    assert len(board) == 0


async def test_only_the_readers_of_one_session_are_failed(board: Board):
    mine, other = board.watch(SESSION), board.watch(SessionId("other"))
    mine.read(A)
    other.read(A)
    board.fail_readers(SESSION, EngineFailed("broken"))
    (event,) = await rest(mine)
    assert isinstance(event, Failure)
    board.publish(A, value(A, "still"))
    assert await rest(other) == [value(A, "still")]


async def test_closing_ends_readers_now_and_later_but_keeps_what_is_known(board: Board):
    board.publish(B, value(B, "known"))
    early, late = board.watch(SESSION), board.watch(SESSION)
    early.read(A)
    board.close(ServiceUnavailable("bye"))
    late.read(A)
    late.read(B)
    for watch in (early, late):
        event = await anext(events_of(watch))
        assert isinstance(event, Failure)
        assert event.error.code == "service_unavailable"
        watch.close()


async def test_readers_that_leave_leave_nothing_behind(board: Board):
    watch = board.watch(SESSION)
    watch.read(A, stream=True, timeout=1000)
    events = events_of(watch)
    reading = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await events.aclose()
    assert len(board) == 0


async def test_log_probabilities_come_with_their_text(board: Board):
    first, second, third = (TokenLogprob(token, -0.5) for token in (1, 2, 3))
    board.append(A, "one", [first])
    watch, late = board.watch(SESSION), board.watch(SESSION)
    watch.read(A, stream=True)
    late.read(A, stream=True, offset=3)
    events = events_of(watch)
    assert await anext(events) == Delta(variable=A, offset=0, text="one", logprobs=(first,))
    board.append(A, "", [second])
    assert await anext(events) == Delta(variable=A, offset=3, text="", logprobs=(second,))
    board.append(A, " two", [third])
    assert await anext(events_of(late)) == Delta(variable=A, offset=3, text=" two", logprobs=(second, third))


async def test_much_news_comes_in_parts_between_which_others_go_on(board: Board):
    watch, others = board.watch(SESSION), board.watch(SESSION)
    names = [VariableId(f"v{number}") for number in range(5 * AT_ONCE)]
    for name in names:
        watch.read(name)
        board.publish(name, value(name, "text"))
    others.read(A)
    board.publish(A, value(A, "theirs"))
    order: list[str] = []

    async def reading(who: Watch) -> None:
        while who.reading:
            order.extend(event.variable for event in await who.news())

    await asyncio.gather(reading(watch), reading(others))
    assert [name for name in order if name != A] == names
    assert order.index(A) == AT_ONCE


async def test_a_reader_that_stops_between_parts_reads_no_more(board: Board):
    watch = board.watch(SESSION)
    names = [VariableId(f"v{number}") for number in range(2 * AT_ONCE)]
    for name in names:
        watch.read(name)
        board.publish(name, value(name, "text"))
    assert len(await watch.news()) == AT_ONCE
    watch.close()
    assert not watch.reading
    assert await watch.news() == []
