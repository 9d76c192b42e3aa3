"""Models of a few thousand weights, written in every format that Parrot reads."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray
from safetensors.numpy import save_file

from parrotserve.models.files import ModelFiles, ModelFormat

LAYERS, HIDDEN, HEADS, KV_HEADS, INNER = 2, 32, 4, 2, 64
HEAD_DIM = HIDDEN // HEADS
RMS_EPS = 2.0**-17  # the same in 32 and 64 bits
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ hello"]

Array = NDArray[np.float32]


def byte_alphabet() -> list[str]:
    """GPT-2's characters for the bytes 0 to 255."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    shifted = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(shifted)) for byte in range(256)]


def vocabulary() -> list[str]:
    return [*SPECIALS, *byte_alphabet(), *(merge.replace(" ", "") for merge in MERGES)]


def weights(
    *,
    biased: bool = False,
    normed: bool = False,
    tied: bool = True,
    heads: int = HEADS,
    kv_heads: int = KV_HEADS,
    head_dim: int = HEAD_DIM,
    hidden: int = HIDDEN,
    calm: bool = False,
) -> dict[str, Array]:
    """Random weights under their Hugging Face names; `calm`: so small that rounding matters as in real models."""
    rng = np.random.default_rng(7)
    q, kv = heads * head_dim, kv_heads * head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (len(vocabulary()), hidden),
        "model.norm.weight": (hidden,),
    }
    if not tied:
        shapes["lm_head.weight"] = (len(vocabulary()), hidden)
    for layer in range(LAYERS):
        shapes |= {
            f"model.layers.{layer}.{name}": shape
            for name, shape in {
                "input_layernorm.weight": (hidden,),
                "self_attn.q_proj.weight": (q, hidden),
                "self_attn.k_proj.weight": (kv, hidden),
                "self_attn.v_proj.weight": (kv, hidden),
                "self_attn.o_proj.weight": (hidden, q),
                "post_attention_layernorm.weight": (hidden,),
                "mlp.gate_proj.weight": (INNER, hidden),
                "mlp.up_proj.weight": (INNER, hidden),
                "mlp.down_proj.weight": (hidden, INNER),
                **({f"self_attn.{n}_proj.bias": (q if n == "q" else kv,) for n in "qkv"} if biased else {}),
                **({f"self_attn.{n}_norm.weight": (head_dim,) for n in "qk"} if normed else {}),
            }.items()
        }
    drawn = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    if not calm:
        return drawn
    return {name: 1 + array / 4 if "norm" in name else array / array.shape[-1] ** 0.5 for name, array in drawn.items()}


_GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def permuted(array: Array, heads: int) -> Array:
    """How llama.cpp's conversion orders the rows of q and k (convert_hf_to_gguf.py, LlamaModel.permute)."""
    return array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def write_gguf(
    path: Path,
    *,
    architecture: str = "llama",
    tensors: Mapping[str, Array] | None = None,
    kind: Kind = Kind.F32,
    pre: str = "smollm",
    template: str | None = None,
    extra: Mapping[str, int | float | str | bool] | None = None,
    rope_factors: Array | None = None,
) -> ModelFiles:
    """A GGUF file as llama.cpp's conversion would write it; `extra` key-values replace its own."""
    writer = gguf.GGUFWriter(path, architecture)
    values: dict[str, int | float | str | bool] = {
        f"{architecture}.block_count": LAYERS,
        f"{architecture}.context_length": 128,
        f"{architecture}.embedding_length": HIDDEN,
        f"{architecture}.feed_forward_length": INNER,
        f"{architecture}.attention.head_count": HEADS,
        f"{architecture}.attention.head_count_kv": KV_HEADS,
        f"{architecture}.attention.layer_norm_rms_epsilon": RMS_EPS,
        f"{architecture}.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        **({"tokenizer.chat_template": template} if template is not None else {}),
        **(extra or {}),
    }
    for key, value in values.items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        add[type(value)](key, value)  # type: ignore[operator]
    writer.add_array("tokenizer.ggml.tokens", vocabulary())
    writer.add_array("tokenizer.ggml.token_type", [3] * len(SPECIALS) + [1] * (len(vocabulary()) - len(SPECIALS)))
    writer.add_array("tokenizer.ggml.merges", MERGES)
    for name, array in (weights() if tensors is None else tensors).items():
        _add_tensor(writer, name, array, kind, permute=architecture == "llama")
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", rope_factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return ModelFiles("tiny", path, ModelFormat.GGUF)


def _add_tensor(writer: gguf.GGUFWriter, name: str, array: Array, kind: Kind, *, permute: bool) -> None:
    stem, _, suffix = name.rpartition(".")
    prefix = ""
    if stem.startswith("model.layers."):
        _, _, index, stem = stem.split(".", 3)
        prefix = f"blk.{index}."
    if permute and stem.endswith(("q_proj", "k_proj")):
        array = permuted(array, HEADS if stem.endswith("q_proj") else KV_HEADS)
    chosen = Kind.F32 if array.ndim == 1 else kind  # as llama.cpp does: vectors stay in float32
    writer.add_tensor(f"{prefix}{_GGUF_NAMES[stem]}.{suffix}", gguf.quants.quantize(array, chosen), raw_dtype=chosen)


def write_folder(
    folder: Path,
    *,
    tensors: Mapping[str, Array] | None = None,
    config: Mapping[str, object] | None = None,
    tokenizer_config: Mapping[str, object] | None = None,
) -> ModelFiles:
    """A Hugging Face folder; `config` entries replace its own."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(hf_config() | dict(config or {})))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json()))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|im_end|>"} | dict(tokenizer_config or {}))
    )
    save_file(dict(weights() if tensors is None else tensors), folder / "model.safetensors")
    return ModelFiles("tiny", folder, ModelFormat.SAFETENSORS)


def write_case(folder: Path, case: Mapping[str, Any]) -> ModelFiles:
    """The folder of one model of tests/data/golden/families.json."""
    made = {name: bool(case[name]) for name in ("biased", "normed", "tied", "calm") if name in case}
    shape = {name: int(size) for name, size in case.get("shape", {}).items()}
    config = {"tie_word_embeddings": made.get("tied", True)} | {_HF_SIZES[name]: size for name, size in shape.items()}
    return write_folder(folder, tensors=weights(**made, **shape), config=config | case.get("config", {}))


_HF_SIZES = {
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
}


def hf_config() -> dict[str, object]:
    return {
        "model_type": "llama",
        "num_hidden_layers": LAYERS,
        "hidden_size": HIDDEN,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "intermediate_size": INNER,
        "vocab_size": len(vocabulary()),
        "max_position_embeddings": 128,
        "rms_norm_eps": RMS_EPS,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def tokenizer_json() -> dict[str, object]:
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": index, "content": text, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False}
            for index, text in enumerate(SPECIALS)
        ],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        ]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {text: index for index, text in enumerate(vocabulary())}, "merges": MERGES},
    }  # fmt: skip
