"""The native engine beside llama.cpp and vLLM: prefill, and decode over batch size and length of the shared prefix.

    python benchmarks/engine.py --only must-show --json engine.json   # the points that have targets
    python benchmarks/engine.py --points 512 16x2048                  # a prompt of 512; 16 sequences over 2048 tokens
    python benchmarks/engine.py --vllm http://127.0.0.1:8101 ...      # beside a running vLLM server too

All contenders run the same model on the same tokens, on the same machine with the same number of threads, one at a
time, round after round; the medians over the rounds count. Parrot is measured through its engine process: sequences
opened, tokens streamed back. llama.cpp takes part if `benchmarks/peers/install.py llamacpp` has set it up. Its best
setting at a point counts: the first round measures all settings, the others only those that were nearly as fast as the
fastest. Each point is one interleaved run, written to the JSON at once, and not measured again while source and machine
are the same. The machine's peak rates are measured in each round too; percentages say how near Parrot comes to the
bound that they set.
"""

import argparse
import asyncio
import contextlib
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from contenders.base import SUFFIX, Contender, draw
from contenders.native import Native, PrivateNative
from contenders.peers import LlamaCpp, Vllm, gguf_of, llama_library
from engine_report import line, plot, write_tables
from points import Point, PointRecords, grid, in_order, must_show, wanted
from roofline import Machine, Roofline, Work

from parrotserve.engines.native.build import page_bytes
from parrotserve.engines.native.kernels import variants
from parrotserve.engines.native.settings import PAGE_TOKENS, BackendName, NativeSettings, WeightFormat, usable_cores
from parrotserve.models.architecture import ModelConfig
from parrotserve.models.config import load_config
from parrotserve.models.files import ModelFiles
from parrotserve.models.registry import resolve

NEARLY = 1.1
"""A setting of a peer is measured after the first round if it took at most so many times as long as the peer's fastest
there."""
KEEP = 2
"""Most settings of a peer that are measured after the first round."""
HOPELESS = 1.3
"""A setting that took more than so many times as long as the peer's fastest for a prompt is not measured with longer
prompts."""

_WARM_UP = 256
"""Tokens of each contender's first prompt."""
MOST_IN_INT4 = 4
"""Most sequences that are measured with int4: with more, arithmetic bounds a step, and int4 saves none."""


class Sides:
    """The contenders. Each is started when first needed, kept for later points, and at rest unless it is its turn."""

    def __init__(self, options: argparse.Namespace, files: ModelFiles, config: ModelConfig) -> None:
        self._options = options
        self._vocabulary = config.vocabulary
        self._started: set[str] = set()
        self._all: list[Contender] = list(_contenders(options, files, config))

    def at(self, point: Point) -> list[Contender]:
        """The contenders that are measured at a point: ours, and peers if a target is set against them or `--peers all`
        is given."""
        return [each for each in self._all if self._belongs(each, point)]

    def _belongs(self, contender: Contender, point: Point) -> bool:
        if contender.family == Native.family:
            return contender.name != WeightFormat.INT4 or 0 < point.batch <= MOST_IN_INT4
        if contender.family == PrivateNative.family and self._options.only != "must-show":
            return point.batch > 1
        return self._options.peers == "all" or wanted(point, contender.family) is not None

    @contextlib.asynccontextmanager
    async def turn(self, contender: Contender):
        """A context in which the contender is started and awake."""
        if contender.name not in self._started:
            self._started.add(contender.name)
            await contender.start()
            await contender.prefill(draw("warm up", _WARM_UP, self._vocabulary))
        contender.wake()
        try:
            yield
        finally:
            contender.rest()

    async def close(self) -> None:
        """End all contenders."""
        for contender in self._all:
            contender.wake()
        await asyncio.gather(*(contender.close() for contender in self._all))


def _contenders(options: argparse.Namespace, files: ModelFiles, config: ModelConfig):
    token_bytes = page_bytes(BackendName.AUTO, config) // PAGE_TOKENS
    threads, points = options.threads, options.points
    most = max(point.batch for point in points)
    longest = max(point.tokens for point in points)

    def settings(kv_tokens: int, **more: Any) -> NativeSettings:
        # `adapt=False`: without a bound on a step's time the whole batch joins at once. Once all sequences decode, this
        # makes no difference.
        sizes = {"kv_bytes": kv_tokens * token_bytes, "max_running": max(64, most)}
        return NativeSettings(threads=threads, adapt=False, speculate=False, **sizes, **more)

    for weights in options.weights:
        kept = settings(4 * longest + most * 512, weights=WeightFormat(weights))
        yield Native(weights, files, kept)
    if variants() and "bf16" in options.weights:
        yield PrivateNative("bf16 private", files, settings((most + 2) * (longest + 512), share=False))
    if llama_library().exists() and gguf_of("BF16").exists():
        context = max(longest, _WARM_UP) + most * 128
        for kind in ("BF16", "Q8_0", "Q4_0"):
            for flash in (False, True):
                yield LlamaCpp(kind, flash=flash, threads=threads, context=context, sequences=most)
    if options.vllm:
        yield Vllm(options.vllm, options.vllm_model, group=options.vllm_group)


