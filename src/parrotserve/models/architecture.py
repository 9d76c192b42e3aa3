"""A decoder's shape and constants, whichever file format they come from."""

from dataclasses import dataclass
from enum import StrEnum


class Family(StrEnum):
    """The decoder's architecture. All are pre-norm transformers with RMS norm, rotary positions, grouped-query
    attention and SwiGLU; they differ in the flags of `ModelConfig`."""

    LLAMA = "llama"
    MISTRAL = "mistral"
    QWEN2 = "qwen2"
    QWEN3 = "qwen3"


class RopeKind(StrEnum):
    """How rotary positions are stretched beyond the context that a model was first trained on."""

    LINEAR = "linear"
    LLAMA3 = "llama3"
    YARN = "yarn"


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """Parameters of one `RopeKind`; those of other kinds keep their defaults and are ignored."""

    kind: RopeKind
    factor: float
    original_context: int = 0
    """The context length before stretching (llama3, yarn)."""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    """Yarn's factor on queries and keys; None for the paper's 0.1 ln(factor) + 1."""

    def __post_init__(self) -> None:
        used = ["factor"]
        if self.kind is not RopeKind.LINEAR:
            used.append("original_context")
        if self.kind is RopeKind.YARN:
            used += ["beta_fast", "beta_slow"]
            if self.attention_factor is not None:
                used.append("attention_factor")
        for name in used:
            if getattr(self, name) <= 0:
                raise ValueError(f"{self.kind} rope scaling: {name} is {getattr(self, name)}, but must be positive")
        if self.kind is RopeKind.LLAMA3 and self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"{self.kind} rope scaling: high_freq_factor is {self.high_freq_factor}, but must be above "
                f"low_freq_factor, which is {self.low_freq_factor}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Everything about a model except its weights and vocabulary. Sizes are in elements, lengths in tokens."""

    family: Family
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    """Rows of the embedding; may exceed the tokenizer's vocabulary."""
    context_length: int
    rope_theta: float
    rope_scaling: RopeScaling | None
    rms_eps: float
    tied_embeddings: bool
    """Whether the head is the embedding."""
    qkv_bias: bool
    qk_norm: bool
    """Whether queries and keys are RMS-normed per head before rotation (Qwen3)."""
    eos: frozenset[int]
    """Those tokens that end a generation which the configuration names; the tokenizer's set is complete."""
    bos: int | None
    add_bos: bool
    """Whether prompts start with `bos` according to the configuration; `Tokenizer.prompt_start` decides."""

    def __post_init__(self) -> None:
        sizes = ("layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "vocabulary")
        for name in (*sizes, "context_length", "rope_theta", "rms_eps"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be positive")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} key-value heads evenly")
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}, but rotary positions need an even one")
        scaling = self.rope_scaling
        if scaling is not None and scaling.kind is RopeKind.YARN and self.rope_theta <= 1:
            raise ValueError(f"rope_theta is {self.rope_theta}, but yarn needs one above 1")
