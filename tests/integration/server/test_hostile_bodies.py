"""Bodies and connections that mean no good: a clear refusal each, and nothing else suffers."""

import asyncio
import gzip
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from parrotserve.protocol import Submit
from parrotserve.server import bodies, impatience
from parrotserve.server.bodies import BIG, MOST_VALUES, checked_submit
from parrotserve.server.json_bodies import Parsed, join, parse

MOST_HEAD = 64 * 1024
JSON = {"Content-Type": "application/json"}
POST = b"POST /v1/submit HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def graph(requests: int, *, text: str = "tell", **first: Any) -> dict[str, Any]:
    """A batch of independent requests."""
    specs = [
        {
            "id": f"r{number}",
            "segments": [{"kind": "text", "text": text}, {"kind": "output", "variable": f"v{number}"}],
        }
        for number in range(requests)
    ]
    specs[0] |= first
    return {"session": "s", "variables": [{"id": f"v{number}"} for number in range(requests)], "requests": specs}


def test_a_big_body_is_read_as_a_small_one_would_be():
    batch = graph(700) | {"wait": [{"variable": "v1", "stream": True}], "lease_seconds": 5}
    batch["requests"][3]["segments"] = batch["requests"][3]["segments"] * 150  # read in parts, too
    body = json.dumps(batch).encode()
    assert len(body) > BIG
    parsed = parse(body, most_values=MOST_VALUES)
    assert isinstance(parsed, Parsed)
    assert checked_submit(join(parsed)) == Submit.model_validate_json(body)


@pytest.mark.parametrize(
    ("break_it", "place"),
    [
        (lambda batch: batch["requests"][650]["segments"][1].update(variable=5), "body.requests.650.segments.1"),
        (lambda batch: batch["variables"][650].update(nmae="x"), "body.variables.650.nmae"),
        (lambda batch: batch.update(sesion="s"), "body.sesion"),
        (lambda batch: batch["requests"].insert(650, 7), "body.requests.650"),
        (lambda batch: batch["requests"][1].update(segments=[{"kind": "text", "text": "x"}] * 150 + [{}]),
         "body.requests.1.segments.150"),
        (lambda batch: batch.update(requests={"r": 1}), "body.requests"),
    ],
)  # fmt: skip
async def test_what_is_wrong_in_a_big_body_is_told_where_it_is(served, break_it: Callable[[Any], None], place: str):
    batch = graph(700) | {"padding": ""}
    del batch["padding"]
    break_it(batch)
    client = await served()
    body = json.dumps(batch).encode() + b" " * BIG
    answer = await client.post("/v1/submit", content=body, headers=JSON)
    assert answer.status_code == 422
    assert answer.json()["error"]["message"].startswith(place)


@pytest.mark.parametrize("padding", [0, BIG], ids=["small", "big"])
@pytest.mark.parametrize("route", ["/v1/submit", "/v1/sessions/s/variables/v"])
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000,
        b'{"session": "\xff\xfe"}',
        b"{",
        b"null",
        b'"\\ud800"',
        b"[1, 2]",
        b'{"session": 9' + b"9" * 5000 + b"}",
    ],
    ids=["deep list", "deep object", "no UTF-8", "cut off", "null", "surrogate", "list", "long number"],
)
async def test_what_is_no_batch_is_a_clear_error(served, padding: int, route: str, body: bytes):
    client = await served()
    method = "POST" if route.endswith("submit") else "PUT"
    answer = await client.request(method, route, content=body + b" " * padding, headers=JSON)
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("route", ["/v1/submit", "/v1/chat/completions", "/v1/responses"])
@pytest.mark.parametrize("compress", [gzip.compress, bytes], ids=["compressed", "said to be"])
async def test_a_compressed_body_is_refused_for_what_it_is(served, route: str, compress: Callable[[bytes], bytes]):
    client = await served()
    body = b'{"session": "s", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}'
    answer = await client.post(route, content=compress(body), headers=JSON | {"Content-Encoding": "gzip"})
    assert answer.status_code == 415
    assert answer.json()["error"]["code"] == "unsupported_media_type"
    assert "'Content-Encoding: gzip': send it uncompressed" in answer.json()["error"]["message"]
    plain = await client.post(
        "/v1/chat/completions",
        content=body.replace(b'"session": "s", ', b""),
        headers=JSON | {"Content-Encoding": "identity"},
    )
    assert plain.status_code == 200


