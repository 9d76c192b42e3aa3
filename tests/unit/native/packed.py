"""A model's weights as the kernels pack them, so that the reference computes with the same."""

from dataclasses import replace

import numpy as np

from parrotserve.engines.native.logits import FloatArray
from parrotserve.models.weights import ModelWeights

MATRICES = ("q", "k", "v", "o", "gate", "up", "down")


def as_packed(weights: ModelWeights, int8: bool) -> ModelWeights:
    """What the kernels make of a model's matrices when they pack them."""
    pack = in_int8 if int8 else in_bf16
    layers = tuple(
        replace(layer, **{name: pack(getattr(layer, name)) for name in MATRICES}) for layer in weights.layers
    )
    head = None if weights.head is None else pack(weights.head)
    return replace(weights, embedding=pack(weights.embedding), layers=layers, head=head)


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
