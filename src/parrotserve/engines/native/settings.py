"""What can be set about a native engine."""

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
    """What the kernels keep weights in; `reference` has float32, always."""

    BF16 = "bf16"
    INT8 = "int8"
    """With a scale for every 64 inputs of an output; inputs are rounded alike while they are multiplied."""
    INT4 = "int4"
    """The 4-bit blocks of a GGUF file as they are; what it keeps otherwise, in int8. Inputs as with int8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSettings:
    """What the loop needs to know. Raises ValueError for numbers that cannot work."""

    context_length: int
    """The most tokens that one sequence may have, prompt and outputs together."""
    cut_by_cache: bool = False
    """Whether the model could take more, for which the cache has no room."""
    prefill_chunk: int = DEFAULT_PREFILL_CHUNK
    """Tokens in a step, decode rows included (vLLM's `max_num_batched_tokens`). At least a page is prefilled in each
    step, and up to a quarter more where a prompt ends with it."""
    max_running: int = DEFAULT_MAX_RUNNING
    """Sequences in a step at most (vLLM's `max_num_seqs`)."""
    credits: int = DEFAULT_CREDITS
    """Sequences open at once at most."""
    group: bool = True
    """Whether attention reads KV that sequences share once for all of them."""
    share: bool = True
    """Whether sequences share the KV of equal prefixes."""
    adapt: bool = True
    """Whether steps are kept as short as the TPOT bound asks while latency-sensitive sequences decode."""
    tpot: float | None = None
    """The TPOT bound in seconds; None: some times what decoding one sequence alone takes (see `pace`)."""
    throughput_share: float = THROUGHPUT_SHARE
    """The least part of decode tokens that goes to other than latency-sensitive sequences, where there are any."""
    speculate: bool = True
    """Whether tokens that repeat what came before are tried ahead of their turn."""
    check: bool = False
    """Check the cache's invariants after every step; slow, for tests."""
    align_tokens: int = 1
    """Attention's shared spans begin and end at multiples of this."""
    vocabulary: int | None = None
    """How many tokens the weights have, numbered from 0; None: whatever comes."""

    def __post_init__(self) -> None:
        for name in ("context_length", "prefill_chunk", "max_running", "credits"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: it must be at least 1.")
        if self.tpot is not None and self.tpot <= 0:
            raise ValueError(f"tpot={self.tpot}: it must be above 0.")


class NativeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set about a native engine; the defaults suit a laptop."""

    backend: BackendName = BackendName.AUTO
    weights: WeightFormat = WeightFormat.BF16

    kv_bytes: int | None = None
    """Memory for KV. None: an eighth of this machine's, at most 1 GiB; no more is taken than is used."""
    prefill_chunk: int = DEFAULT_PREFILL_CHUNK
    max_running: int = DEFAULT_MAX_RUNNING
    credits: int = DEFAULT_CREDITS
    group: bool = True
    """Whether attention reads KV that sequences share once for all of them."""
    share: bool = True
    """Whether sequences share the KV of equal prefixes."""
    adapt: bool = True
    """Whether steps are kept as short as the TPOT bound asks while latency-sensitive sequences decode."""
    tpot: float | None = None
    """The TPOT bound in seconds; None: some times what decoding one sequence alone takes."""
    speculate: bool = True
    """Whether tokens that repeat what came before are tried ahead of their turn."""
    check: bool = False
    """Check the cache's invariants after every step; slow, for tests."""
    threads: int | None = None
    """Threads that compute a step. None: one a core."""
    engines: int = 1
    """How many of this model there are on this machine, each with its own weights and KV."""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What a native engine's process is told first."""

    model: str
    """The name under which requests ask for it."""
    path: str
    format: ModelFormat
    settings: NativeSettings


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
