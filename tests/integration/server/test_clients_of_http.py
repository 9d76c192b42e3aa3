"""What clients of HTTP do beside the usual: older versions, offers of newer ones, pipelines, and bodies in chunks."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

BODY = b'{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}'
STREAM = b'{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "stream": true}'
OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"

Ask = Callable[..., Awaitable[bytes]]


def post(body: bytes, *, version: bytes = b"1.1", headers: bytes = b"") -> bytes:
    head = b"POST /v1/chat/completions HTTP/%b\r\nHost: localhost\r\nContent-Type: application/json\r\n" % version
    return head + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.fixture
def ask(address: tuple[str, int]) -> Ask:
    """Sends parts, one after another, and gives all that comes back until the connection is closed."""

    async def sent(*parts: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*address)
        for part in parts:
            writer.write(part)
            await writer.drain()
        came = await asyncio.wait_for(reader.read(), timeout=10)
        writer.close()
        return came

    return sent


async def test_a_stream_in_http_1_0_has_no_chunks_and_ends_with_the_connection(ask: Ask):
    head, _, events = (await ask(post(STREAM, version=b"1.0"))).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    assert events.startswith(b"data: {")
    assert events.endswith(b"data: [DONE]\n\n")


async def test_an_answer_in_http_1_0_has_its_length(ask: Ask):
    head, _, body = (await ask(post(BODY, version=b"1.0"))).partition(b"\r\n\r\n")
    assert b"content-length: %d" % len(body) in head.lower()
    assert json.loads(body)["object"] == "chat.completion"


@pytest.mark.parametrize("cuts", [(), (10,), (200, 330)], ids=["whole", "cut in the head", "cut twice"])
async def test_an_offer_to_speak_another_protocol_is_not_taken_up_and_loses_nothing(ask: Ask, cuts: tuple[int, ...]):
    whole = HEALTH + OFFER + b"\r\n" + post(BODY, headers=OFFER) + HEALTH + b"Connection: close\r\n\r\n"
    edges = (0, *cuts, len(whole))
    came = await ask(*(whole[start:end] for start, end in pairwise(edges)))
    assert came.count(b"HTTP/1.1 200 OK") == 3
    assert came.count(b'"chat.completion"') == 1
    assert came.endswith(b'{"status":"ok"}')


async def test_what_clients_do_wrong_is_told_them_and_not_the_log(caplog: pytest.LogCaptureFixture, ask: Ask):
    websocket = b"Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"
    assert (await ask(HEALTH + websocket)).startswith(b"HTTP/1.1 200 OK")
    assert (await ask(b"what is this?\r\n\r\n")).startswith(b"HTTP/1.1 400")
    assert [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"] == []


async def test_a_body_in_chunks_that_was_announced_is_asked_for(ask: Ask):
    headers = b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
    head = post(b"", headers=headers).replace(b"Content-Length: 0\r\n", b"")
    came = await ask(head, b"%x\r\n%b\r\n" % (len(BODY), BODY), b"0\r\nX-After: the body\r\n\r\n")
    assert came.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
    assert b'"chat.completion"' in came
