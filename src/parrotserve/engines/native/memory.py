"""How much memory there is, and how much of it an engine takes for KV."""

import os

from parrotserve.control_groups import memory_limit
from parrotserve.engines.native.settings import WeightFormat
from parrotserve.models.architecture import ModelConfig
from parrotserve.settings import show_size

_MIB = 1 << 20
_MOST_BY_DEFAULT = 1024 * _MIB
_BITS = {WeightFormat.BF16: 16, WeightFormat.INT8: 8, WeightFormat.INT4: 5}
"""Bits per weight; for int4, with its share of the block's scale and least weight."""
_LEAST_BITS_OF_WORDS = 8
"""Least bits per weight of embedding and head, which are never kept in 4-bit blocks."""


def default_kv_bytes() -> int:
    """An eighth of the memory that this process may use, at most 1 GiB."""
    return min(_MOST_BY_DEFAULT, usable_memory() // 8)


def usable_memory() -> int:
    """The machine's memory in bytes, or the part of it that control groups leave to this process."""
    memory, limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), memory_limit()
    return memory if limit is None else min(memory, limit)


def weights_fault(
    model: str, config: ModelConfig, form: WeightFormat | None, kv_bytes: int, engines: int
) -> str | None:
    """Why this machine has too little memory for `engines` engines, each with a model's weights in `form` (None:
    float32) and a KV cache of `kv_bytes`, and what to do about it. None where it has enough, as far as can be told in
    advance: the check is of the least that they take.
    """
    weights, kv, usable = weight_bytes(config, form), max(kv_bytes, _loading_bytes(config)), usable_memory()
    if engines * (weights + kv) <= usable:
        return None
    which = f", for each of {engines} engines" if engines > 1 else ""
    advice = [
        "set weights to int8, which take half of that" if form is WeightFormat.BF16 else "",
        "lower kv_memory" if engines * (weights + _loading_bytes(config)) <= usable else "",
        "have fewer engines" if weights + kv <= usable else "",
        "serve a smaller model",
    ]
    return (
        f"{model} takes {weights / 1e9:.1f} GB for its weights in {form or 'float32'} and {kv_bytes / 1e9:.1f} GB for "
        f"its KV cache{which}, of the {usable / 1e9:.1f} GB of memory here: {', or '.join(filter(None, advice))}."
    )


def weight_bytes(config: ModelConfig, form: WeightFormat | None) -> int:
    """The least bytes that a model's weights take in `form` (None: float32)."""
    columns = 2 * (config.heads + config.kv_heads) * config.head_dim + 3 * config.intermediate
    matrices = config.layers * config.hidden * columns
    bits = 32 if form is None else _BITS[form]
    return (bits * matrices + max(bits, _LEAST_BITS_OF_WORDS) * _words(config)) // 8


def _loading_bytes(config: ModelConfig) -> int:
    """Bytes of embedding and head in float32, which are in memory while they are packed."""
    return 4 * _words(config)


def _words(config: ModelConfig) -> int:
    return config.vocabulary * config.hidden * (1 if config.tied_embeddings else 2)


def kv_fault(kv_memory: int | None, engines: int = 1) -> str | None:
    """Why this machine has too little memory for `engines` engines with a KV cache of `kv_memory` bytes (None: the
    default) each; None where it has enough."""
    usable, each = usable_memory(), default_kv_bytes() if kv_memory is None else kv_memory
    if each * engines <= usable:
        return None
    shown = f"{each / 1e9:.1f} GB, the default," if kv_memory is None else show_size(kv_memory)
    which = f"{shown} for each of {engines} engines" if engines > 1 else shown
    return f"kv_memory = {which} does not fit the {usable / 1e9:.1f} GB of memory here"
