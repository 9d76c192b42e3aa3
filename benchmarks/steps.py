"""What single steps of the compiled decoder take, without the engine around them, beside what this machine could do.

    python benchmarks/steps.py                             # the default model, all shapes, the chosen variant
    python benchmarks/steps.py --variant avx2 --batches 1 16 --prefixes 2048

Decode steps are one token of each of a batch of sequences that share a prefix: `grouped` reads the prefix once for all,
`ungrouped` once for each though the pages are shared, `private` gives every sequence pages of its own. Prefill is one
prompt in chunks. The bound is the larger of what the multiply-adds take at the speed of the variant's register tile on
every core, and what reading weights and KV once takes at the speed of memory, both measured first; the last column is
the share of it that the median reached.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from parrotserve.engines.native.batch import SequenceRows, build_batch
from parrotserve.engines.native.kernels import (
    BLOCK_TOKENS,
    PAGE_TOKENS,
    KernelsBackend,
    chosen_variant,
    measured_variants,
)
from parrotserve.engines.native.settings import DEFAULT_PREFILL_CHUNK, usable_cores
from parrotserve.models.architecture import ModelConfig
from parrotserve.models.config import load_config
from parrotserve.models.registry import resolve
from parrotserve.models.weights import load_weights

TAIL = 6
"""Tokens of each sequence behind the prefix, the new one included."""
MODES = ("grouped", "ungrouped", "private")


@dataclass(frozen=True)
class Machine:
    """What the machine can do at most, on all threads that are used."""

    flops: float
    bytes: float

    @classmethod
    def measured(cls, variant: str, threads: int) -> "Machine":
        """Some hundred milliseconds: multiply-adds from registers, and reading what no cache holds."""
        data = np.ones((threads, 1 << 25), dtype=np.int64)
        with ThreadPoolExecutor(threads) as pool:
            seconds = min(_timed(lambda: list(pool.map(np.sum, data))) for _ in range(5))
        return cls(1e9 * measured_variants()[variant] * threads, data.nbytes / seconds)


@dataclass
class Shape:
    """One kind of work, and how long each run of it took."""

    name: str
    run: Callable[[], None]
    flops: float
    bytes: float
    tokens: int
    seconds: list[float] = field(default_factory=list)

    def bound(self, machine: Machine) -> float:
        """Seconds."""
        return max(self.flops / machine.flops, self.bytes / machine.bytes)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Steps:
    """The shapes that can be run over one backend and its pages."""

    def __init__(self, backend: KernelsBackend, config: ModelConfig, pages: int) -> None:
        self._backend = backend
        self._config = config
        self._pages = pages
        width, kv_width = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self._layers = config.layers * config.hidden * (2 * width + 2 * kv_width + 3 * config.intermediate)
        self._head = config.vocabulary * config.hidden
        self._pair_flops = 4 * width * config.layers  # of one query and one key
        self._key_bytes = 4 * kv_width * config.layers

    def prefill(self, tokens: int) -> Shape:
        """One prompt, in chunks."""
        table = range(-(-tokens // PAGE_TOKENS))
        flops = 2 * (tokens * self._layers + self._head) + self._pair_flops * tokens * (tokens + 1) / 2
        chunks = -(-tokens // DEFAULT_PREFILL_CHUNK)
        read = chunks * 2 * self._layers + 2 * self._head + self._key_bytes * tokens
        return Shape(f"prefill {tokens}", lambda: self._prefill(tokens, table), flops, read, tokens)

    def decode(self, batch: int, prefix: int, mode: str) -> Shape | None:
        """One token of each; None where the pages do not suffice."""
        shared, own = -(-prefix // PAGE_TOKENS), -(-(TAIL + PAGE_TOKENS) // PAGE_TOKENS)
        each = shared if mode == "private" else 0
        if shared + batch * (each + own) > self._pages:
            return None
        tables = [
            [*(range(i * each, i * each + shared)), *range(self._pages - (i + 1) * own, self._pages - i * own)]
            for i in range(batch)
        ]
        rows = [SequenceRows([i + 1], prefix + TAIL - 1, table, True) for i, table in enumerate(tables)]
        built, _ = build_batch(rows, PAGE_TOKENS, group=mode == "grouped", align_tokens=BLOCK_TOKENS)
        flops = 2 * batch * (self._layers + self._head) + self._pair_flops * batch * (prefix + TAIL)
        keys = batch * (prefix + TAIL) if mode == "private" else prefix + batch * TAIL
        for table in tables if mode == "private" else tables[:1]:
            self._prefill(prefix, table[:shared])
        read = 2 * (self._layers + self._head) + self._key_bytes * keys
        return Shape(f"batch {batch}, prefix {prefix}, {mode}", lambda: self._step(built), flops, read, batch)

    def _prefill(self, tokens: int, table: "range | list[int]") -> None:
        for first in range(0, tokens, DEFAULT_PREFILL_CHUNK):
            part = [position % 256 for position in range(first, min(tokens, first + DEFAULT_PREFILL_CHUNK))]
            self._step(build_batch([SequenceRows(part, first, table, True)], PAGE_TOKENS)[0])

    def _step(self, batch: object) -> None:
        self._backend.step(batch)  # type: ignore[arg-type]


def measure(shape: Shape, repeat: int) -> None:
    """Once to warm up, then `repeat` times."""
    shape.run()
    shape.seconds += [_timed(shape.run) for _ in range(repeat)]


def report(shapes: list[Shape], machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    """Everything that was measured."""
    return {
        "benchmark": "steps",
        "model": options.model,
        "variant": options.variant,
        "threads": options.threads,
        "gflops": machine.flops / 1e9,
        "gbytes": machine.bytes / 1e9,
        "steps": [
            {
                "step": shape.name,
                "milliseconds": [round(1000 * each, 3) for each in shape.seconds],
                "bound_milliseconds": round(1000 * shape.bound(machine), 3),
            }
            for shape in shapes
        ],
    }


def table(shapes: list[Shape], machine: Machine, title: str) -> Table:
    """Milliseconds, and how near they are to the bound."""
    shown = Table(title=title, title_justify="left")
    for column in ("step", "median", "least", "tokens/s", "bound", "bound by", "reached"):
        shown.add_column(column, justify="left" if column in ("step", "bound by") else "right", no_wrap=True)
    for shape in shapes:
        median, bound = statistics.median(shape.seconds), shape.bound(machine)
        shown.add_row(
            shape.name,
            f"{1000 * median:.2f}",
            f"{1000 * min(shape.seconds):.2f}",
            f"{shape.tokens / median:,.0f}",
            f"{1000 * bound:.2f}",
            "arithmetic" if bound == shape.flops / machine.flops else "memory",
            f"{bound / median:.0%}",
        )
    return shown


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--variant", choices=list(measured_variants()), default=chosen_variant())
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--prefills", type=int, nargs="*", default=[512, 2048, 4096])
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 4, 16, 32, 64])
    parser.add_argument("--prefixes", type=int, nargs="*", default=[64, 1024, 2048, 4096])
    parser.add_argument("--modes", nargs="*", choices=MODES, default=list(MODES))
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--kv-gib", type=float, default=2.0, help="memory for KV; what does not fit is left out")
    parser.add_argument("--json", type=Path, help="write everything there as well")
    options = parser.parse_args()
    files = resolve(options.model)
    config = load_config(files)
    pages = int(options.kv_gib * 2**30) // KernelsBackend.page_bytes(config)
    backend = KernelsBackend(
        load_weights(files, config), config, pages=pages, threads=options.threads, variant=options.variant
    )
    machine = Machine.measured(options.variant, options.threads)
    steps = Steps(backend, config, pages)
    shapes: list[Shape] = []
    for tokens in options.prefills:
        shapes.append(steps.prefill(tokens))
        measure(shapes[-1], options.repeat)
    for prefix in options.prefixes:
        for batch in options.batches:
            for mode in options.modes if batch > 1 else options.modes[:1]:
                if shape := steps.decode(batch, prefix, mode):
                    shapes.append(shape)
                    measure(shape, options.repeat)
    title = (
        f"{files.name}, {options.variant}, {options.threads} threads; "
        f"at most {machine.flops / 1e9:.0f} GFLOP/s, {machine.bytes / 1e9:.1f} GB/s; milliseconds"
    )
    Console().print(table(shapes, machine, title))
    if options.json:
        options.json.write_text(json.dumps(report(shapes, machine, options), indent=2) + "\n")


if __name__ == "__main__":
    main()
