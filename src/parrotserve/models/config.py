"""Reading `ModelConfig` from a GGUF file's key-values or from a Hugging Face `config.json`.

Whatever the native engine cannot compute exactly is refused, with the name of the setting, rather than run wrongly. A
sliding window is not refused: within the window it equals full attention, so the context is clipped to it.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from parrotserve.models.architecture import Family, ModelConfig, RopeKind, RopeScaling
from parrotserve.models.files import ModelFiles, ModelFormat
from parrotserve.models.gguf_file import GgufFile
from parrotserve.models.metadata import Metadata, read_json
from parrotserve.models.template_source import tokenizer_config

__all__ = ["Family", "ModelConfig", "RopeKind", "RopeScaling", "load_config"]

T = TypeVar("T", ModelConfig, RopeScaling)

_QWEN3_HEAD_DIM = 128
"""Head size of a Qwen3 model whose configuration gives none, whatever its other sizes."""
_PLAIN_ROPE = ("default", "none", "")


def load_config(files: ModelFiles) -> ModelConfig:
    """The model's configuration. Raises `MalformedModel` for a broken file or an unsupported model."""
    if files.format is ModelFormat.GGUF:
        return gguf_config(GgufFile(files.path))
    return folder_config(files)


def gguf_config(file: GgufFile) -> ModelConfig:
    """The configuration in a GGUF file."""
    data = file.metadata
    _refuse_split(data)
    architecture = data.text("general.architecture")
    family = _family(architecture, data)

    def key(name: str) -> str:
        return f"{architecture}.{name}"

    heads = data.integer(key("attention.head_count"))
    hidden = data.integer(key("embedding_length"))
    head_dim = data.integer(key("attention.key_length"), hidden // max(heads, 1))
    _require(data, key("attention.value_length"), data.integer(key("attention.value_length"), head_dim), head_dim)
    _require(data, key("rope.dimension_count"), data.integer(key("rope.dimension_count"), head_dim), head_dim)
    _require(data, key("expert_count"), data.integer(key("expert_count"), 0), 0)
    context = data.integer(key("context_length"))
    window = data.integer(key("attention.sliding_window"), 0)
    ends = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
    embedding = file.places.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise data.malformed("tensor token_embd.weight is missing or no matrix")
    vocabulary = embedding.shape[0]
    bos = data.token("tokenizer.ggml.bos_token_id", vocabulary)
    return _checked(
        data,
        ModelConfig,
        family=family,
        layers=data.integer(key("block_count")),
        hidden=hidden,
        heads=heads,
        kv_heads=data.integer(key("attention.head_count_kv"), heads),
        head_dim=head_dim,
        intermediate=data.integer(key("feed_forward_length")),
        vocabulary=vocabulary,
        context_length=min(context, window) if window else context,
        rope_theta=data.number(key("rope.freq_base"), 10000.0),
        rope_scaling=_gguf_scaling(data, architecture),
        rms_eps=data.number(key("attention.layer_norm_rms_epsilon")),
        tied_embeddings="output.weight" not in file.places,
        qkv_bias="blk.0.attn_q.bias" in file.places,
        qk_norm="blk.0.attn_q_norm.weight" in file.places,
        eos=frozenset(end for name in ends for end in data.tokens(name, vocabulary)),
        bos=bos,
        add_bos=bos is not None and data.flag("tokenizer.ggml.add_bos_token", False),
    )


def folder_config(files: ModelFiles) -> ModelConfig:
    """The configuration in a Hugging Face folder."""
    data = read_json(files.path / "config.json")
    family = _family(data.text("model_type"), data)
    heads = data.integer("num_attention_heads")
    hidden = data.integer("hidden_size")
    _require(data, "hidden_act", data.text("hidden_act", "silu"), "silu")
    _require(data, "mlp_bias", data.flag("mlp_bias", False), False)
    _require(data, "partial_rotary_factor", data.number("partial_rotary_factor", 1.0), 1.0)
    biased = family is Family.QWEN2
    if family is not Family.QWEN2:  # for other families this flag also means a bias on the output projection
        _require(data, "attention_bias", data.flag("attention_bias", False), False)
    quantised = data.section("quantization_config")
    if quantised is not None:  # otherwise the error would be about a missing tensor
        how = quantised.text("quant_method", "a way of its own")
        raise data.malformed(f"its weights are quantised by {how}: use the model as it was before, or as a GGUF file")
    theta, scaling = _folder_rope(data)
    bos = data.token("bos_token_id", data.integer("vocab_size"))
    return _checked(
        data,
        ModelConfig,
        family=family,
        layers=data.integer("num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=data.integer("num_key_value_heads", heads),
        head_dim=data.integer("head_dim", _QWEN3_HEAD_DIM if family is Family.QWEN3 else hidden // max(heads, 1)),
        intermediate=data.integer("intermediate_size"),
        vocabulary=data.integer("vocab_size"),
        context_length=_folder_context(data),
        rope_theta=theta,
        rope_scaling=scaling,
        rms_eps=data.number("rms_norm_eps"),
        tied_embeddings=data.flag("tie_word_embeddings", False),
        qkv_bias=biased,
        qk_norm=family is Family.QWEN3,
        eos=folder_eos(files, data),
        bos=bos,
        add_bos=bos is not None and tokenizer_config(files.path).flag("add_bos_token", False),
    )


def folder_eos(files: ModelFiles, config: Metadata) -> frozenset[int]:
    """End-of-generation ids that `config.json` and `generation_config.json` name.

    Raises `MalformedModel` for one that is not a token of the model.
    """
    vocabulary = config.integer("vocab_size")
    sources = [config]
    if (files.path / "generation_config.json").is_file():
        sources.append(read_json(files.path / "generation_config.json"))
    return frozenset(end for source in sources for end in source.tokens("eos_token_id", vocabulary))


def _folder_context(data: Metadata) -> int:
    context = data.integer("max_position_embeddings")
    window = data.integer("sliding_window", 0)
    return min(context, window) if window and data.flag("use_sliding_window", True) else context


def _folder_rope(data: Metadata) -> tuple[float, RopeScaling | None]:
    """Base and scaling, from the one section of newer configurations or the two keys of older ones."""
    section = data.section("rope_parameters") or data.section("rope_scaling")
    theta = data.number("rope_theta", 10000.0)
    if section is None:
        return theta, None
    theta = section.number("rope_theta", theta)
    kind = section.text("rope_type", section.text("type", "default"))
    if kind in _PLAIN_ROPE:
        return theta, None
    return theta, _checked(
        data,
        RopeScaling,
        kind=_rope_kind(kind, data),
        factor=section.number("factor"),
        original_context=section.integer("original_max_position_embeddings", data.integer("max_position_embeddings")),
        low_freq_factor=section.number("low_freq_factor", 1.0),
        high_freq_factor=section.number("high_freq_factor", 4.0),
        beta_fast=section.number("beta_fast", 32.0),
        beta_slow=section.number("beta_slow", 1.0),
        attention_factor=(section.number("attention_factor") if "attention_factor" in section else None),
    )


def _gguf_scaling(data: Metadata, architecture: str) -> RopeScaling | None:
    """Scaling from the key-values. Llama 3's is not there: GGUF keeps its factors as the tensor `rope_freqs.weight`."""
    prefix = f"{architecture}.rope.scaling"
    kind = data.text(f"{prefix}.type", "none")
    if kind in _PLAIN_ROPE:
        return None
    factor = data.number(f"{prefix}.attn_factor") if f"{prefix}.attn_factor" in data else None
    return _checked(
        data,
        RopeScaling,
        kind=_rope_kind(kind, data),
        factor=data.number(f"{prefix}.factor"),
        original_context=data.integer(
            f"{prefix}.original_context_length", data.integer(f"{architecture}.context_length")
        ),
        beta_fast=data.number(f"{prefix}.yarn_beta_fast", 32.0),
        beta_slow=data.number(f"{prefix}.yarn_beta_slow", 1.0),
        attention_factor=factor,
    )


def _family(name: str, data: Metadata) -> Family:
    try:
        return Family(name)
    except ValueError as error:
        known = ", ".join(Family)
        raise data.malformed(f"its architecture is {name!r}; the native engine runs {known}") from error


def _rope_kind(name: str, data: Metadata) -> RopeKind:
    try:
        return RopeKind(name)
    except ValueError as error:
        known = ", ".join(RopeKind)
        raise data.malformed(f"rope scaling {name!r} is not supported; supported are {known}") from error


def _refuse_split(data: Metadata) -> None:
    parts = data.integer("split.count", 1)
    if parts > 1:
        raise data.malformed(f"it is one of {parts} parts; join them with llama-gguf-split --merge")


def _require(data: Metadata, key: str, value: object, supported: object) -> None:
    if value != supported:
        raise data.malformed(f"{key} is {value}, but only {supported} is supported here")


def _checked(data: Metadata, make: Callable[..., T], /, **fields: Any) -> T:
    try:
        return make(**fields)
    except ValueError as error:
        raise data.malformed(str(error)) from error
