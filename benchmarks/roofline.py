"""The machine's peak rates, measured alongside a benchmark, and the least time that work takes at those rates."""

import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from parrotserve.engines.native.settings import WeightFormat
from parrotserve.models.architecture import ModelConfig

BYTES = {WeightFormat.BF16: 2.0, WeightFormat.INT8: 1 + 2 / 64, WeightFormat.INT4: 20 / 32}
"""Bytes per weight, its share of the scales included."""


@dataclass(frozen=True, slots=True)
class Work:
    """The work of one step or one prefill: what has to be computed, and read if each weight and key is read once."""

    linear_flops: float
    """Of products with weights."""
    attention_flops: float
    """Of products with keys and values."""
    weights: float
    """Number of weights that are read, including those of the head."""
    head: float
    """Number of weights of the head, which are in int8 even if the others are in int4."""
    kv_bytes: float

    @classmethod
    def of(cls, config: ModelConfig, *, rows: int, outputs: int, pairs: float, keys: float) -> "Work":
        """`rows` pass through the layers and `outputs` through the head. Attention multiplies `pairs` pairs of a query
        and a key, of `keys` different keys."""
        width, kv_width = config.heads * config.head_dim, config.kv_heads * config.head_dim
        layers = config.layers * config.hidden * (2 * width + 2 * kv_width + 3 * config.intermediate)
        head = config.vocabulary * config.hidden
        return cls(
            linear_flops=2 * (rows * layers + outputs * head),
            attention_flops=4 * pairs * width * config.layers,
            weights=layers + head,
            head=head,
            kv_bytes=4 * keys * kv_width * config.layers,
        )

    @classmethod
    def decode(cls, config: ModelConfig, batch: int, prefix: int, own: int, *, private: bool = False) -> "Work":
        """One token for each of `batch` sequences that share `prefix` tokens and have `own` more each. If `private`,
        each reads a copy of its own of the prefix."""
        keys = batch * (prefix + own) if private else prefix + batch * own
        return cls.of(config, rows=batch, outputs=batch, pairs=batch * (prefix + own), keys=keys)

    @classmethod
    def prefill(cls, config: ModelConfig, tokens: int) -> "Work":
        """A prompt of `tokens` tokens."""
        return cls.of(config, rows=tokens, outputs=1, pairs=tokens * (tokens + 1) / 2, keys=tokens)


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine's peak rates on all threads, as measured: 10^9 operations, or bytes read, per second."""

    gflops_bf16: float
    """0 if the machine has no such instructions; likewise for int8."""
    gflops_fp32: float
    gops_int8: float
    gbytes: float

    def best(self, other: "Machine") -> "Machine":
        """The higher rate of both measurements, number by number."""
        return Machine(*map(max, asdict(self).values(), asdict(other).values()))

    def seconds(self, work: Work, form: WeightFormat = WeightFormat.BF16) -> tuple[float, str]:
        """The least time that the work takes, with bf16 KV and weights in `form`, and what bounds it: "arithmetic", all
        products at the speed of registers, or "memory", reading everything once at the speed of memory. For bf16, what
        counts is what small batches of greedy outputs read: the 4-bit blocks of the file, as the default model's has
        them, and the head in int8."""
        products = max(self.gflops_bf16, self.gflops_fp32) * 1e9
        linear = products if form is WeightFormat.BF16 else max(products, self.gops_int8 * 1e9)
        arithmetic = work.linear_flops / linear + work.attention_flops / products
        layers = WeightFormat.INT4 if form is WeightFormat.BF16 else form
        read = (work.weights - work.head) * BYTES[layers] + work.head * BYTES[WeightFormat.INT8] + work.kv_bytes
        memory = read / (self.gbytes * 1e9)
        return max((arithmetic, "arithmetic"), (memory, "memory"))


class Roofline:
    """Measures the machine's peak rates with the program beside this file, compiled for this processor."""

    def __init__(self, threads: int, size: int) -> None:
        """The measurement of memory reads `size` bytes: as many as a model's weights have. Raises OSError or
        `CalledProcessError` if there is no C++ compiler that can build the program."""
        self._folder = tempfile.mkdtemp(prefix="roofline")
        program = Path(self._folder) / "roofline"
        source = Path(__file__).with_suffix(".cpp")
        subprocess.run(["c++", "-O3", "-march=native", "-pthread", source, "-o", program], check=True)
        self._process = subprocess.Popen(
            [program, str(threads), str(max(1, size >> 20))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def measure(self) -> Machine:
        """Measure the peak rates, which takes some 0.1 s."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Machine(*map(float, self._process.stdout.readline().split()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()
        shutil.rmtree(self._folder)