@pytest.mark.parametrize("padding", [0, BIG], ids=["small", "big"])
@pytest.mark.parametrize("route", ["/v1/submit", "/v1/chat/completions", "/v1/responses"])
@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
async def test_a_body_that_is_not_said_to_be_json_is_told_so(served, padding: int, route: str, kind: str):
    client = await served()
    body = b'{"session": "s", "messages": [{"role": "user", "content": "hi"}]}' + b" " * padding
    answer = await client.post(route, content=body, headers={"Content-Type": kind} if kind else {})
    assert answer.status_code in (400, 422)
    assert "send 'Content-Type: application/json'" in answer.json()["error"]["message"]
    assert (kind or "without a type") in answer.json()["error"]["message"]


@pytest.mark.parametrize("padding", [0, BIG], ids=["small", "big"])
async def test_a_body_too_deep_is_told_in_the_same_words_whatever_its_size(served, padding: int):
    client = await served()
    answer = await client.post("/v1/submit", content=b"[" * 10_000 + b" " * padding, headers=JSON)
    assert answer.json()["error"]["message"] == "The body cannot be read as JSON: it is nested too deeply."
    assert answer.json()["error"]["details"] == {"param": "body"}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "body: Field required."),
        (b"[]", "body: Input should be a valid dictionary or object to extract fields from."),
        (b'{"session": "s", "requests": [3]}', "requests.0: Input should be a valid dictionary or object"),
        (b'{"session": "s", "wait": [{}]}', "wait.0.variable: Field required."),
    ],
    ids=["nothing", "a list", "an item that is none", "an item without a field"],
)
async def test_a_batch_that_is_none_is_told_at_its_place(served, body: bytes, told: str):
    client = await served()
    answer = await client.post("/v1/submit", content=body, headers=JSON)
    assert answer.status_code == 422
    assert told in answer.json()["error"]["message"]


