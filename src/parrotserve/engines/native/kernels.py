"""The `kernels` backend: a whole step in C++ (src/kernels), over bf16 pages of KV.

Its results are byte-equal whatever the batch, the prefill chunks, the grouping and the number of threads: every sum is
added in a fixed order, and softmax partials are taken over absolute blocks of `BLOCK_TOKENS` keys.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from parrotserve.engines.native.backend import StepBatch
from parrotserve.engines.native.logits import CANDIDATES, Candidates, DrawSettings, FloatArray, IntArray, Logits
from parrotserve.engines.native.settings import PAGE_TOKENS, WeightFormat
from parrotserve.models.architecture import ModelConfig
from parrotserve.models.weights import Blocks, LayerWeights, ModelWeights

try:
    from parrotserve import _kernels
except ImportError:  # built without a compiler
    _kernels = None

BLOCK_TOKENS = 256
"""Shared spans begin and end at multiples of this; compiled in, as `PAGE_TOKENS` is."""

CLEARLY_FASTER = 1.25
"""An older variant is used instead of a newer one if it is more than this many times as fast."""

_LANES = 16
_MOST_HEAD_DIM = 256
_MOST_QUERIES = 24
"""Most query heads per KV head: as many as fit into one tile of attention in every variant."""


def variants() -> tuple[str, ...]:
    """Instruction-set variants that run here, newest first; none where the extension was not built."""
    return tuple(_kernels.variants()) if _kernels is not None else ()


@functools.cache
def measured_variants() -> dict[str, float]:
    """GFLOP/s on one core of every variant that runs here, in the order of `variants`; measured once, in some ms."""
    return {variant: _kernels.measure(variant) for variant in variants()} if _kernels is not None else {}


@functools.cache
def chosen_variant() -> str | None:
    """The variant to use: the newest, unless an older one is clearly faster; None where there is none.

    Measured, because the newest instructions are not the fastest on every CPU that has them. The margin keeps the
    choice the same from start to start: variants differ in rounding and so, where tokens nearly tie, in text.
    """
    chosen: str | None = None
    for variant, speed in measured_variants().items():
        if chosen is None or speed > CLEARLY_FASTER * measured_variants()[chosen]:
            chosen = variant
    return chosen


def unfit(config: ModelConfig) -> str | None:
    """Why the kernels cannot compute a model of this shape; None if they can."""
    group = config.heads // config.kv_heads
    if config.hidden % _LANES:
        return f"hidden is {config.hidden}, no multiple of {_LANES}"
    if config.intermediate % 2:
        return f"intermediate is {config.intermediate}, no even number"
    if config.head_dim > _MOST_HEAD_DIM:
        return f"head_dim is {config.head_dim}; the kernels take at most {_MOST_HEAD_DIM}"
    if group > _MOST_QUERIES:
        return (
            f"{config.heads} heads share {config.kv_heads} of keys and values, {group} each; the kernels take at most "
            f"{_MOST_QUERIES}"
        )
    return None


class KernelsBackend:
    """Runs steps in C++ on `threads` threads. Neither thread-safe nor reentrant; a step releases the GIL.
    Models whose shape is `unfit` are refused with `ValueError`.

    Packing copies the weights into `form`; drop `weights` afterwards. int8 weights are half as many bytes to read as
    bf16 ones, and a little less exact. int4 weights are about half of that; they are made from the file's 4-bit blocks
    in `weights`, and matrices without blocks are in int8. In bf16, too, small batches read the blocks, where `weights`
    has them, since they stand for the same numbers.
    """

    def __init__(
        self,
        weights: ModelWeights,
        config: ModelConfig,
        *,
        pages: int,
        threads: int,
        form: WeightFormat = WeightFormat.BF16,
        variant: str | None = None,
    ) -> None:
        if _kernels is None:
            raise RuntimeError("The kernels extension was not built.")
        self._logits = np.empty((0, config.vocabulary), dtype=np.float32)
        self._decoder = _kernels.Decoder(
            variant or chosen_variant() or "",
            layers=config.layers,
            hidden=config.hidden,
            heads=config.heads,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            intermediate=config.intermediate,
            vocabulary=config.vocabulary,
            rms_eps=config.rms_eps,
            rope_magnitude=weights.rope_magnitude,
            pages=pages,
            threads=threads,
            quantised=form is not WeightFormat.BF16,
        )
        self._decoder.load_embedding(
            weights.embedding, weights.head, weights.final_norm, weights.rope_frequencies.astype(np.float32)
        )
        for index, layer in enumerate(weights.layers):
            self._decoder.load_layer(
                index,
                attn_norm=layer.attn_norm,
                q=layer.q,
                k=layer.k,
                v=layer.v,
                o=layer.o,
                q_bias=layer.q_bias,
                k_bias=layer.k_bias,
                v_bias=layer.v_bias,
                q_norm=layer.q_norm,
                k_norm=layer.k_norm,
                mlp_norm=layer.mlp_norm,
                gate=layer.gate,
                up=layer.up,
                down=layer.down,
                blocks={} if form is WeightFormat.INT8 else _blocks(layer),
            )

    @staticmethod
    def page_bytes(config: ModelConfig) -> int:
        """Bytes that one page takes."""
        columns = config.head_dim + -(-config.head_dim // 64) * 64
        return config.layers * config.kv_heads * PAGE_TOKENS * columns * 2

    def spoil_pages(self) -> None:
        """For tests: fill all pages with NaN, so that reads of KV that was never written show in the logits."""
        self._decoder.spoil_pages()

    def copy_pages(self, source: Sequence[int], target: Sequence[int]) -> None:
        """For measurements: copy the KV of every page of `source` to the page at the same index of `target`."""
        self._decoder.copy_pages(np.array(source, dtype=np.int32), np.array(target, dtype=np.int32))

    @property
    def page_tokens(self) -> int:
        """Tokens per page."""
        return PAGE_TOKENS

    def step(self, batch: StepBatch) -> Logits:
        """Run all rows, writing their KV. Returns the logits of the outputs, valid until the next step."""
        outputs = len(batch.logit_rows)
        if outputs > len(self._logits):
            # Kept, because fresh memory of this size costs a page fault every 4 KiB.
            self._logits = _aligned_rows(outputs, self._logits.shape[1])
        logits = _KernelLogits(self._decoder, self._logits[:outputs])
        spans = batch.spans
        self._decoder.step(
            batch.tokens,
            batch.positions,
            batch.slots,
            spans.rows,
            spans.keys,
            spans.causal,
            spans.page_starts,
            spans.pages,
            batch.logit_rows,
            batch.scales,
            batch.likeliest_only,
            logits.rows,
            logits.likeliest,
            logits.highest,
        )
        return logits


def _blocks(layer: LayerWeights) -> dict[str, Blocks]:
    """The blocks of a layer's matrices that have 4-bit blocks; of matrices that are packed together, of all or none."""
    found: dict[str, Blocks] = {}
    for names in (("q", "k", "v"), ("o",), ("gate", "up"), ("down",)):
        if all(name in layer.four_bit for name in names):
            found |= {name: layer.four_bit[name] for name in names}
    return found


