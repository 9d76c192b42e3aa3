"""The compiled backend: every variant against the reference, and its bytes against themselves."""

import random
from dataclasses import replace

import numpy as np
import pytest
from dense import random_weights, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st

from parrotserve.engines.native.backend import Backend, FloatArray
from parrotserve.engines.native.batch import SequenceRows, build_batch
from parrotserve.engines.native.kernels import BLOCK_TOKENS, PAGE_TOKENS, KernelsBackend, variants
from parrotserve.engines.native.reference import ReferenceBackend
from parrotserve.models.architecture import Family, ModelConfig

PAGES = 160
TOLERANCE = 0.04
"""Of the largest logit: what bf16 weights and KV cost these random models."""

pytestmark = pytest.mark.skipif(not variants(), reason="the compiled extension is not installed here")


def shape(family: Family, *, head_dim: int, heads: int, kv_heads: int, tied: bool = True) -> ModelConfig:
    return replace(
        tiny_config(family, tied=tied),
        hidden=96,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=80,
        vocabulary=150,
        context_length=2048,
    )


CONFIGS = {
    "llama, 64": shape(Family.LLAMA, head_dim=64, heads=3, kv_heads=1),
    "llama, 128, untied": shape(Family.LLAMA, head_dim=128, heads=2, kv_heads=2, tied=False),
    "qwen2, 16": shape(Family.QWEN2, head_dim=16, heads=6, kv_heads=2),
    "qwen3, 80": shape(Family.QWEN3, head_dim=80, heads=4, kv_heads=2),
}

every_variant = pytest.mark.parametrize("variant", variants())
every_shape = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def text(length: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(150), k=length)


def table(seed: int, tokens: int) -> list[int]:
    """Pages in no order, others for every seed below 4."""
    pages = list(range(PAGES))
    random.Random(0).shuffle(pages)
    return pages[seed * 40 : seed * 40 + -(-tokens // PAGE_TOKENS)]


def step(backend: Backend, rows: list[SequenceRows], *, group: bool = True) -> FloatArray:
    batch, order = build_batch(rows, PAGE_TOKENS, group=group, min_shared_tokens=1, align_tokens=BLOCK_TOKENS)
    logits = backend.step(batch).copy()
    return logits[np.argsort(order)]


def prefill(backend: Backend, tokens: list[int], pages: list[int], *, chunk: int = 1000, start: int = 0) -> FloatArray:
    logits = np.empty((0, 0), dtype=np.float32)
    for first in range(start, len(tokens), chunk):
        part = tokens[first : first + chunk]
        logits = step(backend, [SequenceRows(part, first, pages, True)])
    return logits


def kernels(config: ModelConfig, variant: str, *, threads: int = 1) -> KernelsBackend:
    return KernelsBackend(random_weights(config), config, pages=PAGES, threads=threads, variant=variant)


@every_variant
@every_shape
def test_agrees_with_the_reference(config: ModelConfig, variant: str):
    reference = ReferenceBackend(random_weights(config), config, pages=PAGES)
    backend = kernels(config, variant, threads=2)
    tokens = text(300)
    for length in (1, 17, 300):
        expected = prefill(reference, tokens[:length], table(0, length))
        found = prefill(backend, tokens[:length], table(0, length))
        assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


@every_variant
@pytest.mark.parametrize("chunk", [1, 16, 100])
def test_prefill_chunks_do_not_change_a_byte(variant: str, chunk: int):
    backend = kernels(CONFIGS["llama, 64"], variant)
    tokens = text(290)
    whole = prefill(backend, tokens, table(0, 290))
    assert np.array_equal(whole, prefill(backend, tokens, table(1, 290), chunk=chunk))


@every_variant
@every_shape
def test_grouping_batch_and_threads_do_not_change_a_byte(config: ModelConfig, variant: str):
    shared, own = text(2 * BLOCK_TOKENS), [text(5 + 9 * i, seed=i + 1) for i in range(3)]
    common = table(0, len(shared))
    results: list[FloatArray] = []
    for group, threads, together in [(True, 1, True), (False, 1, True), (True, 3, True), (False, 1, False)]:
        backend = kernels(config, variant, threads=threads)
        prefill(backend, shared, common)
        rows = [SequenceRows(part, len(shared), common + table(i + 1, 64), True) for i, part in enumerate(own)]
        if together:
            results.append(step(backend, rows, group=group))
        else:
            results.append(np.concatenate([step(backend, [row], group=group) for row in rows]))
    for other in results[1:]:
        assert np.array_equal(results[0], other)


@settings(max_examples=25)
@given(data=st.data())
def test_random_batches_agree_with_the_reference(data: st.DataObject):
    config = CONFIGS[data.draw(st.sampled_from(sorted(CONFIGS)))]
    variant = data.draw(st.sampled_from(variants()))
    reference = ReferenceBackend(random_weights(config), config, pages=PAGES)
    backend = kernels(config, variant, threads=data.draw(st.integers(1, 3)))
    shared = text(data.draw(st.integers(0, 2)) * BLOCK_TOKENS)
    common = table(0, len(shared))
    rows: list[SequenceRows] = []
    for i in range(data.draw(st.integers(1, 3))):
        part = text(data.draw(st.integers(1, 40)), seed=i)
        rows.append(SequenceRows(part, len(shared), common + table(i + 1, 64), data.draw(st.booleans()) or i == 0))
    for one in (reference, backend):
        prefill(one, shared, common)
    expected, found = step(reference, rows), step(backend, rows)
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="no variant"):
        kernels(CONFIGS["llama, 64"], "z80")
