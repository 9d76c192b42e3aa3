"""The settings of a native engine."""

import os
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from parrotserve.bounds import THROUGHPUT_SHARE
from parrotserve.models.files import ModelFormat

DEFAULT_PREFILL_CHUNK = 512
DEFAULT_MAX_RUNNING = 64
DEFAULT_CREDITS = 1024
PAGE_TOKENS = 32
"""Tokens in a page of KV, on every backend."""


class BackendName(StrEnum):
    """What computes an engine's steps."""

    AUTO = "auto"
    """`kernels` where the compiled extension is installed, else `reference`."""
    KERNELS = "kernels"
    REFERENCE = "reference"


class WeightFormat(StrEnum):
    """The form in which the kernels keep weights; `reference` always has float32."""

    BF16 = "bf16"
    INT8 = "int8"
    """With a scale for every 64 inputs of an output; the rows that weights are multiplied with are quantised alike."""
    INT4 = "int4"
    """The 4-bit blocks of a GGUF file as they are; matrices that it has in another form, in int8. Rows as with int8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSettings:
    """The settings of the engine loop. Raises ValueError for numbers that cannot work."""

    context_length: int
    """The most tokens that one sequence may have, prompt and outputs together."""
    cut_by_cache: bool = False
    """Whether the model could take more tokens, but the cache has no room for them."""
    prefill_chunk: int = DEFAULT_PREFILL_CHUNK
    """Most tokens in a step, decode rows included (vLLM's `max_num_batched_tokens`). At least a page is prefilled in
    each step, and up to a quarter more than this where that finishes a prompt."""
    max_running: int = DEFAULT_MAX_RUNNING
    """Most sequences in a step (vLLM's `max_num_seqs`)."""
    credits: int = DEFAULT_CREDITS
    """Most sequences that are open at once."""
    group: bool = True
    """Whether attention reads KV that several sequences share only once for all of them."""
    share: bool = True
    """Whether sequences share the KV of equal prefixes."""
    adapt: bool = True
    """Whether steps are kept as short as the TPOT bound asks while latency-sensitive sequences decode."""
    tpot: float | None = None
    """The TPOT bound in seconds; None: a multiple of a token's time when one sequence decodes alone (see `pace`)."""
    throughput_share: float = THROUGHPUT_SHARE
    """Least fraction of decode tokens that task groups get, and the same for throughput work, where there is any."""
    speculate: bool = True
    """Whether drafts are tried: tokens that repeat earlier text, run along before their turn."""
    check: bool = False
    """Check the cache's invariants after every step; slow, for tests."""
    align_tokens: int = 1
    """Attention's shared spans begin and end at multiples of this."""
    vocabulary: int | None = None
    """Number of tokens in the weights' vocabulary, with ids from 0; None: ids are not checked."""

    def __post_init__(self) -> None:
        for name in ("context_length", "prefill_chunk", "max_running", "credits"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: it must be at least 1.")
        if self.tpot is not None and self.tpot <= 0:
            raise ValueError(f"tpot={self.tpot}: it must be above 0.")


class NativeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a native engine; the defaults suit a laptop."""

    backend: BackendName = BackendName.AUTO
    weights: WeightFormat = WeightFormat.BF16

    kv_bytes: int | None = None
    """Memory for KV. None: an eighth of what this process may use, at most 1 GiB. It is taken only as it is used."""
    prefill_chunk: int = DEFAULT_PREFILL_CHUNK
    max_running: int = DEFAULT_MAX_RUNNING
    credits: int = DEFAULT_CREDITS
    group: bool = True
    """Whether attention reads KV that several sequences share only once for all of them."""
    share: bool = True
    """Whether sequences share the KV of equal prefixes."""
    adapt: bool = True
    """Whether steps are kept as short as the TPOT bound asks while latency-sensitive sequences decode."""
    tpot: float | None = None
    """The TPOT bound in seconds; None: a multiple of a token's time when one sequence decodes alone."""
    speculate: bool = True
    """Whether drafts are tried: tokens that repeat earlier text, run along before their turn."""
    check: bool = False
    """Check the cache's invariants after every step; slow, for tests."""
    threads: int | None = None
    """Threads that compute a step. None: one per core."""
    engines: int = 1
    """Number of engines of this model on this machine, each with its own weights and KV."""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """The first message to the process of a native engine."""

    model: str
    """The name under which requests ask for it."""
    path: str
    format: ModelFormat
    settings: NativeSettings


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
