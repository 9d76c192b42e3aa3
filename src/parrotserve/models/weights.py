"""A model's weights as float32 arrays under one set of names, whichever file format they come from."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from parrotserve.models.architecture import Family, ModelConfig
from parrotserve.models.files import ModelFiles, ModelFormat
from parrotserve.models.gguf_file import GgufFile
from parrotserve.models.metadata import malformed
from parrotserve.models.rope import rope_frequencies
from parrotserve.models.safetensors_file import SafetensorsFolder

Array = NDArray[np.float32]
Blocks = NDArray[np.uint8]
"""4-bit blocks, [out, in / 32, 20]: see `GgufFile.four_bit`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """One decoder layer. Matrices are [out, in]; the heads of q, k and v follow one another along `out`."""

    attn_norm: Array
    q: Array
    k: Array
    v: Array
    o: Array
    q_bias: Array | None
    k_bias: Array | None
    v_bias: Array | None
    q_norm: Array | None
    """[head_dim]; None without `config.qk_norm`."""
    k_norm: Array | None
    mlp_norm: Array
    gate: Array
    up: Array
    down: Array
    four_bit: Mapping[str, Blocks] = field(default_factory=lambda: MappingProxyType({}))
    """Blocks of the matrices that the file keeps in 4 bits, by attribute name; empty unless asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWeights:
    """All weights of a model. The rotation is half-split: pair i is elements i and i + head_dim / 2."""

    embedding: Array
    """[vocabulary, hidden]"""
    layers: Collection[LayerWeights]
    """In order."""
    final_norm: Array
    head: Array | None
    """[vocabulary, hidden]; None if it is the embedding."""
    rope_frequencies: NDArray[np.float64]
    """Radians per position, [head_dim / 2], with all scaling applied."""
    rope_magnitude: float
    """Factor on cosines and sines (yarn); otherwise 1."""


T = TypeVar("T", Array, Blocks | None)

Loader = Callable[[str], Array]
"""Reads a tensor by its Hugging Face name, without `model.`"""


def load_weights(files: ModelFiles, config: ModelConfig, *, four_bit: bool = False, keep: bool = True) -> ModelWeights:
    """Read and dequantise everything; with `four_bit`, also keep the 4-bit blocks of a GGUF file.

    Without `keep`, each layer is read when an iteration reaches it, so that the layers are never in memory together: in
    float32 they take twice what they take packed. Raises `MalformedModel` naming the file and tensor that is wrong;
    without `keep`, iterating over the layers does so for theirs.
    """
    factors: Array | None = None
    load_blocks: Callable[[str], Blocks | None] | None = None
    if files.format is ModelFormat.GGUF:
        file = GgufFile(files.path)
        load = _gguf_loader(file.tensor, config)
        load_blocks = _gguf_loader(file.four_bit, config) if four_bit else None
        if "rope_freqs.weight" in file.places:
            factors = _Expecting(files, file.tensor)("rope_freqs.weight", config.head_dim // 2)
    else:
        load = _folder_loader(SafetensorsFolder(files.path))
    frequencies, magnitude = _rotation(files, config, factors)
    expect = _Expecting(files, load)
    layers = _Layers(config.layers, lambda index: _with_blocks(_layer(expect, config, index), load_blocks, index))
    return ModelWeights(
        embedding=expect("embed_tokens.weight", config.vocabulary, config.hidden),
        layers=tuple(layers) if keep else layers,
        final_norm=expect("norm.weight", config.hidden),
        head=None if config.tied_embeddings else expect("lm_head.weight", config.vocabulary, config.hidden),
        rope_frequencies=frequencies,
        rope_magnitude=magnitude,
    )


def _rotation(files: ModelFiles, config: ModelConfig, factors: Array | None) -> tuple[NDArray[np.float64], float]:
    """Frequencies, divided by the file's own `factors` if it has any, and magnitude."""
    if factors is not None and not (factors > 0).all():
        raise malformed(files.path, "tensor rope_freqs.weight has values that are not positive")
    try:
        with np.errstate(all="raise", under="ignore"):
            frequencies, magnitude = rope_frequencies(config)
            frequencies = frequencies if factors is None else frequencies / factors
            frequencies.astype(np.float32)  # as backends compute with them
    except (ArithmeticError, ValueError) as error:
        raise malformed(files.path, f"its rotary frequencies cannot be computed ({error})") from error
    return frequencies, magnitude


