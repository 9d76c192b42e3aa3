"""The native engine beside llama.cpp and vLLM: prefill, and decode over batch size and length of the shared prefix.

    python benchmarks/engine.py --quick                                # about three minutes
    python benchmarks/engine.py --json docs/benchmarks/engine.json     # everything, and the plot beside it
    python benchmarks/engine.py --vllm http://127.0.0.1:8101 ...       # beside a running vLLM server too

All contenders run the same model on the same machine with the same number of threads, one at a time, round after
round; medians of the rounds count. Parrot is measured through its engine process: sequences opened, tokens streamed
back. llama.cpp runs where `benchmarks/peers/install.py llamacpp` has set it up; its best setting at each point counts.
The first round measures all of its settings, the others the two that were fastest. The last columns are the roofline:
the time that the work takes at the multiply-adds and the memory bandwidth measured in the same run, and the fraction of
it that Parrot reaches.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contenders.base import SUFFIX, Contender
from contenders.native import Native, PrivateNative
from contenders.peers import LlamaCpp, Vllm, gguf_of, llama_library
from rich.console import Console
from rich.table import Table

from parrotserve.bench.circumstances import circumstances
from parrotserve.engines.native.build import page_bytes
from parrotserve.engines.native.settings import PAGE_TOKENS, BackendName, NativeSettings, WeightFormat, usable_cores
from parrotserve.models.architecture import ModelConfig
from parrotserve.models.config import load_config
from parrotserve.models.registry import resolve

PREFILLS = (512, 1024, 2048, 4096)
BATCHES = (1, 4, 16, 32, 64)
PREFIXES = (64, 1024, 2048, 4096)
QUICK_PREFILLS, QUICK_BATCHES, QUICK_PREFIXES = (512, 2048), (1, 16, 64), (64, 2048)
KEEP = 2
"""Settings of a peer that are measured in every round."""
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Point:
    """One piece of work: a prefill (batch 0) or a decode step."""

    batch: int
    tokens: int
    """Of the prompt, or of the shared prefix."""

    def __str__(self) -> str:
        return f"decode {self.batch} x {self.tokens}" if self.batch else f"prefill {self.tokens}"


@dataclass
class Series:
    """What one contender took for one point: the median second of every round."""

    contender: Contender
    rounds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)


class Run:
    """All contenders over all points."""

    def __init__(self, contenders: list[Contender], options: argparse.Namespace) -> None:
        self._contenders = contenders
        self._rounds: int = options.rounds
        self._steps: int = options.steps
        self._seed: int = options.seed
        self._said = Console(stderr=True)
        self.series: dict[Point, dict[str, Series]] = defaultdict(dict)

    async def prefills(self, lengths: Iterable[int]) -> None:
        """Prompts of fresh tokens."""

        async def once(contender: Contender, point: Point, seed: int) -> float:
            return await contender.prefill(point.tokens, seed)

        await self._over([Point(0, length) for length in lengths], once)

    async def decodes(self, batches: Iterable[int], prefixes: Iterable[int]) -> None:
        """Prefix after prefix, since setting up a prefix is what takes long."""

        async def once(contender: Contender, point: Point, seed: int) -> float:
            return statistics.median(await contender.decode(point.batch, point.tokens, self._steps, seed))

        for prefix in prefixes:
            await self._over([Point(batch, prefix) for batch in batches], once)

    async def _over(self, points: list[Point], once: Callable[[Contender, Point, int], Awaitable[float]]) -> None:
        for number in range(self._rounds):
            for point in points:
                began = time.perf_counter()
                for contender in self._fastest(point) if number else self._contenders:
                    if not contender.takes(point.batch, point.tokens):
                        continue
                    self._seed += 1
                    seconds = await once(contender, point, self._seed)
                    series = self.series[point].setdefault(contender.name, Series(contender))
                    series.rounds.append(seconds)
                self._said.print(f"round {number + 1}: {point} in {time.perf_counter() - began:.1f} s", style="dim")

    def _fastest(self, point: Point) -> list[Contender]:
        """All of ours, and of each peer the settings that are worth another round."""
        ranked = sorted(self.series[point].values(), key=lambda series: series.median)
        kept: defaultdict[str, list[Contender]] = defaultdict(list)
        for series in ranked:
            family = series.contender.family
            if family == Native.family or len(kept[family]) < KEEP:
                kept[family].append(series.contender)
        chosen = {contender.name for contenders in kept.values() for contender in contenders}
        return [contender for contender in self._contenders if contender.name in chosen]

    def best(self, point: Point, family: str) -> Series | None:
        """The fastest of a family that was measured in every round."""
        found = [
            series
            for series in self.series[point].values()
            if series.contender.family == family and len(series.rounds) == self._rounds
        ]
        return min(found, key=lambda series: series.median, default=None)


@dataclass(frozen=True, slots=True)
class Roofline:
    """What the machine can do at most, measured in this run."""

    gflops_bf16: float
    gflops_fp32: float
    gbytes: float

    def seconds(self, config: ModelConfig, point: Point) -> float:
        """The least time for a point with bf16 weights and KV, the prefix read once: arithmetic or memory."""
        width = config.heads * config.head_dim
        matrices = config.layers * (
            2 * config.hidden * (width + config.kv_heads * config.head_dim) + 3 * config.hidden * config.intermediate
        )
        head = config.vocabulary * config.hidden
        rows = point.batch or point.tokens
        if point.batch:
            keys = point.batch * (point.tokens + SUFFIX)
            kept = point.tokens + point.batch * SUFFIX
        else:
            keys = point.tokens * (point.tokens + 1) // 2
            kept = point.tokens
        flops = 2 * rows * matrices + 2 * (point.batch or 1) * head + 4 * keys * width * config.layers
        kv_bytes = kept * config.layers * 2 * config.kv_heads * config.head_dim * 2
        arithmetic = flops / ((self.gflops_bf16 or self.gflops_fp32) * 1e9)
        return max(arithmetic, (2 * (matrices + head) + kv_bytes) / (self.gbytes * 1e9))


def measure_roofline(threads: int) -> Roofline | None:
    """Compiled for this machine, and run; None without a C++ compiler."""
    source = Path(__file__).parent / "roofline.cpp"
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "roofline"
        try:
            subprocess.run(["c++", "-O3", "-march=native", "-pthread", source, "-o", program], check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        said = subprocess.run([program, str(threads)], check=True, capture_output=True, text=True).stdout
    return Roofline(*map(float, said.split()))


def make_contenders(options: argparse.Namespace) -> list[Contender]:
    """Ours with its switches, and the peers that are there."""
    files = resolve(options.model)
    config = load_config(files)
    threads, most = options.threads, max(options.batches)
    token_bytes = page_bytes(BackendName.AUTO, config) // PAGE_TOKENS

    def native(name: str, kv_tokens: int, **settings: Any) -> tuple[str, Any, NativeSettings]:
        return name, files, NativeSettings(threads=threads, kv_bytes=kv_tokens * token_bytes, **settings)

    shared = 4 * max((*options.prefixes, *options.prefills)) + most * 1024
    contenders: list[Contender] = [Native(*native("bf16", shared))]
    if "int8" in options.weights:
        contenders.append(Native(*native("int8", shared, weights=WeightFormat.INT8)))
    contenders.append(Native(*native("bf16 ungrouped", shared, group=False)))
    if not options.quick:
        private = native("bf16 private", most * (max(options.prefixes) + 1024), share=False)
        contenders.append(PrivateNative(*private, batch=most, least=min(1024, max(options.prefixes))))
    if llama_library().exists() and gguf_of("BF16").exists():
        context = max(*options.prefixes, *options.prefills) + most * 128
        contenders += [
            LlamaCpp(kind, flash=flash, threads=threads, context=context, sequences=most)
            for kind in (("Q8_0", "Q4_0") if options.quick else ("BF16", "Q8_0", "Q4_0"))
            for flash in (False, True)
        ]
    if options.vllm:
        contenders.append(Vllm(options.vllm, options.vllm_model, config.vocabulary))
    return contenders


async def measure(options: argparse.Namespace) -> Run:
    """Bring all up, measure, end all."""
    contenders = make_contenders(options)
    run = Run(contenders, options)
    try:
        for contender in contenders:
            await contender.start()
            await contender.prefill(256, seed=0)
        await run.prefills(options.prefills)
        await run.decodes(options.batches, options.prefixes)
    finally:
        await asyncio.gather(*(contender.close() for contender in contenders))
    return run


def report(run: Run, roofline: Roofline | None, config: ModelConfig, options: argparse.Namespace) -> dict[str, Any]:
    """Everything that was measured, and what on."""
    points: list[dict[str, Any]] = []
    for point, by_name in run.series.items():
        ours = run.best(point, Native.family)
        assert ours is not None
        bound = roofline and roofline.seconds(config, point)
        bf16 = by_name["bf16"].median
        theirs = {family: run.best(point, family) for family in (LlamaCpp.family, Vllm.family)}
        points.append(
            {
                "batch": point.batch,
                "tokens": point.tokens,
                "milliseconds": {
                    name: [round(1000 * each, 3) for each in series.rounds] for name, series in by_name.items()
                },
                "best": ours.contender.name,
                "bound_milliseconds": bound and round(1000 * bound, 3),
                "bf16_fraction_of_bound": bound and round(bound / bf16, 3),
                "ratio": {family: round(best.median / ours.median, 2) for family, best in theirs.items() if best},
                "sharing": {
                    name: round(by_name[name].median / bf16, 2)
                    for name in ("bf16 ungrouped", "bf16 private")
                    if name in by_name and point.batch
                },
            }
        )
    return {
        "benchmark": "engine",
        **circumstances(seed=options.seed),
        "model": options.model,
        "threads": options.threads,
        "rounds": options.rounds,
        "steps": options.steps,
        "roofline": roofline
        and {"gflops_bf16": roofline.gflops_bf16, "gflops_fp32": roofline.gflops_fp32, "gbytes": roofline.gbytes},
        "points": points,
    }


def tables(result: dict[str, Any]) -> Iterable[Table]:
    """The same for people: milliseconds of a step, medians with ranges."""
    names = list(dict.fromkeys(name for point in result["points"] for name in point["milliseconds"]))
    ours = [name for name in names if not name.startswith((LlamaCpp.family, Vllm.family))]
    for title, decode in (("Prefill, milliseconds", False), ("Decode, milliseconds a step", True)):
        table = Table(title=title, title_justify="left")
        peers = [family for family in (LlamaCpp.family, Vllm.family) if any(name.startswith(family) for name in names)]
        for column in ("batch x prefix" if decode else "tokens", *ours, *peers, "bound", "of bound"):
            table.add_column(column, justify="right")
        for family in peers:
            table.add_column(f"over {family}", justify="right")
        for point in result["points"]:
            if bool(point["batch"]) != decode:
                continue
            times = point["milliseconds"]
            cells = [f"{point['batch']} x {point['tokens']}" if decode else str(point["tokens"])]
            cells += [_spread(times.get(name)) for name in ours]
            for family in peers:
                found = {name: each for name, each in times.items() if name.startswith(family)}
                full = {name: each for name, each in found.items() if len(each) == result["rounds"]}
                name = min(full, key=lambda name: statistics.median(full[name]))
                cells.append(f"{_spread(full[name])} {name.removeprefix(family).strip()}")
            bound, fraction = point["bound_milliseconds"], point["bf16_fraction_of_bound"]
            cells += [f"{bound:.1f}", f"{fraction:.0%}"] if bound else ["", ""]
            cells += [f"{point['ratio'][family]:.2f}x" if family in point["ratio"] else "" for family in peers]
            table.add_row(*cells)
        yield table


def _spread(times: list[float] | None) -> str:
    return f"{statistics.median(times):.1f} ({min(times):.1f}-{max(times):.1f})" if times else ""


def plot(result: dict[str, Any], target: Path) -> bool:
    """Decode steps over the shared prefix, a panel for each batch size. False: matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    points = [point for point in result["points"] if point["batch"]]
    batches = sorted({point["batch"] for point in points})
    figure, axes = plt.subplots(1, len(batches), figsize=(4 * len(batches), 4), squeeze=False)
    for axis, batch in zip(axes[0], batches, strict=True):
        chosen = [point for point in points if point["batch"] == batch]
        names = dict.fromkeys(name for point in chosen for name in point["milliseconds"])
        for name in names:
            kept = [p for p in chosen if len(p["milliseconds"].get(name, ())) == result["rounds"]]
            if kept:
                times = [statistics.median(point["milliseconds"][name]) for point in kept]
                style = "--" if name.startswith((LlamaCpp.family, Vllm.family)) else "-"
                axis.plot([point["tokens"] for point in kept], times, style, marker="o", label=name)
        if result["roofline"]:
            axis.plot(
                [p["tokens"] for p in chosen], [p["bound_milliseconds"] for p in chosen], ":k", label="bound (bf16)"
            )
        axis.set(title=f"batch {batch}", xlabel="shared prefix, tokens", ylabel="ms a step", ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(target, dpi=110)
    return True


def arguments() -> argparse.Namespace:
    """The command line's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer points and rounds: about three minutes")
    parser.add_argument("--model", default="default", help="name or path")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of every contender (one a core)")
    parser.add_argument(
        "--weights", nargs="+", default=["bf16", "int8"], choices=["bf16", "int8"], help="of our own (both)"
    )
    parser.add_argument("--prefills", type=int, nargs="+", help="lengths of prompts")
    parser.add_argument("--batches", type=int, nargs="+", help="sequences in a step")
    parser.add_argument("--prefixes", type=int, nargs="+", help="lengths of the shared prefix")
    parser.add_argument("--rounds", type=int, help="measurements of each (5; quick: 3)")
    parser.add_argument("--steps", type=int, help="decode steps in each (16; quick: 8)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vllm", metavar="URL", help="a running vLLM server")
    parser.add_argument("--vllm-model", default="smollm2-135m", help="its model's name there")
    parser.add_argument("--json", type=Path, help="write the JSON there, and the plot beside it")
    options = parser.parse_args()
    options.prefills = options.prefills or (QUICK_PREFILLS if options.quick else PREFILLS)
    options.batches = options.batches or (QUICK_BATCHES if options.quick else BATCHES)
    options.prefixes = options.prefixes or (QUICK_PREFIXES if options.quick else PREFIXES)
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.steps = options.steps or (8 if options.quick else 16)
    return options


def main() -> None:
    """Measure, print, write."""
    options = arguments()
    roofline = measure_roofline(options.threads)
    run = asyncio.run(measure(options))
    result = report(run, roofline, load_config(resolve(options.model)), options)
    console = Console(width=None if sys.stdout.isatty() else 200)
    for table in tables(result):
        console.print(table)
    if roofline:
        console.print(f"Roofline: {roofline}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        if not plot(result, options.json.with_suffix(".png")):
            print("There is no picture: pip install -r benchmarks/requirements.txt", file=sys.stderr)


if __name__ == "__main__":
    main()