def _aligned_rows(count: int, width: int) -> FloatArray:
    """Uninitialised, and aligned to cache lines, so that kernels write whole lines without reading them first."""
    line = 64
    memory = np.empty(4 * count * width + line, dtype=np.uint8)
    start = -memory.ctypes.data % line
    return memory[start : start + 4 * count * width].view(np.float32).reshape(count, width)


class _KernelLogits:
    """`Logits` in memory that the decoder fills, and searches."""

    def __init__(self, decoder: Any, rows: FloatArray) -> None:
        self.rows = rows
        self.likeliest: IntArray = np.empty(len(rows), dtype=np.int32)
        self.highest: FloatArray = np.empty(len(rows), dtype=np.float32)
        self._decoder = decoder

    def candidates(self, outputs: Sequence[int], scales: Sequence[float]) -> Candidates:
        """See `Logits`."""
        shape = (len(outputs), min(CANDIDATES, self.rows.shape[1]))
        found = Candidates(np.empty(shape, np.int32), np.empty(shape, np.float32), np.empty(len(outputs)))
        which, at = np.array(outputs, dtype=np.int32), np.array(scales, dtype=np.float64)
        self._decoder.candidates(which, at, found.ids, found.values, found.masses)
        return found

    def draw(self, settings: DrawSettings, positions: IntArray) -> list[int | None]:
        """See `Logits`."""
        tokens = np.empty(len(positions), dtype=np.int32)
        self._decoder.draw(
            settings.outputs,
            settings.scales,
            settings.top_k,
            settings.top_p,
            settings.min_p,
            settings.starts,
            positions,
            tokens,
        )
        return [token if token >= 0 else None for token in tokens.tolist()]