def _layer(expect: "_Expecting", config: ModelConfig, index: int) -> LayerWeights:
    q_size, kv_size = config.heads * config.head_dim, config.kv_heads * config.head_dim
    hidden, inner = config.hidden, config.intermediate

    def read(name: str, *shape: int) -> Array:
        return expect(f"layers.{index}.{name}", *shape)

    def bias(name: str, size: int) -> Array | None:
        return read(f"self_attn.{name}_proj.bias", size) if config.qkv_bias else None

    def norm(name: str) -> Array | None:
        return read(f"self_attn.{name}_norm.weight", config.head_dim) if config.qk_norm else None

    return LayerWeights(
        attn_norm=read("input_layernorm.weight", hidden),
        q=read("self_attn.q_proj.weight", q_size, hidden),
        k=read("self_attn.k_proj.weight", kv_size, hidden),
        v=read("self_attn.v_proj.weight", kv_size, hidden),
        o=read("self_attn.o_proj.weight", hidden, q_size),
        q_bias=bias("q", q_size),
        k_bias=bias("k", kv_size),
        v_bias=bias("v", kv_size),
        q_norm=norm("q"),
        k_norm=norm("k"),
        mlp_norm=read("post_attention_layernorm.weight", hidden),
        gate=read("mlp.gate_proj.weight", inner, hidden),
        up=read("mlp.up_proj.weight", inner, hidden),
        down=read("mlp.down_proj.weight", hidden, inner),
    )


_MATRIX_NAMES = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


def _with_blocks(layer: LayerWeights, load: Callable[[str], Blocks | None] | None, index: int) -> LayerWeights:
    if load is None:
        return layer
    found = {name: load(f"layers.{index}.{stem}.weight") for name, stem in _MATRIX_NAMES.items()}
    return replace(layer, four_bit={name: blocks for name, blocks in found.items() if blocks is not None})


class _Layers(Collection[LayerWeights]):
    """Layers that are read one by one, anew in each iteration."""

    def __init__(self, count: int, read: Callable[[int], LayerWeights]) -> None:
        self._count = count
        self._read = read

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[LayerWeights]:
        return map(self._read, range(self._count))

    def __contains__(self, layer: object) -> bool:
        return any(layer is one for one in self)


class _Expecting:
    """Reads a tensor and checks that it has the shape that the configuration implies, and finite values.

    Not every backend would reveal damage: packing the weights can turn NaN into zero or a huge number.
    """

    __slots__ = ("_files", "_load")

    def __init__(self, files: ModelFiles, load: Loader) -> None:
        self._files = files
        self._load = load

    def __call__(self, name: str, *shape: int) -> Array:
        array = self._load(name)
        if array.shape != shape:
            found = f"tensor {name} has the shape {array.shape}, where the configuration implies {shape}"
            raise malformed(self._files.path, found)
        # With a NaN in the tensor both are NaN; and neither takes memory, as a mask of the whole tensor would.
        if not (np.isfinite(array.min()) and np.isfinite(array.max())):
            raise malformed(self._files.path, f"tensor {name} has values that are not finite numbers")
        return array


def _folder_loader(folder: SafetensorsFolder) -> Loader:
    return lambda name: folder.tensor(name if name.startswith("lm_head") else f"model.{name}")


_GGUF_NAMES = {
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
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
}


def _gguf_loader(read: Callable[[str], T], config: ModelConfig) -> Callable[[str], T]:
    """Wraps `read` to take Hugging Face names and to return rows in the order of Hugging Face files."""
    # The conversion to GGUF reorders rows only for the llama architecture, which is also that of Mistral's models.
    heads_of = {"attn_q": config.heads, "attn_k": config.kv_heads} if config.family is Family.LLAMA else {}

    def load(name: str) -> T:
        stem, _, kind = name.rpartition(".")
        prefix = ""
        if stem.startswith("layers."):
            _, index, stem = stem.split(".", 2)
            prefix = f"blk.{index}."
        short = _GGUF_NAMES[stem]
        array = read(f"{prefix}{short}.{kind}")
        heads = heads_of.get(short)
        return array if heads is None or array is None else cast("T", _half_split(array, heads))

    return load


def _half_split(array: NDArray[Any], heads: int) -> NDArray[Any]:
    """Undo llama.cpp's reordering of q and k rows from half-split to interleaved rotation pairs."""
    if array.shape[0] % (heads * 2):
        return array  # the shape check that follows reports what is wrong
    pairs = array.reshape(heads, array.shape[0] // heads // 2, 2, *array.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(array.shape))
