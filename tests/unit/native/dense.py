"""A decoder without pages, batches or tricks: what the reference backend is tested against.

One sequence at a time, float64, one head at a time, every key for every row.
"""

import numpy as np
from numpy.typing import NDArray

from parrotserve.models.architecture import Family, ModelConfig, RopeScaling
from parrotserve.models.rope import rope_frequencies
from parrotserve.models.weights import LayerWeights, ModelWeights

Dense = NDArray[np.float64]


def tiny_config(family: Family, *, tied: bool = True, scaling: RopeScaling | None = None) -> ModelConfig:
    """A model of this family's shape, small enough for milliseconds."""
    return ModelConfig(
        family=family,
        layers=2,
        hidden=24,
        heads=6,
        kv_heads=2,
        # Qwen3's heads are wider than hidden / heads.
        head_dim=8 if family is Family.QWEN3 else 4,
        intermediate=40,
        vocabulary=50,
        context_length=256,
        rope_theta=100.0,
        rope_scaling=scaling,
        rms_eps=1e-5,
        tied_embeddings=tied,
        qkv_bias=family is Family.QWEN2,
        qk_norm=family is Family.QWEN3,
        eos=frozenset({0}),
        bos=None,
        add_bos=False,
    )


def random_weights(config: ModelConfig, seed: int = 0, *, spread: float = 1.5) -> ModelWeights:
    """Weights by default large enough that attention is far from uniform and a wrong one shows."""
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> NDArray[np.float32]:
        return random.normal(0, spread / np.sqrt(shape[-1]), shape).astype(np.float32)

    def gains(size: int) -> NDArray[np.float32]:
        return random.uniform(0.5, 1.5, size).astype(np.float32)

    hidden, inner = config.hidden, config.intermediate
    q_size, kv_size = config.heads * config.head_dim, config.kv_heads * config.head_dim
    layers = tuple(
        LayerWeights(
            attn_norm=gains(hidden),
            q=draw(q_size, hidden),
            k=draw(kv_size, hidden),
            v=draw(kv_size, hidden),
            o=draw(hidden, q_size),
            q_bias=draw(q_size) if config.qkv_bias else None,
            k_bias=draw(kv_size) if config.qkv_bias else None,
            v_bias=draw(kv_size) if config.qkv_bias else None,
            q_norm=gains(config.head_dim) if config.qk_norm else None,
            k_norm=gains(config.head_dim) if config.qk_norm else None,
            mlp_norm=gains(hidden),
            gate=draw(inner, hidden),
            up=draw(inner, hidden),
            down=draw(hidden, inner),
        )
        for _ in range(config.layers)
    )
    frequencies, magnitude = rope_frequencies(config)
    return ModelWeights(
        embedding=draw(config.vocabulary, hidden),
        layers=layers,
        final_norm=gains(hidden),
        head=None if config.tied_embeddings else draw(config.vocabulary, hidden),
        rope_frequencies=frequencies,
        rope_magnitude=magnitude,
    )


def dense_logits(weights: ModelWeights, config: ModelConfig, tokens: list[int]) -> Dense:
    """The logits after every token of one sequence, [tokens, vocabulary]."""
    x = weights.embedding.astype(np.float64)[tokens]
    for layer in weights.layers:
        x = x + _attention(layer, weights, config, _norm(x, layer.attn_norm, config))
        h = _norm(x, layer.mlp_norm, config)
        gate = h @ layer.gate.T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ layer.up.T)) @ layer.down.T
    head = weights.embedding if weights.head is None else weights.head
    return _norm(x, weights.final_norm, config) @ head.T


def _attention(layer: LayerWeights, weights: ModelWeights, config: ModelConfig, x: Dense) -> Dense:
    q = _project(x, layer.q, layer.q_bias, config.head_dim)
    k = _project(x, layer.k, layer.k_bias, config.head_dim)
    v = _project(x, layer.v, layer.v_bias, config.head_dim)
    if layer.q_norm is not None and layer.k_norm is not None:
        q, k = _norm(q, layer.q_norm, config), _norm(k, layer.k_norm, config)
    mixed = np.empty_like(q)
    for head in range(config.heads):
        kv_head = head * config.kv_heads // config.heads
        for row in range(len(x)):
            query = _turned(q[row, head], row, weights)
            keys = np.array([_turned(k[past, kv_head], past, weights) for past in range(row + 1)])
            scores = keys @ query / np.sqrt(config.head_dim)
            chances = np.exp(scores - scores.max())
            mixed[row, head] = chances @ v[: row + 1, kv_head] / chances.sum()
    return mixed.reshape(len(x), -1) @ layer.o.T


def _project(x: Dense, weight: NDArray[np.float32], bias: NDArray[np.float32] | None, head_dim: int) -> Dense:
    projected = x @ weight.T if bias is None else x @ weight.T + bias
    return projected.reshape(len(x), -1, head_dim)


def _turned(head: Dense, position: int, weights: ModelWeights) -> Dense:
    """Pairs as complex numbers, turned by the position."""
    half = len(head) // 2
    pairs = (head[:half] + 1j * head[half:]) * np.exp(1j * position * weights.rope_frequencies)
    return np.concatenate((pairs.real, pairs.imag)) * weights.rope_magnitude


def _norm(x: Dense, weight: NDArray[np.float32], config: ModelConfig) -> Dense:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + config.rms_eps) * weight