@pytest.mark.parametrize("times", [2, 50_000])
async def test_a_variable_is_waited_for_once_in_a_submit(served, times: int):
    client = await served()
    wait = {"variable": "v0", "stream": True}
    answer = await client.post("/v1/submit", json=graph(1) | {"wait": [wait] * times})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_graph")
    assert answer.json()["error"]["details"] == {"variable": "v0"}
    assert (await client.get("/v1/sessions/s")).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"1," * (MOST_VALUES + 1) + b"1]",
        json.dumps(graph(100_000)).encode(),
        json.dumps(graph(2_001)).encode(),
    ],
    ids=["many numbers", "a graph of 100,000 requests", "a graph above the limit"],
)
async def test_more_than_a_batch_may_hold_is_too_large(served, body: bytes):
    client = await served()
    answer = await client.post("/v1/submit", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert (await client.get("/v1/sessions/s")).status_code == 404


async def test_a_tenant_has_few_big_bodies_in_memory_at_a_time(served, monkeypatch: pytest.MonkeyPatch):
    client = await served()
    inside = most = 0
    read = bodies._Body.read

    async def counted(self: Any, check: Any) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0)
        await read(self, check)
        inside -= 1

    monkeypatch.setattr(bodies._Body, "read", counted)
    body = json.dumps({"session": "s", "variables": [{"id": "v", "value": "x" * BIG}]}).encode()
    answers = await asyncio.gather(*(client.post("/v1/submit", content=body, headers=JSON) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert most == bodies.BIG_AT_A_TIME


async def test_big_bodies_hold_no_place_while_their_answers_are_written(served):
    client = await served(ticking=True)  # and nobody has its engine make a step
    body = {"model": "fake", "prompt": "tell", "max_tokens": 3, "metadata": {"trace": "x" * BIG}}
    many = bodies.BIG_AT_A_TIME + 2
    asking = [asyncio.ensure_future(client.post("/v1/completions", json=body)) for _ in range(many)]
    try:
        async with asyncio.timeout(30):
            while (busy := (await client.get("/v1/engines")).json()[0])["running"] + busy["waiting"] < many:
                await asyncio.sleep(0.01)
    finally:
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def test_a_head_that_does_not_come_ends_the_connection(address, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(impatience, "HEAD_SECONDS", 0.05)
    for sent in (b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: "):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(sent)
        assert await asyncio.wait_for(reader.read(), timeout=10) == b""
        writer.close()


async def test_a_second_head_on_a_connection_has_to_come_as_well(address, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(impatience, "HEAD_SECONDS", 0.05)
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /heal")
    answer = await asyncio.wait_for(reader.read(), timeout=10)
    assert answer.startswith(b"HTTP/1.1 200")
    writer.close()


async def test_a_body_that_does_not_come_is_given_up(address, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bodies, "READ_SECONDS", 0.05)
    reader, writer = await asyncio.open_connection(*address)
    writer.write(POST + b"Content-Length: 100\r\n\r\n{")
    assert (await asyncio.wait_for(reader.readline(), timeout=10)).startswith(b"HTTP/1.1 408")
    writer.close()


async def test_a_head_without_end_is_refused(address):
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
    for _ in range(MOST_HEAD // 1000):
        writer.write(b"X-Long: " + b"x" * 1000 + b"\r\n")
    assert (await asyncio.wait_for(reader.readline(), timeout=10)).startswith(b"HTTP/1.1 400")
    writer.close()


async def test_heads_of_many_requests_on_one_connection_are_counted_each(address):
    reader, writer = await asyncio.open_connection(*address)
    for _ in range(3):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: %b\r\n\r\n" % (b"x" * (MOST_HEAD // 2)))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), timeout=10)
        assert head.startswith(b"HTTP/1.1 200")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
    writer.close()


async def test_headers_after_a_body_are_not_collected_without_end(address):
    reader, writer = await asyncio.open_connection(*address)
    writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
    for _ in range(10 * MOST_HEAD // 1000):
        writer.write(b"X-Long: " + b"x" * 1000 + b"\r\n")
    assert (await asyncio.wait_for(reader.readline(), timeout=10)).startswith(b"HTTP/1.1 400")
    writer.close()


async def test_what_is_no_http_is_refused(address):
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
    head, _, body = (await asyncio.wait_for(reader.read(), timeout=10)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert json.loads(body)["error"]["code"] == "invalid_request"
    writer.close()
    host, port = address
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://{host}:{port}/healthz")).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("/v1/submit", {"session": "s", "wait": [{}] * 1000}, "body.wait.0"),
        (
            "/v1/submit",
            {"session": "s", "requests": [{"id": "r", "segments": [{}] * 1000}]},
            "body.requests.0.segments.0",
        ),
        ("/v1/chat/completions", {"messages": [{}] * 1000}, "body.messages.0"),
        ("/v1/completions", {"prompt": [{}] * 1000}, "body.prompt"),
        ("/v1/responses", {"input": [{"role": "wizard"}] * 1000}, "body.input.0.role"),
    ],
)
async def test_of_many_things_that_are_wrong_few_are_told(served, path: str, body: Any, place: str):
    client = await served()
    answer = await client.post(path, json=body)
    assert answer.status_code in (400, 422)
    message = answer.json()["error"]["message"]
    assert message.startswith(place)
    assert "more" not in message
