"""A decoder with random weights, small enough to run a thousand steps a second, as a folder on disk.

Its tokens are bytes. It says lower-case letters, spaces and, now and then, that its turn has ended.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from parrotserve.engines.fake_tokenizer import END, START, FakeTokenizer
from parrotserve.models.files import ModelFiles, ModelFormat

CONTEXT = 512
_HIDDEN, _INNER, _LAYERS, _HEADS, _KV_HEADS, _HEAD = 48, 96, 2, 4, 2, 12
_VOCABULARY = FakeTokenizer().vocabulary_size
_SAID = (*range(ord("a"), ord("z") + 1), ord(" "), END)


def write_tiny_model(folder: Path, *, inner: int = _INNER) -> ModelFiles:
    """Writes it into an empty folder; `inner` is its intermediate size."""
    config = {
        "model_type": "llama",
        "hidden_size": _HIDDEN,
        "intermediate_size": inner,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _KV_HEADS,
        "head_dim": _HEAD,
        "vocab_size": _VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": START,
        "eos_token_id": END,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>", "bos_token": "<|start|>"}))
    (folder / "tokenizer.json").write_text(FakeTokenizer().to_json())
    save_file(_weights(inner), folder / "model.safetensors")
    return ModelFiles("tiny", folder, ModelFormat.SAFETENSORS)


def _weights(inner: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(20240607)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (random.standard_normal((rows, columns)) * 1.5 / columns**0.5).astype(np.float32)

    ones = np.ones(_HIDDEN, dtype=np.float32)
    head = matrix(_VOCABULARY, _HIDDEN) * 2
    head[[token for token in range(_VOCABULARY) if token not in _SAID]] *= 0.001
    weights = {
        "model.embed_tokens.weight": random.standard_normal((_VOCABULARY, _HIDDEN)).astype(np.float32),
        "model.norm.weight": ones,
        "lm_head.weight": head,
    }
    for layer in range(_LAYERS):
        shapes = {
            "self_attn.q_proj": (_HEADS * _HEAD, _HIDDEN),
            "self_attn.k_proj": (_KV_HEADS * _HEAD, _HIDDEN),
            "self_attn.v_proj": (_KV_HEADS * _HEAD, _HIDDEN),
            "self_attn.o_proj": (_HIDDEN, _HEADS * _HEAD),
            "mlp.gate_proj": (inner, _HIDDEN),
            "mlp.up_proj": (inner, _HIDDEN),
            "mlp.down_proj": (_HIDDEN, inner),
        }
        weights |= {f"model.layers.{layer}.{name}.weight": matrix(*shape) for name, shape in shapes.items()}
        weights[f"model.layers.{layer}.input_layernorm.weight"] = ones
        weights[f"model.layers.{layer}.post_attention_layernorm.weight"] = ones
    return weights
