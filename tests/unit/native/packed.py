"""A model's weights as the kernels pack them, so that the reference computes with the same."""

from dataclasses import replace

import numpy as np

from parrotserve.engines.native.logits import FloatArray
from parrotserve.engines.native.settings import WeightFormat
from parrotserve.models.weights import Blocks, LayerWeights, ModelWeights

MATRICES = ("q", "k", "v", "o", "gate", "up", "down")
TOGETHER = (("q", "k", "v"), ("gate", "up"))
"""In 4 bits all of them, or none."""


def as_packed(weights: ModelWeights, form: WeightFormat) -> ModelWeights:
    """What the kernels make of a model's matrices when they pack them."""
    pack = in_bf16 if form is WeightFormat.BF16 else in_int8

    def packed(layer: LayerWeights, name: str) -> FloatArray:
        together = next((names for names in TOGETHER if name in names), (name,))
        if form is WeightFormat.INT4 and all(one in layer.four_bit for one in together):
            return of_blocks(layer.four_bit[name])
        return pack(getattr(layer, name))

    layers = tuple(replace(layer, **{name: packed(layer, name) for name in MATRICES}) for layer in weights.layers)
    head = None if weights.head is None else pack(weights.head)
    return replace(weights, embedding=pack(weights.embedding), layers=layers, head=head)


def with_blocks(weights: ModelWeights) -> ModelWeights:
    """As from a file that keeps every matrix whose inputs blocks can cover in 4 bits, but for one of the last layer."""

    def kept(layer: LayerWeights, *, but: str = "") -> LayerWeights:
        matrices = {name: getattr(layer, name) for name in MATRICES if name != but}
        blocks = {name: in_blocks(matrix) for name, matrix in matrices.items() if matrix.shape[1] % 32 == 0}
        return replace(layer, four_bit=blocks, **{name: of_blocks(matrix) for name, matrix in blocks.items()})

    *others, last = weights.layers
    return replace(weights, layers=(*map(kept, others), kept(last, but="v")))


def in_blocks(matrix: FloatArray) -> Blocks:
    """Q4_1: from the least to the most weight of 32 in fifteen steps."""
    groups = matrix.reshape(len(matrix), -1, 32)
    least = groups.min(axis=-1, keepdims=True).astype(np.float16)
    scale = ((groups.max(axis=-1, keepdims=True) - least) / 15).astype(np.float16)
    whole = np.clip(np.rint((groups - least) / scale), 0, 15).astype(np.uint8)
    return np.concatenate((scale.view(np.uint8), least.view(np.uint8), whole[..., :16] | whole[..., 16:] << 4), axis=-1)


def of_blocks(blocks: Blocks) -> FloatArray:
    """What blocks of Q4_1 stand for."""
    factors = np.ascontiguousarray(blocks[..., :4]).view(np.float16).astype(np.float32)
    whole = np.concatenate((blocks[..., 4:] & 15, blocks[..., 4:] >> 4), axis=-1)
    return (whole * factors[..., :1] + factors[..., 1:]).reshape(len(blocks), -1)


def in_bf16(matrix: FloatArray) -> FloatArray:
    """To the nearest, ties to even."""
    bits = matrix.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) & np.uint32(0xFFFF0000)).view(np.float32)


def in_int8(matrix: FloatArray) -> FloatArray:
    """Whole numbers up to 127 by a scale in bf16 for every 64 inputs."""
    rows, inputs = matrix.shape
    groups = np.pad(matrix, ((0, 0), (0, -inputs % 64))).reshape(rows, -1, 64)
    most = np.abs(groups).max(axis=-1, keepdims=True)
    scale = in_bf16(most / np.float32(127))
    scale = np.where(scale * np.float32(127) < most, (scale.view(np.uint32) + 0x10000).view(np.float32), scale)
    whole = np.rint(groups / np.where(scale > 0, scale, np.float32(1)))
    return np.ascontiguousarray((whole * scale).reshape(rows, -1)[:, :inputs])
