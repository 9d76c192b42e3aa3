"""Small batches in bf16 read a file's 4-bit blocks: to the bit what they are with the weights that these stand for."""

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from dense import random_weights, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from packed import in_blocks, of_blocks

from parrotserve.engines.native.batch import SequenceRows, build_batch
from parrotserve.engines.native.kernels import PAGE_TOKENS, KernelsBackend, variants
from parrotserve.engines.native.logits import FloatArray
from parrotserve.models.architecture import Family, ModelConfig
from parrotserve.models.weights import Blocks, LayerWeights, ModelWeights

pytestmark = pytest.mark.skipif(not variants(), reason="the compiled extension is not installed here")

every_variant = pytest.mark.parametrize("variant", variants())

ROWS = [*range(1, 14), 97, 100]
"""Fewer than are restored, as many, and more, and a last piece of few."""


def shape(family: Family = Family.LLAMA, *, hidden: int = 64, intermediate: int = 96) -> ModelConfig:
    """Inputs of whole blocks."""
    return replace(tiny_config(family), hidden=hidden, intermediate=intermediate, heads=4, kv_heads=2, head_dim=16)


def kept_in_blocks(weights: ModelWeights, names: tuple[str, ...], *, scale: float = 1.0) -> ModelWeights:
    """As from a file that has these matrices in 4 bits."""

    def layer(one: LayerWeights) -> LayerWeights:
        blocks = {name: in_blocks(getattr(one, name) * np.float32(scale)) for name in names}
        return replace(one, four_bit=blocks, **{name: of_blocks(each) for name, each in blocks.items()})

    return replace(weights, layers=tuple(map(layer, weights.layers)))


def without_blocks(weights: ModelWeights) -> ModelWeights:
    return replace(weights, layers=tuple(replace(layer, four_bit={}) for layer in weights.layers))


def logits(weights: ModelWeights, config: ModelConfig, variant: str, rows: int, *, threads: int = 2) -> FloatArray:
    """Of so many sequences of two tokens each, the second beside all others."""
    backend = KernelsBackend(weights, config, pages=rows, threads=threads, variant=variant)
    for first in (0, 1):
        sequences = [SequenceRows([(7 * row + first) % config.vocabulary], first, [row], True) for row in range(rows)]
        found = backend.step(build_batch(sequences, PAGE_TOKENS)[0]).rows.copy()
    return found


def check(weights: ModelWeights, config: ModelConfig, variant: str, rows: int) -> None:
    plain = logits(without_blocks(weights), config, variant, rows)
    assert np.isfinite(plain).all()
    assert np.ptp(plain) > 0
    assert logits(weights, config, variant, rows).tobytes() == plain.tobytes()


ALL = ("q", "k", "v", "o", "gate", "up", "down")


@every_variant
@pytest.mark.parametrize("rows", ROWS)
def test_it_is_what_the_weights_are_to_the_bit(rows: int, variant: str):
    config = shape()
    check(kept_in_blocks(random_weights(config), ALL), config, variant, rows)


@every_variant
@pytest.mark.parametrize("names", [("o",), ("down",), ("gate", "up"), ("q", "k", "v"), ("q", "k", "up", "down")])
def test_a_file_may_have_some_matrices_in_blocks(names: tuple[str, ...], variant: str):
    config = shape(Family.QWEN2)
    check(kept_in_blocks(random_weights(config), names), config, variant, 3)


@every_variant
@pytest.mark.parametrize(("hidden", "intermediate"), [(32, 32), (96, 64), (192, 480), (160, 224)])
def test_tiles_of_every_width(hidden: int, intermediate: int, variant: str):
    config = shape(Family.QWEN3, hidden=hidden, intermediate=intermediate)
    for rows in (1, 2, 5):
        check(kept_in_blocks(random_weights(config), ALL), config, variant, rows)


@every_variant
@pytest.mark.parametrize("scale", [1e-4, 1e-2, 100.0])
def test_weights_as_small_and_large_as_scales_in_fp16(scale: float, variant: str):
    config = shape()
    check(kept_in_blocks(random_weights(config), ALL, scale=scale), config, variant, 4)


@every_variant
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 9), threads=st.integers(1, 3))
def test_blocks_that_no_quantiser_would_make(variant: str, seed: int, rows: int, threads: int):
    """Any bits of weights, and scales and least weights of any size and sign, zero among them."""
    config, random = shape(), np.random.default_rng(seed)

    def strange(matrix: FloatArray) -> Blocks:
        blocks = random.integers(0, 256, (len(matrix), matrix.shape[1] // 32, 20), dtype=np.uint8)
        exponents = random.integers(-24, -3, (*blocks.shape[:2], 2))
        factors = random.normal(0, 1, exponents.shape) * 2.0**exponents * random.integers(0, 4, exponents.shape)
        blocks[..., :4] = factors.astype(np.float16).view(np.uint8)
        return blocks

    def layer(one: LayerWeights) -> LayerWeights:
        blocks = {name: strange(cast("FloatArray", getattr(one, name))) for name in ALL}
        return replace(one, four_bit=blocks, **{name: of_blocks(each) for name, each in blocks.items()})

    weights = random_weights(config)
    weights = replace(weights, layers=tuple(map(layer, weights.layers)))
    plain = logits(without_blocks(weights), config, variant, rows)
    assert logits(weights, config, variant, rows, threads=threads).tobytes() == plain.tobytes()
