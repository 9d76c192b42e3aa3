"""What an engine that cannot be built says."""

from pathlib import Path

import pytest
from msgspec import structs
from tiny_model import CONTEXT, write_tiny_model

from parrotserve.engines.native import build
from parrotserve.engines.native.build import build_engine, page_bytes
from parrotserve.engines.native.reference import ReferenceBackend
from parrotserve.engines.native.settings import PAGE_TOKENS, BackendName, Launch, NativeSettings
from parrotserve.errors import EngineRefused
from parrotserve.models.config import load_config
from parrotserve.models.files import ModelFiles


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    files = write_tiny_model(tmp_path)
    settings = NativeSettings(backend=BackendName.REFERENCE, kv_bytes=8 << 20)
    return Launch(model="tiny", path=str(files.path), format=files.format, settings=settings)


def test_a_cache_smaller_than_the_context_is_told(launch: Launch):
    config = load_config(ModelFiles("tiny", Path(launch.path), launch.format))
    half = page_bytes(BackendName.REFERENCE, config) * CONTEXT // 2 // PAGE_TOKENS
    whole, cut = (
        build_engine(structs.replace(launch, settings=structs.replace(launch.settings, kv_bytes=size)))[0]
        for size in (2 * half, half)
    )
    assert (whole.context_length, whole.cut_by_cache) == (CONTEXT, False)
    assert (cut.context_length, cut.cut_by_cache) == (CONTEXT // 2, True)


def test_memory_that_is_not_there_is_told_with_the_setting(launch: Launch, monkeypatch: pytest.MonkeyPatch):
    class Greedy(ReferenceBackend):
        def __init__(self, *_: object, **__: object) -> None:
            raise MemoryError("std::bad_alloc")

    monkeypatch.setattr(build, "ReferenceBackend", Greedy)
    with pytest.raises(EngineRefused, match=r"too little memory for tiny and a KV cache of 8 MiB: lower kv_memory"):
        build_engine(launch)
