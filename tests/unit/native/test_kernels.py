"""The compiled backend: every variant against the reference, and its bytes against themselves."""

import random
from dataclasses import replace

import numpy as np
import pytest
from dense import random_weights, tiny_config
from packed import as_packed, with_blocks

from parrotserve.engines.native.backend import Backend, StepBatch
from parrotserve.engines.native.batch import SequenceRows, build_batch
from parrotserve.engines.native.kernels import BLOCK_TOKENS, PAGE_TOKENS, KernelsBackend, variants
from parrotserve.engines.native.logits import FloatArray
from parrotserve.engines.native.reference import ReferenceBackend
from parrotserve.engines.native.settings import WeightFormat
from parrotserve.models.architecture import Family, ModelConfig

PAGES = 160
TOLERANCE = 0.04
"""Of the largest logit: what KV and activations in bf16, or in int8, cost these random models."""

WILD, CALM = 1.5, 0.7
"""How large weights are drawn. Attention among the larger ones is all or nothing, which int8 inputs may tip over."""

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
every_form = pytest.mark.parametrize("form", WeightFormat)
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
    logits = backend.step(batch).rows.copy()
    return logits[np.argsort(order)]


def prefill(backend: Backend, tokens: list[int], pages: list[int], *, chunk: int = 1000, start: int = 0) -> FloatArray:
    logits = np.empty((0, 0), dtype=np.float32)
    for first in range(start, len(tokens), chunk):
        part = tokens[first : first + chunk]
        logits = step(backend, [SequenceRows(part, first, pages, True)])
    return logits


def kernels(
    config: ModelConfig, variant: str, *, threads: int = 1, form: WeightFormat = WeightFormat.BF16
) -> KernelsBackend:
    weights = with_blocks(random_weights(config))
    return KernelsBackend(weights, config, pages=PAGES, threads=threads, variant=variant, form=form)


def test_pages_and_blocks_have_the_sizes_that_are_compiled_in():
    compiled = pytest.importorskip("parrotserve._kernels")
    assert (PAGE_TOKENS, BLOCK_TOKENS) == (compiled.PAGE_TOKENS, compiled.BLOCK_TOKENS)


@every_variant
def test_logits_are_the_same_where_rows_fill_whole_cache_lines_and_where_not(variant: str):
    config, fitting = CONFIGS["llama, 64"], replace(CONFIGS["llama, 64"], vocabulary=144)
    weights = random_weights(config)
    cut = replace(weights, embedding=np.ascontiguousarray(weights.embedding[:144]))
    batch, _ = build_batch([SequenceRows([7 * i, 5], 0, table(i, 2), True) for i in range(4)], PAGE_TOKENS)
    rows: list[FloatArray] = []
    for shape, of in ((config, weights), (fitting, cut)):
        logits = KernelsBackend(of, shape, pages=PAGES, threads=2, variant=variant).step(batch)
        assert (logits.likeliest == logits.rows.argmax(axis=1)).all()
        rows.append(logits.rows)
    assert (rows[0][:, :144] == rows[1]).all()


@every_variant
@every_form
@every_shape
def test_agrees_with_the_reference(config: ModelConfig, form: WeightFormat, variant: str):
    weights = with_blocks(random_weights(config, spread=WILD if form is WeightFormat.BF16 else CALM))
    reference = ReferenceBackend(as_packed(weights, form), config, pages=PAGES)
    backend = KernelsBackend(weights, config, pages=PAGES, threads=2, variant=variant, form=form)
    tokens = text(300)
    for length in (1, 17, 300):
        expected = prefill(reference, tokens[:length], table(0, length))
        found = prefill(backend, tokens[:length], table(0, length))
        assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


@every_variant
@every_form
@pytest.mark.parametrize("chunk", [1, 16, 100])
def test_prefill_chunks_do_not_change_a_byte(variant: str, form: WeightFormat, chunk: int):
    backend = kernels(CONFIGS["llama, 64"], variant, form=form)
    tokens = text(290)
    whole = prefill(backend, tokens, table(0, 290))
    assert np.array_equal(whole, prefill(backend, tokens, table(1, 290), chunk=chunk))


@every_variant
@every_form
@every_shape
def test_grouping_batch_and_threads_do_not_change_a_byte(config: ModelConfig, form: WeightFormat, variant: str):
    shared, own = text(2 * BLOCK_TOKENS), [text(5 + 9 * i, seed=i + 1) for i in range(3)]
    common = table(0, len(shared))
    results: list[FloatArray] = []
    for group, threads, together in [(True, 1, True), (False, 1, True), (True, 3, True), (False, 1, False)]:
        backend = kernels(config, variant, threads=threads, form=form)
        prefill(backend, shared, common)
        rows = [SequenceRows(part, len(shared), common + table(i + 1, 64), True) for i, part in enumerate(own)]
        if together:
            results.append(step(backend, rows, group=group))
        else:
            results.append(np.concatenate([step(backend, [row], group=group) for row in rows]))
    for other in results[1:]:
        assert np.array_equal(results[0], other)


