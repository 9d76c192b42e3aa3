"""A model of one random layer with another model's vocabulary, which is enough for llama.cpp to tokenise texts."""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter

from parrotserve.models.gguf_file import GgufFile

_WIDTH = 32
_LAYER = {
    "attn_norm": (_WIDTH,),
    "attn_q": (_WIDTH, _WIDTH),
    "attn_k": (_WIDTH, _WIDTH),
    "attn_v": (_WIDTH, _WIDTH),
    "attn_output": (_WIDTH, _WIDTH),
    "ffn_norm": (_WIDTH,),
    "ffn_gate": (_WIDTH, _WIDTH),
    "ffn_up": (_WIDTH, _WIDTH),
    "ffn_down": (_WIDTH, _WIDTH),
}


def write_vocabulary(path: Path, *, like: Path, pre: str) -> None:
    """Write the model, with the tokens of `like` and the pre-tokenizer that GGUF files call `pre`."""
    source = GgufFile(like).metadata
    tokens = source.texts("tokenizer.ggml.tokens")
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(256)
    writer.add_embedding_length(_WIDTH)
    writer.add_feed_forward_length(_WIDTH)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(source.integers("tokenizer.ggml.token_type"))
    writer.add_token_merges(source.texts("tokenizer.ggml.merges"))
    writer.add_bos_token_id(source.integer("tokenizer.ggml.bos_token_id"))
    writer.add_eos_token_id(source.integer("tokenizer.ggml.eos_token_id"))
    random = np.random.default_rng(0)
    shapes = {"token_embd": (len(tokens), _WIDTH), "output_norm": (_WIDTH,)}
    shapes |= {f"blk.0.{name}": shape for name, shape in _LAYER.items()}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", random.standard_normal(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
