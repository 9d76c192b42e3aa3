"""What an engine that cannot be built says."""

from dataclasses import replace
from pathlib import Path

import dense
import pytest
from msgspec import structs
from tiny_model import CONTEXT, write_tiny_model

from parrotserve.engines.native import build, memory
from parrotserve.engines.native.build import build_engine, page_bytes
from parrotserve.engines.native.kernels import KernelsBackend, unfit, variants
from parrotserve.engines.native.reference import ReferenceBackend
from parrotserve.engines.native.settings import PAGE_TOKENS, BackendName, Launch, NativeSettings, WeightFormat
from parrotserve.errors import EngineRefused
from parrotserve.models.architecture import Family
from parrotserve.models.config import load_config
from parrotserve.models.files import ModelFiles

LLAMA = replace(
    dense.tiny_config(Family.LLAMA, tied=False),
    layers=32,
    hidden=4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    intermediate=14_336,
    vocabulary=128_256,
)
"""The shape of Llama-3.1-8B."""

needs_kernels = pytest.mark.skipif(not variants(), reason="the compiled extension is not installed here")


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


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, r"0\.3 GB for its weights in float32 .*, of the 0\.1 GB of memory here: serve a smaller model\."),
        ({"engines": 2, "kv_bytes": 64 << 20}, r"0\.1 GB for its KV cache, for each of 2 engines, of the 0\.1 GB"),
    ],
)
def test_weights_beyond_the_memory_here_are_refused_before_they_are_read(
    changes: dict[str, int], told: str, launch: Launch, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(build, "load_weights", lambda *_args, **_keywords: pytest.fail("read"))
    monkeypatch.setattr(memory, "usable_memory", lambda: 100_000_000)
    monkeypatch.setattr(memory, "weight_bytes", lambda *_: 60_000_000 if changes else 300_000_000)
    with pytest.raises(EngineRefused, match=f"tiny takes .*{told}"):
        build_engine(with_settings(launch, **changes))


@pytest.mark.parametrize(
    ("form", "engines", "kv", "advice"),
    [
        (WeightFormat.BF16, 1, 1, None),
        (WeightFormat.BF16, 1, 9, "set weights to int8, which take half of that, or lower kv_memory, or serve a "),
        (WeightFormat.BF16, 2, 1, "set weights to int8, which take half of that, or have fewer engines, or serve a "),
        (WeightFormat.INT8, 2, 1, None),
        (WeightFormat.INT8, 2, 5, "lower kv_memory, or have fewer engines, or serve a smaller model"),
        (WeightFormat.INT4, 2, 1, None),
        (None, 1, 1, "serve a smaller model"),
    ],
)
def test_what_does_not_fit_is_told_with_what_would(
    form: WeightFormat | None, engines: int, kv: int, advice: str | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory, "usable_memory", lambda: 25_000_000_000)
    fault = memory.weights_fault("llama", LLAMA, form, kv * 10**9, engines)
    assert fault is None if advice is None else fault is not None and f"of memory here: {advice}" in fault


def test_weights_of_a_known_model_take_what_is_known():
    parameters = 8_030_261_248  # as Llama-3.1-8B is said to have, norms included
    assert 0.999 * 2 * parameters < memory.weight_bytes(LLAMA, WeightFormat.BF16) < 2 * parameters


@pytest.fixture
def odd(tmp_path: Path) -> Launch:
    """A model of a shape that the kernels lack, left to `auto`."""
    files = write_tiny_model(tmp_path, inner=33)
    settings = NativeSettings(backend=BackendName.AUTO, kv_bytes=8 << 20, threads=1)
    return Launch(model="odd", path=str(files.path), format=files.format, settings=settings)


def with_settings(launch: Launch, **changes: object) -> Launch:
    return structs.replace(launch, settings=structs.replace(launch.settings, **changes))


@needs_kernels
def test_a_shape_that_the_kernels_lack_is_left_to_the_reference(odd: Launch, capfd: pytest.CaptureFixture[str]):
    description, _ = build_engine(odd)
    reference, _ = build_engine(with_settings(odd, backend=BackendName.REFERENCE))
    assert description == reference
    said = capfd.readouterr().err
    assert "WARNING: odd runs on the reference backend, which is slow: the kernels do not take its shape (inter" in said
    assert "odd on the reference backend, weights in float32" in said


@needs_kernels
def test_kernels_that_were_asked_for_say_what_does_not_fit(odd: Launch):
    with pytest.raises(
        EngineRefused, match=r"kernels backend cannot run odd: intermediate is 33, no even number\. Set backend to auto"
    ):
        build_engine(with_settings(odd, backend=BackendName.KERNELS))
    with pytest.raises(EngineRefused, match=r"int8 need the kernels backend, which cannot run odd: intermediate is 33"):
        build_engine(with_settings(odd, weights=WeightFormat.INT8))


@needs_kernels
@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({}, None),
        ({"heads": 24, "kv_heads": 1}, None),
        ({"heads": 32, "kv_heads": 1}, "32 heads share 1 of keys and values, 32 each; the kernels take at most 24"),
        ({"hidden": 200}, "hidden is 200, no multiple of 16"),
        ({"intermediate": 33}, "intermediate is 33, no even number"),
        ({"head_dim": 256}, None),
        ({"head_dim": 258}, "head_dim is 258; the kernels take at most 256"),
    ],
)
def test_what_does_not_fit_is_what_the_kernels_refuse(launch: Launch, shape: dict[str, int], words: str | None):
    config = replace(load_config(ModelFiles("tiny", Path(launch.path), launch.format)), layers=1, **shape)  # type: ignore[arg-type]
    assert unfit(config) == words
    weights = dense.random_weights(config)
    if words is None:
        KernelsBackend(weights, config, pages=1, threads=1)
    else:
        with pytest.raises(ValueError, match="must be"):
            KernelsBackend(weights, config, pages=1, threads=1)