class Run:
    """Measures point after point."""

    def __init__(
        self, sides: Sides, roofline: Roofline | None, config: ModelConfig, options: argparse.Namespace
    ) -> None:
        self._sides = sides
        self._roofline = roofline
        self._config = config
        self._options = options

    async def point(self, point: Point, contenders: list[Contender]) -> dict[str, Any]:
        """All rounds of one point: each side's milliseconds, and the bounds by the machine's peak rates meanwhile."""
        times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
        machine: Machine | None = None
        for number in range(self._options.rounds):
            if self._roofline is not None:
                measured = self._roofline.measure()
                machine = measured if machine is None else machine.best(measured)
            for contender in contenders if number == 0 else _worth_it(contenders, times):
                async with self._sides.turn(contender):
                    times[contender.name].append(await self._once(contender, point, number))
        return {
            "rounds": self._options.rounds,
            "families": {contender.name: contender.family for contender in contenders},
            "milliseconds": {name: [round(1000 * each, 3) for each in taken] for name, taken in times.items()},
            "roofline": None if machine is None else _bounds(machine, self._config, point),
        }

    async def _once(self, contender: Contender, point: Point, number: int) -> float:
        vocabulary, seed = self._config.vocabulary, self._options.seed
        if not point.batch:
            return await contender.prefill(draw(f"prompt {seed} {number} {point}", point.tokens, vocabulary))
        prefix = draw(f"prefix {seed} {point.tokens}", point.tokens, vocabulary)
        suffixes = [draw(f"suffix {seed} {point} {index}", SUFFIX, vocabulary) for index in range(point.batch)]
        return statistics.median(await contender.decode(prefix, suffixes, self._options.steps or point.steps))


def _worth_it(contenders: list[Contender], times: dict[str, list[float]]) -> list[Contender]:
    """All of our sides, and of each peer the settings that may turn out to be its fastest."""
    chosen: set[str] = set()
    for family in {contender.family for contender in contenders}:
        ranked = sorted((each.name for each in contenders if each.family == family), key=lambda name: times[name][0])
        limit = NEARLY * times[ranked[0]][0]
        chosen.update(ranked if family == Native.family else [n for n in ranked[:KEEP] if times[n][0] <= limit])
    return [contender for contender in contenders if contender.name in chosen]


def _bounds(machine: Machine, config: ModelConfig, point: Point) -> dict[str, Any]:
    own = SUFFIX + 1
    work = Work.decode(config, point.batch, point.tokens, own) if point.batch else Work.prefill(config, point.tokens)
    bounds: dict[str, Any] = {"gflops_bf16": machine.gflops_bf16, "gflops_fp32": machine.gflops_fp32}
    bounds |= {"gops_int8": machine.gops_int8, "gbytes": machine.gbytes}
    for weights in WeightFormat:
        seconds, by = machine.seconds(work, weights)
        bounds[weights] = {"milliseconds": round(1000 * seconds, 3), "by": by}
    return bounds


async def measure(options: argparse.Namespace, records: PointRecords, roofline: Roofline | None) -> None:
    """Measure every point that is not recorded yet."""
    files = resolve(options.model)
    config = load_config(files)
    sides = Sides(options, files, config)
    run = Run(sides, roofline, config, options)
    try:
        for point in options.points:
            began = time.perf_counter()
            hopeless = records.slower(point, HOPELESS)
            contenders = [contender for contender in sides.at(point) if contender.name not in hopeless]
            if not records.complete(point, [contender.name for contender in contenders]):
                records.add(point, await run.point(point, contenders))
                taken = f"   [{time.perf_counter() - began:.0f} s]"
            else:
                taken = "   [was there]"
            print(line(str(point), records.points[str(point)]) + taken, flush=True)
    finally:
        await sides.close()


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=["must-show", "grid"], help="the points that targets are set for, or all")
    parser.add_argument("--points", type=Point.parse, nargs="+", help="512 is a prefill, 16x2048 a decode step")
    parser.add_argument("--peers", choices=["wanted", "all"], default="wanted", help="where peers are measured")
    parser.add_argument("--model", default="default", help="name or path")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of every contender (one a core)")
    parser.add_argument(
        "--weights", nargs="+", default=list(WeightFormat), choices=list(WeightFormat), help="of our own (all)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side at each point")
    parser.add_argument("--steps", type=int, help="decode steps in each (8 to 32)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="of the tokens (new ones)")
    parser.add_argument("--vllm", metavar="URL", help="a running vLLM server")
    parser.add_argument("--vllm-model", default="smollm2-135m", help="its model's name there")
    parser.add_argument("--vllm-group", type=int, metavar="PGID", help="its processes: stopped while others run")
    parser.add_argument("--json", type=Path, help="the results: read, added to and written after every point")
    parser.add_argument(
        "--report", type=Path, help="measure nothing; write the tables into this page, a plot beside it"
    )
    options = parser.parse_args()
    if options.points is None:
        options.points = must_show() if options.only == "must-show" else grid()
    options.points = in_order(options.points)
    return options


def main() -> None:
    """Measure, print, write."""
    options = arguments()
    records = PointRecords(options.json, "engine", seed=options.seed, model=options.model, threads=options.threads)
    if options.report:
        write_tables(records.points, options.report)
        if not plot(records.points, options.report.with_suffix(".png")):
            print("There is no picture: pip install -r benchmarks/requirements.txt", file=sys.stderr)
        return
    with contextlib.ExitStack() as stack:
        roofline = None
        with contextlib.suppress(OSError, subprocess.CalledProcessError):  # no compiler, so no bounds
            config = load_config(resolve(options.model))
            weights = Work.prefill(config, 1).weights
            roofline = stack.enter_context(Roofline(options.threads, int(2 * weights)))
        asyncio.run(measure(options, records, roofline))


if __name__ == "__main__":
    main()
