"""Big bodies are parsed in a process of their own."""

import asyncio
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from parrotserve.errors import GetTimeout, ServiceUnavailable
from parrotserve.server import json_process
from parrotserve.server.json_bodies import CHUNK, Malformed, Parsed, join, parse
from parrotserve.server.json_process import JsonProcess


@pytest.fixture
def parser() -> Iterator[JsonProcess]:
    process = JsonProcess(most_values=1000)
    yield process
    process.close()


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text \U0001f99c \x00",
        [1, 2.5, True],
        {},
        {"a": list(range(3 * CHUNK + 1)), "b": [], "c": {"d": [[]]}, "e": [{"f": "g"}] * CHUNK},
    ],
)
def test_a_value_comes_as_it_was_written(value: Any):
    parsed = parse(json.dumps(value).encode(), most_values=1000)
    assert isinstance(parsed, Parsed)
    assert join(parsed) == value


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", Malformed("Expecting value", 0)),
        (b'{"a": 1,', Malformed("Expecting property name enclosed in double quotes", 8)),
        (b'"\xff"', Malformed("it is not UTF-8")),
        (b"[" * 900 + b"]" * 900 + b'{"a":', Malformed("Extra data", 1800)),
        (b"[1" + b",1" * 1001 + b"]", "too many"),
        (b"[" * 1001, "too many"),
        (b"[" + b"9" * 5000 + b"]", Malformed("it holds a number of too many digits")),
    ],
)
def test_what_cannot_be_read_is_said(body: bytes, why: Any):
    assert parse(body, most_values=1000) == why


def test_what_is_nested_too_deeply_is_said():
    assert parse(b"[" * 100_000, most_values=200_000) == Malformed("it is nested too deeply")


async def test_bodies_are_parsed_one_after_another_by_one_process(parser: JsonProcess):
    bodies = [[b'{"number": ', str(number).encode(), b"}"] for number in range(10)]
    parsed = await asyncio.gather(*map(parser.parse, bodies))
    first = parser._process
    assert parsed == [Parsed({"number": number}, {}) for number in range(10)]
    assert await parser.parse([b"["]) == Malformed("Expecting value", 1)
    assert parser._process is first


async def test_a_process_that_dies_of_a_body_is_told_and_replaced(parser: JsonProcess):
    command = parser._command
    parser._command = (sys.executable, "-c", "import sys; sys.stdin.buffer.read(5)")
    with pytest.raises(ServiceUnavailable, match="send the body again"):
        await parser.parse([b"1"])
    parser._command = command
    assert await parser.parse([b"2"]) == Parsed(2, {})


async def test_a_process_that_is_told_to_end_with_its_service_waits_for_that(parser: JsonProcess):
    await parser.parse([b"1"])
    first = parser._process
    assert first is not None
    first.terminate()
    assert await parser.parse([b"2"]) == Parsed(2, {})
    assert parser._process is first


async def test_a_process_that_died_meanwhile_is_replaced(parser: JsonProcess):
    await parser.parse([b"1"])
    first = parser._process
    assert first is not None
    first.kill()
    first.wait()
    assert await parser.parse([b"2"]) == Parsed(2, {})
    assert parser._process is not first


async def test_a_process_that_does_not_answer_is_given_up(parser: JsonProcess, monkeypatch: pytest.MonkeyPatch):
    await parser.parse([b"1"])
    monkeypatch.setattr(json_process, "PARSE_SECONDS", 0.05)
    monkeypatch.setattr(json_process, "read_frame", _silent)
    with pytest.raises(GetTimeout, match="in parts"):
        await parser.parse([b"2"])


def _silent(stream: Any) -> bytes | None:
    """As if no answer came until the process is gone."""
    while stream.read(1):
        pass
    return None


async def test_after_its_end_there_is_no_process(parser: JsonProcess):
    await parser.parse([b"1"])
    process = parser._process
    assert process is not None
    parser.close()
    assert process.returncode is not None


async def test_after_its_end_no_process_is_started_for_a_body(parser: JsonProcess):
    parser.close()
    with pytest.raises(ServiceUnavailable, match="is ending"):
        parser._parse([b"1"])
    assert parser._process is None
