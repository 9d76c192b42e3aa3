"""The default model in the formats that peers want: dequantised from its GGUF, so that all run the same weights.

    python benchmarks/peers/convert.py

Writes a Hugging Face folder for vLLM, and GGUF files with BF16, Q8_0 and Q4_0 weights for llama.cpp. Its Q4_1 kernels
are several times slower than those; as in its own tool's Q4_0, the embedding, which is the head too, keeps 8 bits.
"""

import json
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize, quantize
from places import gguf_of, hugging_face_folder
from safetensors.numpy import save_file

from parrotserve.models.config import load_config
from parrotserve.models.files import ModelFiles
from parrotserve.models.registry import resolve
from parrotserve.models.tokenizer import load_tokenizer
from parrotserve.models.weights import ModelWeights, load_weights

KINDS = ("BF16", "Q8_0", "Q4_0")


def write_gguf(source: Path, kind: str, target: Path) -> None:
    """The same model with its matrices as `kind`; vectors stay float32."""
    reader = GGUFReader(source)
    writer = GGUFWriter(target, str(reader.fields["general.architecture"].contents()))
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        nested = field.types[1] if field.types[0] is GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=nested)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if values.ndim == 1:
            writer.add_tensor(tensor.name, values)
            continue
        eight = tensor.name.startswith("token_embd") and kind == "Q4_0"
        quantized = GGMLQuantizationType["Q8_0" if eight else kind]
        writer.add_tensor(tensor.name, quantize(values, quantized), raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_folder(files: ModelFiles, target: Path) -> None:
    """The same model as transformers keep it, in float32."""
    config, tokenizer = load_config(files), load_tokenizer(files)
    target.mkdir(parents=True, exist_ok=True)
    save_file(_named(load_weights(files, config)), target / "model.safetensors", metadata={"format": "pt"})
    eos = sorted(tokenizer.eos)[0]
    settings = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocabulary,
        "hidden_size": config.hidden,
        "intermediate_size": config.intermediate,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.rms_eps,
        "rope_theta": config.rope_theta,
        "hidden_act": "silu",
        "tie_word_embeddings": config.tied_embeddings,
        "bos_token_id": tokenizer.bos,
        "eos_token_id": eos,
        "torch_dtype": "bfloat16",
    }
    (target / "config.json").write_text(json.dumps(settings, indent=2))
    (target / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    end = tokenizer.decode([eos], special=True)
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end, "chat_template": tokenizer.chat_template}
    (target / "tokenizer_config.json").write_text(json.dumps(about, indent=2))


def _named(weights: ModelWeights) -> dict[str, np.ndarray]:
    named = {"model.embed_tokens.weight": weights.embedding, "model.norm.weight": weights.final_norm}
    if weights.head is not None:
        named["lm_head.weight"] = weights.head
    for index, layer in enumerate(weights.layers):
        parts = {
            "self_attn.q_proj": layer.q,
            "self_attn.k_proj": layer.k,
            "self_attn.v_proj": layer.v,
            "self_attn.o_proj": layer.o,
            "mlp.gate_proj": layer.gate,
            "mlp.up_proj": layer.up,
            "mlp.down_proj": layer.down,
            "input_layernorm": layer.attn_norm,
            "post_attention_layernorm": layer.mlp_norm,
        }
        named |= {f"model.layers.{index}.{name}.weight": array for name, array in parts.items()}
    return {name: np.ascontiguousarray(array) for name, array in named.items()}


def main() -> None:
    """Write what is not there yet."""
    files = resolve("default")
    for kind in KINDS:
        target = gguf_of(kind)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_suffix(".part")
            write_gguf(files.path, kind, part)
            part.rename(target)
        print(target)
    folder = hugging_face_folder()
    if not (folder / "tokenizer_config.json").exists():
        write_folder(files, folder)
    print(folder)


if __name__ == "__main__":
    main()
