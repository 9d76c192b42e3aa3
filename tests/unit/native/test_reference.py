"""The reference backend against a dense decoder, over pages, chunks, batches and forests."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from dense import dense_logits, random_weights, tiny_config
from hypothesis import given
from hypothesis import strategies as st

from parrotserve.engines.native import attention
from parrotserve.engines.native.batch import SequenceRows, build_batch
from parrotserve.engines.native.cache import KvCache
from parrotserve.engines.native.logits import FloatArray
from parrotserve.engines.native.reference import ReferenceBackend
from parrotserve.models.architecture import Family, ModelConfig, RopeKind, RopeScaling

PAGE = 4
PAGES = 64

LLAMA3 = RopeScaling(kind=RopeKind.LLAMA3, factor=4.0, original_context=32, low_freq_factor=1.0, high_freq_factor=4.0)
LINEAR = RopeScaling(kind=RopeKind.LINEAR, factor=2.0)
YARN = RopeScaling(kind=RopeKind.YARN, factor=4.0, original_context=32)

CONFIGS = {
    "llama": tiny_config(Family.LLAMA),
    "llama, untied": tiny_config(Family.LLAMA, tied=False),
    "llama, llama3 rope": tiny_config(Family.LLAMA, scaling=LLAMA3),
    "llama, linear rope": tiny_config(Family.LLAMA, scaling=LINEAR),
    "qwen2": tiny_config(Family.QWEN2),
    "qwen2, yarn rope": tiny_config(Family.QWEN2, scaling=YARN),
    "qwen3": tiny_config(Family.QWEN3),
    "qwen3, untied": tiny_config(Family.QWEN3, tied=False),
}

family = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def text(length: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(50), k=length)


def backend_for(config: ModelConfig) -> ReferenceBackend:
    return ReferenceBackend(random_weights(config), config, pages=PAGES, page_tokens=PAGE)


def expected(config: ModelConfig, tokens: list[int]) -> FloatArray:
    return dense_logits(random_weights(config), config, tokens)[-1].astype(np.float32)


class Run:
    """Sequences through a cache and a backend, step by step, as an engine does it."""

    def __init__(self, backend: ReferenceBackend, *, group: bool, shuffle: int | None = None) -> None:
        self.backend = backend
        self.group = group
        self.cache = KvCache(PAGES, PAGE)
        if shuffle is not None:
            # Pages come in any order once others have come and gone.
            pages = self.cache.allocate(PAGES) or []
            random.Random(shuffle).shuffle(pages)
            self._order = {page: place for place, page in enumerate(pages)}
            self.cache.free(pages)
        else:
            self._order = {page: page for page in range(PAGES)}

    def step(self, chunks: Sequence[tuple[list[int], int, list[int]]]) -> list[FloatArray]:
        """Each chunk is (the sequence's tokens so far, where the new ones start, its table)."""
        rows = [
            SequenceRows(tokens[start:], start, [self._order[page] for page in table], True)
            for tokens, start, table in chunks
        ]
        batch, order = build_batch(rows, PAGE, group=self.group, min_shared_tokens=1)
        logits = self.backend.step(batch).rows
        assert sorted(order) == list(range(len(rows)))
        return [logits[order.index(index)] for index in range(len(rows))]

    def prefill(self, tokens: list[int], chunk: int) -> tuple[FloatArray, list[int]]:
        """The logits after the last token, and the table."""
        table = self.cache.acquire("s", tokens[:-1])
        start, (logits,) = len(table) * PAGE, [np.empty(0, np.float32)]
        table += self.cache.allocate(-(-len(tokens) // PAGE) - len(table)) or []
        while start < len(tokens):
            stop = min(start + chunk, len(tokens))
            (logits,) = self.step([(tokens[:stop], start, table)])
            table = self.cache.publish("s", tokens[:stop], table)
            start = stop
        return logits, table


def close(actual: FloatArray, wanted: FloatArray) -> None:
    np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-4)


@pytest.fixture(params=[True, False], ids=["grouped", "ungrouped"])
def group(request: pytest.FixtureRequest) -> bool:
    return request.param


@family
def test_a_whole_prompt(config: ModelConfig):
    tokens = text(21)
    logits, _ = Run(backend_for(config), group=True).prefill(tokens, 100)
    close(logits, expected(config, tokens))


@family
def test_token_by_token(config: ModelConfig):
    tokens = text(11)
    logits, _ = Run(backend_for(config), group=True).prefill(tokens, 1)
    close(logits, expected(config, tokens))


@family
def test_a_mixed_batch_over_shared_prefixes(config: ModelConfig, group: bool):
    """Decodes and chunks of different lengths, two levels of shared prefix, one stranger."""
    run = Run(backend_for(config), group=group, shuffle=1)
    common, branch = text(2 * PAGE, 1), text(PAGE, 2)
    prompts = [
        common + branch + text(3, 3),
        common + branch + text(6, 4),
        common + text(5, 5),
        text(7, 6),
        common + branch + text(1, 7),
    ]
    tables = [run.prefill(prompt, 5)[1] for prompt in prompts]
    grown = [prompt + text(more, 8) for prompt, more in zip(prompts, (1, 9, 1, 4, 2), strict=True)]
    chunks: list[tuple[list[int], int, list[int]]] = []
    for prompt, tokens, table in zip(prompts, grown, tables, strict=True):
        table += run.cache.allocate(-(-len(tokens) // PAGE) - len(table)) or []
        chunks.append((tokens, len(prompt), table))
    for logits, tokens in zip(run.step(chunks), grown, strict=True):
        close(logits, expected(config, tokens))


@pytest.mark.parametrize("chunk", [1, 3, 4, 7, 16])
def test_the_chunk_does_not_matter(chunk: int, group: bool):
    config, tokens = CONFIGS["llama"], text(30)
    logits, _ = Run(backend_for(config), group=group, shuffle=2).prefill(tokens, chunk)
    close(logits, expected(config, tokens))


@pytest.mark.parametrize("scores", [1, 200, 1000])
def test_the_block_size_does_not_matter(scores: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attention, "MAX_SCORES", scores)
    config, tokens = CONFIGS["llama"], text(30)
    logits, _ = Run(backend_for(config), group=True, shuffle=3).prefill(tokens, 13)
    close(logits, expected(config, tokens))


@pytest.mark.parametrize("tokens_a_run", [1, 8, 12])
def test_whether_neighbouring_pages_are_copied_does_not_matter(tokens_a_run: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attention, "LONG_RUN_TOKENS", tokens_a_run)
    config, tokens = CONFIGS["llama"], text(42)
    table = [9, 10, 11, 4, 2, 3, 30, 20, 21, 22, 40]
    backend = backend_for(config)
    for start, stop in ((0, 30), (30, 41), (41, 42)):
        batch, _ = build_batch([SequenceRows(tokens[start:stop], start, table, True)], PAGE)
        close(backend.step(batch).rows[0], expected(config, tokens[:stop]))


def test_a_prefix_computed_by_another_sequence_is_as_good_as_ones_own():
    config = CONFIGS["qwen3"]
    run = Run(backend_for(config), group=True)
    common = text(3 * PAGE)
    run.prefill(common + text(2, 1), 100)
    tokens = common + text(5, 2)
    run.cache.free(shared := run.cache.acquire("s", tokens))
    assert len(shared) == 3
    close(run.prefill(tokens, 100)[0], expected(config, tokens))


def test_logits_come_only_for_rows_that_want_them():
    config, tokens = CONFIGS["llama"], text(6)
    wanted = SequenceRows(tokens, 0, [3, 4], True)
    other = SequenceRows(text(4, 9), 0, [7], False)
    batch, order = build_batch([other, wanted], PAGE)
    logits = backend_for(config).step(batch).rows
    assert order == [1]
    assert logits.shape == (1, config.vocabulary)
    close(logits[0], expected(config, tokens))
    nothing, _ = build_batch([other], PAGE)
    assert backend_for(config).step(nothing).rows.shape == (0, config.vocabulary)


def test_many_rows_take_the_same_values_as_few():
    config, tokens = CONFIGS["llama"], text(100)
    logits, _ = Run(backend_for(config), group=True).prefill(tokens, 100)
    close(logits, expected(config, tokens))


def test_page_bytes_is_what_a_page_of_kv_takes():
    config = CONFIGS["llama"]
    keys_and_values = 2 * config.layers * config.kv_heads * config.head_dim
    assert ReferenceBackend.page_bytes(config, PAGE) == keys_and_values * PAGE * 4


@st.composite
def programs(draw: st.DrawFn) -> list[tuple[list[int], int]]:
    """Prompts from few tokens, so that they share, and how much of each is new in the step under test."""
    prompts = draw(st.lists(st.lists(st.integers(0, 1), min_size=2, max_size=20), min_size=1, max_size=6))
    return [(prompt, draw(st.integers(1, len(prompt)))) for prompt in prompts]


CONFIG = CONFIGS["llama"]
BACKEND = backend_for(CONFIG)


@given(programs(), st.booleans(), st.integers(0, 100))
def test_any_forest(program: list[tuple[list[int], int]], group: bool, shuffle: int):
    run = Run(BACKEND, group=group, shuffle=shuffle)
    chunks: list[tuple[list[int], int, list[int]]] = []
    for tokens, new in program:
        start = len(tokens) - new
        table = run.prefill(tokens[:start], 6)[1] if start else []
        table += run.cache.allocate(-(-len(tokens) // PAGE) - len(table)) or []
        chunks.append((tokens, start, table))
    for logits, (tokens, _) in zip(run.step(chunks), program, strict=True):
        close(logits, expected(CONFIG, tokens))
