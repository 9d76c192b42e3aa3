"""The reference backend: a Llama-family decoder in NumPy, float32, written to be read beside the papers.

Touvron et al., "LLaMA" (2023): pre-norm transformer; RMSNorm (Zhang & Sennrich, 2019), rotary positions (Su et al.,
2021), grouped-query attention (Ainslie et al., 2023), SwiGLU (Shazeer, 2020). Rows are tokens throughout: an
activation is [rows, features], a weight [out, in].
"""

import math
from dataclasses import dataclass

import numpy as np

from parrotserve.engines.native.attention import Block, attend, plan_blocks
from parrotserve.engines.native.backend import StepBatch
from parrotserve.engines.native.logits import FloatArray, IntArray, Logits, WholeLogits
from parrotserve.engines.native.settings import PAGE_TOKENS
from parrotserve.models.architecture import ModelConfig
from parrotserve.models.weights import LayerWeights, ModelWeights

_LEFT_OPERAND_ROWS = 64
"""Up to this many rows, BLAS is faster with the weight as its left operand."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer's weights; matrices that read the same input are fused into one."""

    attn_norm: FloatArray
    qkv: FloatArray
    qkv_bias: FloatArray | None
    q_norm: FloatArray | None
    k_norm: FloatArray | None
    o: FloatArray
    mlp_norm: FloatArray
    gate_up: FloatArray
    down: FloatArray


@dataclass(frozen=True, slots=True)
class _Step:
    """What all layers of one step share."""

    slots: IntArray
    cos: FloatArray
    """[rows, 1, head_dim / 2]"""
    sin: FloatArray
    blocks: list[Block]


class ReferenceBackend:
    """Runs steps in float32 on NumPy's BLAS. Neither thread-safe nor reentrant.

    Fusing copies about half of the weights: drop `weights` after this and there is one copy of everything.
    """

    def __init__(
        self, weights: ModelWeights, config: ModelConfig, *, pages: int, page_tokens: int = PAGE_TOKENS
    ) -> None:
        self._config = config
        self._page_tokens = page_tokens
        self._embedding = weights.embedding
        self._head = weights.embedding if weights.head is None else weights.head
        self._final_norm = weights.final_norm
        self._layers = [_fuse(layer) for layer in weights.layers]
        self._rope_frequencies = weights.rope_frequencies.astype(np.float32)
        self._rope_magnitude = np.float32(weights.rope_magnitude)
        # np.zeros maps memory without writing to it, so it is taken only as pages come into use.
        self._kv = np.zeros((config.layers, 2, config.kv_heads, pages, page_tokens, config.head_dim), np.float32)

    @staticmethod
    def page_bytes(config: ModelConfig, page_tokens: int = PAGE_TOKENS) -> int:
        """Bytes that one page takes."""
        return config.layers * 2 * config.kv_heads * page_tokens * config.head_dim * np.dtype(np.float32).itemsize

    @property
    def page_tokens(self) -> int:
        """Tokens per page."""
        return self._page_tokens

    def step(self, batch: StepBatch) -> Logits:
        """Run all rows, writing their KV. Returns the logits of the outputs."""
        step = self._prepare(batch)
        x = self._embedding[batch.tokens]
        for layer, kv in zip(self._layers, self._kv, strict=True):
            x += self._attention(layer, kv, self._norm(x, layer.attn_norm), step)
            x += _swiglu(layer, self._norm(x, layer.mlp_norm))
        return WholeLogits(linear(self._norm(x[batch.logit_rows], self._final_norm), self._head))

    def _prepare(self, batch: StepBatch) -> _Step:
        # Angles are float32, so that they are rounded as in training.
        angles = batch.positions.astype(np.float32)[:, None, None] * self._rope_frequencies
        return _Step(
            slots=batch.slots,
            cos=np.cos(angles) * self._rope_magnitude,
            sin=np.sin(angles) * self._rope_magnitude,
            blocks=plan_blocks(batch, self._page_tokens, self._config.heads),
        )

    def _attention(self, layer: _Layer, kv: FloatArray, x: FloatArray, step: _Step) -> FloatArray:
        config, rows = self._config, len(x)
        qkv = linear(x, layer.qkv)
        if layer.qkv_bias is not None:
            qkv += layer.qkv_bias
        heads = qkv.reshape(rows, -1, config.head_dim)
        q, k, v = heads[:, : config.heads], heads[:, config.heads : -config.kv_heads], heads[:, -config.kv_heads :]
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = self._norm(q, layer.q_norm), self._norm(k, layer.k_norm)
        keys, values = kv
        flat = (config.kv_heads, -1, config.head_dim)
        keys.reshape(flat)[:, step.slots] = _rotate(k, step).swapaxes(0, 1)
        values.reshape(flat)[:, step.slots] = v.swapaxes(0, 1)
        q = _rotate(q, step) * np.float32(1 / math.sqrt(config.head_dim))
        queries = q.reshape(rows, config.kv_heads, -1, config.head_dim).swapaxes(0, 1)
        mixed = attend(np.ascontiguousarray(queries), keys, values, step.blocks)
        return linear(mixed.swapaxes(0, 1).reshape(rows, -1), layer.o)

    def _norm(self, x: FloatArray, weight: FloatArray) -> FloatArray:
        """RMSNorm over the last axis."""
        mean_square = np.square(x).sum(axis=-1, keepdims=True) / np.float32(x.shape[-1])
        return x / np.sqrt(mean_square + np.float32(self._config.rms_eps)) * weight


def linear(x: FloatArray, weight: FloatArray) -> FloatArray:
    """x Wᵀ for x [rows, in] and W [out, in]."""
    if len(x) > _LEFT_OPERAND_ROWS:
        return x @ weight.T
    return np.ascontiguousarray((weight @ x.T).T)


def _rotate(x: FloatArray, step: _Step) -> FloatArray:
    """Rotary positions, half-split: pair i of a head is its elements i and i + head_dim / 2."""
    half = x.shape[-1] // 2
    low, high = x[..., :half], x[..., half:]
    turned = np.empty_like(x)
    np.subtract(low * step.cos, high * step.sin, out=turned[..., :half])
    np.add(high * step.cos, low * step.sin, out=turned[..., half:])
    return turned


def _swiglu(layer: _Layer, x: FloatArray) -> FloatArray:
    both = linear(x, layer.gate_up)
    inner = both.shape[1] // 2
    gate, up = both[:, :inner], both[:, inner:]
    half: FloatArray = gate * np.float32(0.5)
    # silu(g) = g sigmoid(g) = g/2 + g/2 tanh(g/2), which cannot overflow.
    gated: FloatArray = (half + half * np.tanh(half)) * up
    return linear(gated, layer.down)


def _fuse(layer: LayerWeights) -> _Layer:
    biases = [bias for bias in (layer.q_bias, layer.k_bias, layer.v_bias) if bias is not None]
    return _Layer(
        attn_norm=layer.attn_norm,
        qkv=np.concatenate((layer.q, layer.k, layer.v)),
        qkv_bias=np.concatenate(biases) if biases else None,
        q_norm=layer.q_norm,
        k_norm=layer.k_norm,
        o=layer.o,
        mlp_norm=layer.mlp_norm,
        gate_up=np.concatenate((layer.gate, layer.up)),
        down=layer.down,
    )
