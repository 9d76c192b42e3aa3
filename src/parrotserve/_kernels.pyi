"""The compiled decoder (src/kernels); `parrotserve.engines.native.kernels` is the way to it."""

import numpy as np
from numpy.typing import NDArray

PAGE_TOKENS: int
BLOCK_TOKENS: int

def variants() -> list[str]: ...
def measure(variant: str) -> float: ...

class Decoder:
    def __init__(
        self,
        variant: str,
        *,
        layers: int,
        hidden: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        intermediate: int,
        vocabulary: int,
        rms_eps: float,
        rope_magnitude: float,
        pages: int,
        threads: int,
        quantised: bool,
    ) -> None: ...
    def spoil_pages(self) -> None: ...
    def copy_pages(self, source: NDArray[np.int32], target: NDArray[np.int32]) -> None: ...
    def load_embedding(
        self,
        embedding: NDArray[np.float32],
        head: NDArray[np.float32] | None,
        final_norm: NDArray[np.float32],
        rope_frequencies: NDArray[np.float32],
    ) -> None: ...
    def load_layer(
        self,
        index: int,
        *,
        attn_norm: NDArray[np.float32],
        q: NDArray[np.float32],
        k: NDArray[np.float32],
        v: NDArray[np.float32],
        o: NDArray[np.float32],
        q_bias: NDArray[np.float32] | None,
        k_bias: NDArray[np.float32] | None,
        v_bias: NDArray[np.float32] | None,
        q_norm: NDArray[np.float32] | None,
        k_norm: NDArray[np.float32] | None,
        mlp_norm: NDArray[np.float32],
        gate: NDArray[np.float32],
        up: NDArray[np.float32],
        down: NDArray[np.float32],
        blocks: dict[str, NDArray[np.uint8]],
    ) -> None: ...
    def step(
        self,
        tokens: NDArray[np.int32],
        positions: NDArray[np.int32],
        slots: NDArray[np.int32],
        span_rows: NDArray[np.int32],
        span_keys: NDArray[np.int32],
        span_causal: NDArray[np.bool_],
        page_starts: NDArray[np.int32],
        pages: NDArray[np.int32],
        logit_rows: NDArray[np.int32],
        scales: NDArray[np.float64],
        likeliest_only: NDArray[np.bool_],
        logits: NDArray[np.float32],
        likeliest: NDArray[np.int32],
        highest: NDArray[np.float32],
    ) -> None: ...
    def candidates(
        self,
        outputs: NDArray[np.int32],
        scales: NDArray[np.float64],
        ids: NDArray[np.int32],
        values: NDArray[np.float32],
        masses: NDArray[np.float64],
    ) -> None: ...
    def draw(
        self,
        outputs: NDArray[np.int32],
        scales: NDArray[np.float64],
        top_k: NDArray[np.int32],
        top_p: NDArray[np.float64],
        min_p: NDArray[np.float64],
        starts: NDArray[np.uint64],
        positions: NDArray[np.int32],
        tokens: NDArray[np.int32],
    ) -> None: ...
