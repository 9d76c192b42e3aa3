"""Rotary position frequencies, with the scalings that stretch a model's context.

Su et al., RoFormer (2021); linear: Chen et al., Position Interpolation (2023); yarn: Peng et al., YaRN (2023);
llama3: the model's release, as in Hugging Face transformers' `modeling_rope_utils`.
"""

import math

import numpy as np
from numpy.typing import NDArray

from parrotserve.models.architecture import ModelConfig, RopeKind, RopeScaling

Frequencies = NDArray[np.float64]


def rope_frequencies(config: ModelConfig) -> tuple[Frequencies, float]:
    """Radians per position for each of the head_dim / 2 rotated pairs, and the factor on cosines and sines.

    Pair i is elements i and i + head_dim / 2 of a head (the half-split layout).
    """
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim
    plain: Frequencies = config.rope_theta**-exponents
    scaling = config.rope_scaling
    if scaling is None:
        return plain, 1.0
    if scaling.kind is RopeKind.LINEAR:
        return plain / scaling.factor, 1.0
    if scaling.kind is RopeKind.LLAMA3:
        return _llama3(plain, scaling), 1.0
    magnitude = scaling.attention_factor
    return _yarn(plain, scaling, config), magnitude or _yarn_magnitude(scaling.factor)


def _llama3(plain: Frequencies, scaling: RopeScaling) -> Frequencies:
    """Divide the frequencies of long waves by the factor, keep those of short ones, interpolate in between."""
    turns = scaling.original_context * plain / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return kept * plain + (1 - kept) * plain / scaling.factor


def _yarn(plain: Frequencies, scaling: RopeScaling, config: ModelConfig) -> Frequencies:
    """As llama3, but with a ramp that is linear in the pair's index rather than in its frequency."""
    pairs = len(plain)

    def pair_of(turns: float) -> float:
        """The (fractional) pair that makes this many turns over the original context."""
        ratio = scaling.original_context / (turns * 2 * math.pi)
        return config.head_dim * math.log(ratio) / (2 * math.log(config.rope_theta))

    low = max(math.floor(pair_of(scaling.beta_fast)), 0)
    high = min(math.ceil(pair_of(scaling.beta_slow)), config.head_dim - 1)
    ramp = np.clip((np.arange(pairs) - low) / max(high - low, 1e-3), 0.0, 1.0)
    return (1 - ramp) * plain + ramp * plain / scaling.factor


def _yarn_magnitude(factor: float) -> float:
    return 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
