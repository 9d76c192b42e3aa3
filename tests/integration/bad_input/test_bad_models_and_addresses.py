"""Damaged models, and addresses where no service is or stays."""

from pathlib import Path

import psutil
import pytest
from bad_input import Echo, declared, serving
from tiny_model import write_tiny_model

import Parrot as P
from parrotserve.config import ServiceConfig
from parrotserve.embedded import EmbeddedTransport
from parrotserve.errors import (
    MalformedModel,
    ServiceUnavailable,
    UnknownModel,
)
from parrotserve.sdk.connection import use
from parrotserve.sdk.http import HttpTransport

OTHER_SERVER = """
import http.server, sys
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
print(f"Nobody's Parrot serves at http://127.0.0.1:{server.server_port} .", file=sys.stderr, flush=True)
server.serve_forever()
"""
SLOW_SERVICE = """
import sys
from functools import partial
from parrotserve.config import ServiceConfig
from parrotserve.engines.fake import FakeEngine
from parrotserve.runtime.catalog import fake_model
from parrotserve.server import run
import asyncio
make = partial(FakeEngine, step_seconds=0.02, script=lambda prompt: "word " * 1000)
serving = run.serve_until_stopped(
    ServiceConfig(models=("fake",), port=0),
    announce=lambda line: print(line, file=sys.stderr, flush=True),
    load=lambda *_: fake_model(make),
)
asyncio.run(serving)
"""


class TestModels:
    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("empty.gguf", b"", "is empty"),
            ("short.gguf", b"GGUF\x03\0\0\0\x10", "truncated or damaged"),
            ("counts.gguf", b"GGUF\x03\0\0\0" + b"\xff" * 64, "truncated or damaged"),
            ("noise.gguf", bytes(range(256)), "not a GGUF file"),
            ("version.gguf", b"GGUF\x63\0\0\0" + bytes(64), "version is 99"),
        ],
    )
    def test_damaged_gguf(self, tmp_path: Path, name: str, content: bytes, message: str):
        (tmp_path / name).write_bytes(content)
        transport = EmbeddedTransport(ServiceConfig(models=(str(tmp_path / name),)))
        with use(transport), pytest.raises(MalformedModel, match=rf"{name}.*{message}"):
            Echo("x").get()

    def test_truncated_weights_are_found_by_the_engine(self, tmp_path: Path):
        write_tiny_model(tmp_path)
        weights = tmp_path / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1000])
        before = set(psutil.Process().children())
        transport = EmbeddedTransport(ServiceConfig(models=(str(tmp_path),), threads=1))
        with use(transport), pytest.raises(MalformedModel, match=r"model\.safetensors"):
            Echo("x").get()
        assert set(psutil.Process().children()) <= before

    def test_a_folder_without_a_model(self, tmp_path: Path):
        transport = EmbeddedTransport(ServiceConfig(models=(str(tmp_path),)))
        with use(transport), pytest.raises(UnknownModel, match=r"lacks config\.json, tokenizer\.json"):
            Echo("x").get()


class TestConnections:
    @pytest.mark.parametrize("address", ["localhost:8000", "ftp://host", "http://", "http://[::1", " "])
    def test_what_is_no_url(self, address: str):
        with pytest.raises(ServiceUnavailable, match="write http://"):
            P.connect(address)

    def test_nobody_there(self):
        with P.connect("http://127.0.0.1:9"), pytest.raises(ServiceUnavailable, match="parrot serve"):
            Echo("x").get()

    def test_somebody_else_there(self):
        with (
            serving("-c", OTHER_SERVER) as (address, _),
            P.connect(address),
            pytest.raises(ServiceUnavailable, match="is not a Parrot service"),
        ):
            Echo("x").get()

    def test_a_service_that_ends_in_mid_stream(self):
        with serving("-c", SLOW_SERVICE) as (address, process), use(HttpTransport(address, patience=0.3)):
            pieces = declared("{{input:text}} {{output:y}}", max_tokens=5000)("x").stream()
            assert "word ".startswith(next(pieces).strip()[:4])
            process.kill()
            with pytest.raises(ServiceUnavailable, match="went away"):
                list(pieces)
