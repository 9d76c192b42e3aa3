"""What an engine that cannot be built says."""

from pathlib import Path

import pytest
from tiny_model import write_tiny_model

from parrotserve.engines.native import build
from parrotserve.engines.native.build import build_engine
from parrotserve.engines.native.reference import ReferenceBackend
from parrotserve.engines.native.settings import BackendName, Launch, NativeSettings
from parrotserve.errors import EngineFailed


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    files = write_tiny_model(tmp_path)
    settings = NativeSettings(backend=BackendName.REFERENCE, kv_bytes=8 << 20)
    return Launch(model="tiny", path=str(files.path), format=files.format, settings=settings)


def test_memory_that_is_not_there_is_told_with_the_setting(launch: Launch, monkeypatch: pytest.MonkeyPatch):
    class Greedy(ReferenceBackend):
        def __init__(self, *_: object, **__: object) -> None:
            raise MemoryError("std::bad_alloc")

    monkeypatch.setattr(build, "ReferenceBackend", Greedy)
    with pytest.raises(EngineFailed, match=r"too little memory for tiny and a KV cache of 8 MiB: lower kv_memory"):
        build_engine(launch)
