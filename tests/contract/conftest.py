"""The engines that keep the contract: a fake, and the native one on each of its backends and on a real model."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from engine_driver import Driver
from engines_here import CREDITS, StartNative
from tiny_model import write_tiny_model

from parrotserve.engines.base import HEARTBEAT_SECONDS, Engine
from parrotserve.engines.fake import FakeEngine
from parrotserve.engines.fake_tokenizer import FakeTokenizer
from parrotserve.engines.native.engine import NativeEngine
from parrotserve.engines.native.kernels import KernelsBackend, variants
from parrotserve.engines.native.reference import ReferenceBackend
from parrotserve.engines.native.settings import BackendName, NativeSettings
from parrotserve.ids import EngineId
from parrotserve.models.config import load_config
from parrotserve.models.files import ModelFiles
from parrotserve.models.registry import resolve
from parrotserve.models.tokenizer import Tokenizer, load_tokenizer

NEEDS_KERNELS = pytest.mark.skipif(not variants(), reason="the compiled extension is not installed")
BACKENDS = [BackendName.REFERENCE, pytest.param(BackendName.KERNELS, marks=NEEDS_KERNELS)]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> BackendName:
    """For tests that run on each backend of the native engine."""
    return request.param


@pytest.fixture
def page_bytes(backend: BackendName, tiny_model: ModelFiles) -> int:
    """Memory of one page of the tiny model's KV."""
    config = load_config(tiny_model)
    kernels = backend is BackendName.KERNELS
    return KernelsBackend.page_bytes(config) if kernels else ReferenceBackend.page_bytes(config)


@pytest_asyncio.fixture
async def start_native(tiny_model: ModelFiles) -> AsyncIterator[StartNative]:
    """Starts native engines on the tiny model, and ends them after the test."""
    engines: list[NativeEngine] = []

    async def start(**settings: object) -> NativeEngine:
        chosen = {"kv_bytes": 4 << 20, "threads": 1, "backend": BackendName.REFERENCE} | settings
        engine_id = EngineId(f"native-{len(engines)}")
        engine = NativeEngine(engine_id, "tiny", tiny_model, NativeSettings(**chosen))  # type: ignore[arg-type]
        engines.append(engine)
        await engine.start()
        return engine

    yield start
    for engine in engines:
        await engine.close()


def _fake() -> tuple[Engine, FakeTokenizer]:
    engine = FakeEngine(credits=CREDITS, context_length=512, heartbeat_seconds=HEARTBEAT_SECONDS / 100)
    return engine, engine.tokenizer


def _native(files: ModelFiles, backend: BackendName, threads: int | None) -> tuple[Engine, Tokenizer]:
    settings = NativeSettings(backend=backend, threads=threads, kv_bytes=256 << 20, credits=CREDITS)
    return NativeEngine(EngineId("native"), files.name, files, settings), load_tokenizer(files)


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=["fake", *BACKENDS, pytest.param("model", marks=pytest.mark.model)],
)
async def driver(request: pytest.FixtureRequest, tiny_model: ModelFiles) -> AsyncIterator[Driver]:
    """One started engine of each kind, shared by the tests of a module."""
    match request.param:
        case "fake":
            engine, tokenizer = _fake()
        case "model":
            engine, tokenizer = _native(resolve("smollm2-135m"), BackendName.AUTO, None)
        case backend:
            engine, tokenizer = _native(tiny_model, backend, 1)
    await engine.start()
    driver = Driver(engine, tokenizer)
    yield driver
    await driver.close()