@every_variant
@pytest.mark.parametrize(("start", "count"), [(245, 30), (250, 6), (500, 40)])
def test_keys_that_end_before_others_of_a_step_do_not_change_a_byte(variant: str, start: int, count: int):
    """With more threads keys are cut into pieces, of which some rows see only the first."""
    tokens, found = text(start + count), []
    for threads, pieces in ((1, 1), (2, 1), (6, 1), (1, count)):
        backend, pages = kernels(CONFIGS["llama, 64"], variant, threads=threads), table(0, start + count)
        prefill(backend, tokens[:start], pages)
        found.append(prefill(backend, tokens, pages, start=start, chunk=count // pieces))
    assert all(np.array_equal(found[0], other) for other in found[1:])


@every_variant
def test_what_no_number_is_in_a_page_does_not_reach_who_gets_it_next(variant: str):
    config = CONFIGS["llama, 64"]
    clean, spoilt = kernels(config, variant), kernels(config, variant)
    spoilt.spoil_pages()
    for length in (1, 2, 15, 16, 17, 31, 32, 33, 47, 49):
        tokens = text(length)
        assert np.array_equal(*(prefill(backend, tokens, table(0, length)) for backend in (clean, spoilt)))


@every_variant
def test_int8_is_coarser_than_bf16_and_close_to_it(variant: str):
    config = CONFIGS["llama, 64"]
    tokens = text(100)
    weights = random_weights(config, spread=CALM)
    exact = prefill(ReferenceBackend(weights, config, pages=PAGES), tokens, table(0, 100))
    bf16, int8 = (
        prefill(
            KernelsBackend(weights, config, pages=PAGES, threads=1, variant=variant, form=form), tokens, table(0, 100)
        )
        for form in (WeightFormat.BF16, WeightFormat.INT8)
    )
    assert 0 < np.abs(bf16 - int8).max() <= 2 * TOLERANCE * np.abs(exact).max()


def wrong(batch: StepBatch, name: str, value: int) -> StepBatch:
    """The batch with one entry of one array replaced."""
    holder = batch.spans if hasattr(batch.spans, name) else batch
    array = getattr(holder, name).copy()
    array.flat[-1] = value
    changed = replace(holder, **{name: array})
    return changed if holder is batch else replace(batch, spans=changed)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("tokens", 150, "vocabulary"),
        ("tokens", -1, "vocabulary"),
        ("positions", -1, "position"),
        ("slots", PAGES * PAGE_TOKENS, "slot"),
        ("logit_rows", 2, "logits"),
        ("pages", PAGES, "page"),
        ("page_starts", 0, "more keys than pages"),
        ("page_starts", 9, "table"),
        ("rows", 3, "rows"),
        ("keys", PAGE_TOKENS + 1, "more keys than pages"),
        ("keys", 0, "empty"),
    ],
)
def test_what_would_reach_beyond_memory_is_refused(name: str, value: int, told: str):
    backend = kernels(CONFIGS["llama, 64"], variants()[0])
    batch, _ = build_batch([SequenceRows([1, 2], 0, [5], True)], PAGE_TOKENS)
    backend.step(batch)
    with pytest.raises(ValueError, match=told):
        backend.step(wrong(batch, name, value))


def test_a_shared_span_that_a_row_does_not_lie_behind_is_refused():
    backend = kernels(CONFIGS["llama, 64"], variants()[0])
    batch, _ = build_batch([SequenceRows([1, 2], 0, [5], True)], PAGE_TOKENS)
    causal = np.zeros_like(batch.spans.causal)
    with pytest.raises(ValueError, match="beyond a row"):
        backend.step(replace(batch, spans=replace(batch.spans, causal=causal)))


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="no variant"):
        kernels(CONFIGS["llama, 64"], "z80")


def test_a_copied_page_is_read_like_the_one_it_was_copied_from():
    backend = kernels(CONFIGS["llama, 64"], variants()[0])
    tokens = text(100)
    prefill(backend, tokens, table(0, 100))
    backend.copy_pages(table(0, 100), table(1, 100))
    first, second = (step(backend, [SequenceRows([7], 100, table(seed, 101), True)]) for seed in (0, 1))
    assert np.array_equal(first, second)
    prefill(backend, text(100, seed=1), table(1, 100))
    assert np.array_equal(step(backend, [SequenceRows([7], 100, table(0, 101), True)]), first), (
        "the source is untouched"
    )


def test_pages_that_do_not_exist_are_not_copied():
    backend = kernels(CONFIGS["llama, 64"], variants()[0])
    for source, target in (([0], [PAGES]), ([-1], [0]), ([0, 1], [2])):
        with pytest.raises(ValueError, match=r"page does not exist|different lengths"):
            backend.copy_pages(source, target)
