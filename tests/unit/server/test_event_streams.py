"""Event streams, and how little they ask of the connection."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from parrotserve.ids import CallId
from parrotserve.protocol import CallOffer
from parrotserve.server import sse
from parrotserve.server.corked import Corked
from parrotserve.server.sse import EventStream, encoded
from parrotserve.server.streams import event_stream


def test_an_event_is_one_line_whatever_ends_lines_elsewhere():
    text = "a\u2028b\u2029c\x85d\x0be\r\nf"
    event = encoded(json.dumps(text, ensure_ascii=False)).decode()
    (line,) = event.strip().splitlines()
    assert json.loads(line.removeprefix("data: ")) == text


class Client:
    """The other side of one answer."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.messages: list[dict[str, Any]] = []
        self.more = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.messages.append(message)
        self.more.set()

    async def got(self, text: bytes) -> None:
        """Waits until this has been sent."""
        while text not in self.body:
            await self.more.wait()
            self.more.clear()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)


class Source:
    """Events of which the last one comes when it may."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.closed = False

    async def events(self) -> AsyncGenerator[bytes, None]:
        try:
            yield encoded("1", name="a", id="7")
            await self.may_end.wait()
            yield encoded("2")
        finally:
            self.closed = True


async def test_a_stream_has_its_events_and_its_end():
    client, source = Client(), Source()
    source.may_end.set()
    await EventStream(source.events())({}, client.receive, client.send)
    assert client.body == b"id: 7\nevent: a\ndata: 1\n\ndata: 2\n\n"
    headers = dict(client.messages[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert [message.get("more_body") for message in client.messages] == [None, False], "all of it came at once"
    assert headers[b"content-length"] == str(len(client.body)).encode()
    assert source.closed


async def test_only_retries_of_a_native_call_are_numbered():
    async def offers() -> AsyncGenerator[CallOffer, None]:
        for attempt in (1, 2):
            yield CallOffer(id=CallId("c"), function="f", inputs=("x",), attempt=attempt)

    client = Client()
    await event_stream(offers())({}, client.receive, client.send)
    first, second = (line for line in client.body.splitlines() if line.startswith(b"data:"))
    assert b"attempt" not in first
    assert b'"attempt":2' in second


async def test_what_comes_later_is_sent_as_it_comes():
    client, source = Client(), Source()
    answering = asyncio.ensure_future(EventStream(source.events())({}, client.receive, client.send))
    await client.got(b"data: 1")
    headers = dict(client.messages[0]["headers"])
    assert b"content-length" not in headers, "nobody knows yet how long it will be"
    assert headers[b"x-accel-buffering"] == b"no"
    source.may_end.set()
    await answering
    assert [message.get("body") for message in client.messages] == [
        None, b"id: 7\nevent: a\ndata: 1\n\n", b"data: 2\n\n", b"",
    ]  # fmt: skip


async def test_much_is_not_kept_back_for_what_may_follow():
    client = Client()

    async def long() -> AsyncGenerator[bytes, None]:
        yield b"x" * 100_000
        assert client.body == b"x" * 100_000
        yield b"y"

    await EventStream(long())({}, client.receive, client.send)
    assert client.body == b"x" * 100_000 + b"y"


async def test_a_client_that_leaves_closes_what_it_was_sent():
    client, source = Client(), Source()
    answering = asyncio.ensure_future(EventStream(source.events())({}, client.receive, client.send))
    await client.got(b"data: 1")
    client.gone.set()
    await answering
    assert source.closed
    assert b"data: 2" not in client.body


async def test_a_quiet_stream_shows_that_it_is_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sse, "PING_SECONDS", 0.001)
    client, source = Client(), Source()
    answering = asyncio.ensure_future(EventStream(source.events())({}, client.receive, client.send))
    await client.got(b": ping\n\n")
    source.may_end.set()
    await answering
    assert client.messages[-1]["more_body"] is False
    assert client.body.endswith(b"data: 2\n\n")


async def test_an_answer_that_ends_at_once_is_not_watched_over():
    client, source = Client(), Source()
    source.may_end.set()

    async def nobody_asks() -> dict[str, Any]:
        raise AssertionError("a task was made to look after a short answer")

    await EventStream(source.events())({}, nobody_asks, client.send)
    await asyncio.sleep(0)
    assert client.messages[-1]["more_body"] is False


@pytest.mark.parametrize("error", [ValueError("broken"), TimeoutError("the source's own")])
async def test_what_breaks_in_a_stream_reaches_the_server(error: Exception):
    """A timeout of the source's own, too: it is not taken for a client that left."""

    async def broken() -> AsyncGenerator[bytes, None]:
        yield encoded("1")
        raise error

    client = Client()
    with pytest.raises(type(error), match=str(error)):
        await EventStream(broken())({}, client.receive, client.send)


class Wire(asyncio.Transport):
    """What reaches the system."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0


async def test_what_is_written_in_one_turn_is_sent_together():
    wire = Wire()
    corked = Corked(wire, asyncio.get_running_loop())
    corked.write(b"head ")
    corked.write(b"event ")
    assert wire.sent == []
    await asyncio.sleep(0)
    assert wire.sent == [b"head event "]
    corked.write(b"end")
    corked.close()
    assert wire.sent == [b"head event ", b"end"], "what is kept back goes before the connection does"
    assert wire.closed


async def test_the_end_of_an_answer_is_not_kept_back():
    wire = Wire()
    corked = Corked(wire, asyncio.get_running_loop())
    corked.write(b"event ")
    corked.write(b"end")
    corked.flush()
    assert wire.sent == [b"event end"]
    await asyncio.sleep(0)
    assert len(wire.sent) == 1


async def test_much_is_not_kept_back():
    wire = Wire()
    corked = Corked(wire, asyncio.get_running_loop())
    corked.write(b"x" * 100_000)
    assert wire.sent == [b"x" * 100_000]
    await asyncio.sleep(0)
    assert len(wire.sent) == 1
