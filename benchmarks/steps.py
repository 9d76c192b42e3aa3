"""What single steps of the compiled decoder take, without the engine around them, beside what this machine could do.

    python benchmarks/steps.py                             # the default model, all shapes, the chosen variant
    python benchmarks/steps.py --variant avx2 --batches 1 16 --prefixes 2048

Outputs are greedy. A decode step is one token for each of a batch of sequences that share a prefix: `grouped` reads the
prefix once for all of them, `ungrouped` once for each although the pages are shared, and `private` gives every sequence
pages of its own. Prefill is one prompt in chunks. The bound is the larger of the time of all multiply-adds at the speed
of registers on every core, and the time to read weights and KV once at the speed of memory; both speeds are measured
beside every shape (`roofline`). The last columns are the bound divided by the median, the bound, and what sets it.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from roofline import Machine, Roofline, Work

from parrotserve.engines.native.batch import SequenceRows, build_batch
from parrotserve.engines.native.kernels import (
    BLOCK_TOKENS,
    PAGE_TOKENS,
    KernelsBackend,
    chosen_variant,
    measured_variants,
)
from parrotserve.engines.native.settings import DEFAULT_PREFILL_CHUNK, WeightFormat, usable_cores
from parrotserve.models.architecture import ModelConfig
from parrotserve.models.config import load_config
from parrotserve.models.registry import resolve
from parrotserve.models.weights import load_weights

TAIL = 6
"""Tokens of each sequence after the prefix, including the new one."""
MODES = ("grouped", "ungrouped", "private")


@dataclass
class Shape:
    """One kind of step, and how long each run of it took."""

    name: str
    run: Callable[[], None]
    work: Work
    tokens: int
    seconds: list[float] = field(default_factory=list)
    machine: Machine | None = None


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

    def prefill(self, tokens: int) -> Shape:
        """The prefill of one prompt, in chunks."""
        table = range(-(-tokens // PAGE_TOKENS))
        work = Work.prefill(self._config, tokens)
        return Shape(f"prefill {tokens}", lambda: self._prefill(tokens, table), work, tokens)

    def decode(self, batch: int, prefix: int, mode: str) -> Shape | None:
        """A decode step of `batch` sequences; None if there are not enough pages."""
        shared, own = -(-prefix // PAGE_TOKENS), -(-(TAIL + PAGE_TOKENS) // PAGE_TOKENS)
        each = shared if mode == "private" else 0
        if shared + batch * (each + own) > self._pages:
            return None
        tables = [
            [*(range(i * each, i * each + shared)), *range(self._pages - (i + 1) * own, self._pages - i * own)]
            for i in range(batch)
        ]
        rows = [
            SequenceRows([i + 1], prefix + TAIL - 1, table, True, likeliest_only=True) for i, table in enumerate(tables)
        ]
        built, _ = build_batch(rows, PAGE_TOKENS, group=mode == "grouped", align_tokens=BLOCK_TOKENS)
        work = Work.decode(self._config, batch, prefix, TAIL, private=mode == "private")
        self._prefill(prefix, tables[0][:shared])
        if mode == "private":
            for table in tables[1:]:
                self._backend.copy_pages(tables[0][:shared], table[:shared])
        return Shape(f"batch {batch}, prefix {prefix}, {mode}", lambda: self._step(built), work, batch)

    def _prefill(self, tokens: int, table: "range | list[int]") -> None:
        for first in range(0, tokens, DEFAULT_PREFILL_CHUNK):
            part = [position % 256 for position in range(first, min(tokens, first + DEFAULT_PREFILL_CHUNK))]
            self._step(build_batch([SequenceRows(part, first, table, True, likeliest_only=True)], PAGE_TOKENS)[0])

    def _step(self, batch: object) -> None:
        self._backend.step(batch)  # type: ignore[arg-type]


def measure(shape: Shape, repeat: int, roofline: Roofline) -> None:
    """Run once to warm up, then `repeat` times, with the machine's peak rates measured before and after."""
    before = roofline.measure()
    shape.run()
    shape.seconds += [_timed(shape.run) for _ in range(repeat)]
    shape.machine = before.best(roofline.measure())


def line(shape: Shape, form: WeightFormat) -> str:
    """One shape's times, and how near they are to the bound."""
    assert shape.machine is not None
    median, (bound, by) = statistics.median(shape.seconds), shape.machine.seconds(shape.work, form)
    return (
        f"{shape.name:36} {1000 * median:9.2f} ms (least {1000 * min(shape.seconds):9.2f}) "
        f"{shape.tokens / median:7,.0f} tokens/s, {bound / median:4.0%} of bound: {1000 * bound:8.2f} ms by {by}"
    )


def report(shapes: list[Shape], options: argparse.Namespace) -> dict[str, Any]:
    """Everything that was measured."""
    steps: list[dict[str, Any]] = []
    for shape in shapes:
        assert shape.machine is not None
        bound, by = shape.machine.seconds(shape.work, options.weights)
        steps.append(
            {
                "step": shape.name,
                "milliseconds": [round(1000 * each, 3) for each in shape.seconds],
                "bound_milliseconds": round(1000 * bound, 3),
                "bound_by": by,
                "machine": asdict(shape.machine),
            }
        )
    names = ("model", "variant", "threads", "weights")
    return {"benchmark": "steps", **{name: getattr(options, name) for name in names}, "steps": steps}


def _shapes(steps: Steps, options: argparse.Namespace) -> Iterator[Shape]:
    yield from map(steps.prefill, options.prefills)
    for prefix in options.prefixes:
        for batch in options.batches:
            for mode in options.modes if batch > 1 else options.modes[:1]:
                if shape := steps.decode(batch, prefix, mode):
                    yield shape


def main() -> None:
    """Measure and print, shape by shape."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--variant", choices=list(measured_variants()), default=chosen_variant())
    parser.add_argument("--weights", type=WeightFormat, choices=list(WeightFormat), default=WeightFormat.BF16)
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
        load_weights(files, config, four_bit=options.weights is not WeightFormat.INT8),
        config,
        pages=pages,
        threads=options.threads,
        variant=options.variant,
        form=options.weights,
    )
    steps = Steps(backend, config, pages)
    shapes: list[Shape] = []
    print(f"{files.name}, {options.variant}, {options.weights}, {options.threads} threads")
    with Roofline(options.threads, int(2 * Work.prefill(config, 1).weights)) as roofline:
        for shape in _shapes(steps, options):
            measure(shape, options.repeat, roofline)
            print(line(shape, options.weights), flush=True)
            shapes.append(shape)
    if options.json:
        options.json.write_text(json.dumps(report(shapes, options), indent=2) + "\n")


if __name__ == "__main__":
    main()
