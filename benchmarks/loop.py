"""What the native engine's loop costs between two steps: planning, the batch, sampling, text, events, their frame.

The backend here costs nothing: it computes no model and says made-up logits, so that all time but its own is the
loop's. Sequences stream, share a prefix, and decode greedily, as most do; the tokenizer is the default model's.

    python benchmarks/loop.py [--steps 300] [--batches 1 16 64] [--profile]
    python benchmarks/loop.py --real [--temperature 0.8 --top-p 0.95]

With `--real` the kernels run the default model, whose steps leave the caches with nothing of the loop in them: that is
what it costs in use. Choosing tokens from the logits counts as the loop's, though the kernels do most of it.
Prints milliseconds a step, medians, of wall time and of the loop's own thread, and what of the former the kernels draw.
"""

import argparse
import cProfile
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from parrotserve.engines.base import Event, Fill, Generate, Open
from parrotserve.engines.frames import Events, encode
from parrotserve.engines.native.backend import StepBatch
from parrotserve.engines.native.cache import KvCache
from parrotserve.engines.native.kernels import KernelsBackend
from parrotserve.engines.native.logits import Candidates, DrawSettings, IntArray, Logits, WholeLogits
from parrotserve.engines.native.loop import NativeCore
from parrotserve.engines.native.settings import PAGE_TOKENS, CoreSettings, usable_cores
from parrotserve.ids import RequestId
from parrotserve.models.config import load_config
from parrotserve.models.files import ModelFiles
from parrotserve.models.registry import resolve
from parrotserve.models.tokenizer import Tokenizer, load_tokenizer
from parrotserve.models.weights import load_weights
from parrotserve.sampling import Sampling

PAGES = 8192
SHARED_TOKENS, OWN_TOKENS = 2048, 64


class FreeBackend:
    """Returns a pseudo-random token for every output. Its own time is counted, to be subtracted."""

    page_tokens = PAGE_TOKENS

    def __init__(self, vocabulary: int) -> None:
        self.wall = self.thread = self.drawing = 0.0
        self._random = np.random.default_rng(0)
        self._vocabulary = vocabulary

    def step(self, batch: StepBatch) -> WholeLogits:
        """Random likeliest tokens, with logits that are all zero."""
        wall, thread = time.perf_counter(), time.thread_time()
        rows = np.zeros((len(batch.logit_rows), 64), dtype=np.float32)
        logits = WholeLogits(rows)
        logits.likeliest = self._random.integers(100, self._vocabulary, len(rows)).astype(np.int32)
        self.wall += time.perf_counter() - wall
        self.thread += time.thread_time() - thread
        return logits


class TimedBackend:
    """The kernels. Their own time is counted, to be subtracted."""

    page_tokens = PAGE_TOKENS

    def __init__(self, files: ModelFiles) -> None:
        config = load_config(files)
        self._kernels = KernelsBackend(
            load_weights(files, config, four_bit=True), config, pages=PAGES, threads=usable_cores()
        )
        self.wall = self.thread = self.drawing = 0.0

    def step(self, batch: StepBatch) -> Logits:
        """The kernels' step."""
        wall, thread = time.perf_counter(), time.thread_time()
        logits = TimedLogits(self, self._kernels.step(batch))
        self.wall += time.perf_counter() - wall
        self.thread += time.thread_time() - thread
        return logits


class TimedLogits:
    """The kernels' logits. The time that drawing takes is counted."""

    def __init__(self, backend: TimedBackend, logits: Logits) -> None:
        self._backend, self._logits = backend, logits
        self.rows, self.likeliest, self.highest = logits.rows, logits.likeliest, logits.highest

    def candidates(self, outputs: Sequence[int], scales: Sequence[float]) -> Candidates:
        """The kernels' candidates."""
        return self._logits.candidates(outputs, scales)

    def draw(self, settings: DrawSettings, positions: IntArray) -> list[int | None]:
        """The kernels' draw."""
        began = time.perf_counter()
        tokens = self._logits.draw(settings, positions)
        self._backend.drawing += time.perf_counter() - began
        return tokens


class Run:
    """One batch of sequences that decode."""

    def __init__(
        self, backend: FreeBackend | TimedBackend, tokenizer: Tokenizer, batch: int, sampling: Sampling
    ) -> None:
        self.backend = backend
        settings = CoreSettings(context_length=8192, prefill_chunk=1 << 20, align_tokens=256)
        self.core = NativeCore(self.backend, KvCache(PAGES, PAGE_TOKENS), tokenizer, settings)
        for index in range(batch):
            output = Generate(sampling=replace(sampling, seed=index), stream=True)
            prompt = (*range(100, 100 + SHARED_TOKENS), *range(3000 + index, 3000 + index + OWN_TOKENS))
            segments = (Fill(tokens=prompt), output)
            self.core.handle(Open(sequence=RequestId(f"r{index}"), epoch=1, segments=segments, salt=""))
        while self.core.heartbeat().waiting or self.core.heartbeat().steps < 100:
            self.step()

    def step(self) -> tuple[float, float, float]:
        """The loop's own seconds in one step: wall time, time of its thread, and the part of wall time for drawing."""
        wall, thread = time.perf_counter(), time.thread_time()
        backend_wall, backend_thread, drawing = self.backend.wall, self.backend.thread, self.backend.drawing
        assert not self.core.idle
        events: list[Event] = self.core.step()
        encode(Events(events))
        return (
            time.perf_counter() - wall - (self.backend.wall - backend_wall),
            time.thread_time() - thread - (self.backend.thread - backend_thread),
            self.backend.drawing - drawing,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 16, 64])
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--real", action="store_true", help="over the kernels and the default model")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    options = parser.parse_args()
    files = resolve("default")
    tokenizer = load_tokenizer(files)
    # A step may produce nine tokens if a text repeats itself. No sequence should end during the measurement.
    sampling = Sampling(
        max_tokens=9 * (options.steps + 200), ignore_eos=True, temperature=options.temperature, top_p=options.top_p
    )
    print("batch  wall ms  thread ms  drawing ms  (a step without its backend, medians)")
    for batch in options.batches:
        backend = TimedBackend(files) if options.real else FreeBackend(tokenizer.vocabulary_size)
        run = Run(backend, tokenizer, batch, sampling)
        profile = cProfile.Profile()
        if options.profile:
            profile.enable()
        taken = zip(*[run.step() for _ in range(options.steps)], strict=True)
        wall, thread, drawing = (1e3 * statistics.median(each) for each in taken)
        profile.disable()
        print(f"{batch:5d}  {wall:7.3f}  {thread:9.3f}  {drawing:10.3f}")
        if options.profile:
            profile.print_stats("tottime")


if __name__ == "__main__":
    main()
