"""What the native engine's loop costs between two steps: planning, the batch, sampling, text, events, their frame.

The backend here costs nothing: it computes no model and says made-up logits, so that all time but its own is the
loop's. Sequences stream, share a prefix, and decode greedily, as most do; the tokenizer is the default model's.

    python benchmarks/loop.py [--steps 300] [--batches 1 16 64] [--profile]

Prints milliseconds a step, medians, of wall time and of the loop's own thread.
"""

import argparse
import cProfile
import statistics
import time

import numpy as np

from parrotserve.engines.base import Event, Fill, Generate, Open
from parrotserve.engines.frames import Events, encode
from parrotserve.engines.native.backend import StepBatch
from parrotserve.engines.native.cache import KvCache
from parrotserve.engines.native.logits import WholeLogits
from parrotserve.engines.native.loop import NativeCore
from parrotserve.engines.native.settings import PAGE_TOKENS, CoreSettings
from parrotserve.ids import RequestId
from parrotserve.models.registry import resolve
from parrotserve.models.tokenizer import Tokenizer, load_tokenizer
from parrotserve.sampling import Sampling

PAGES = 8192
SHARED_TOKENS, OWN_TOKENS = 2048, 64


class FreeBackend:
    """Says a pseudo-random token for every output; its own time is counted, to be taken off."""

    page_tokens = PAGE_TOKENS

    def __init__(self, vocabulary: int) -> None:
        self.wall = self.thread = 0.0
        self._random = np.random.default_rng(0)
        self._vocabulary = vocabulary

    def step(self, batch: StepBatch) -> WholeLogits:
        """One spike a row."""
        wall, thread = time.perf_counter(), time.thread_time()
        rows = np.zeros((len(batch.logit_rows), 64), dtype=np.float32)
        logits = WholeLogits(rows)
        logits.likeliest = self._random.integers(100, self._vocabulary, len(rows)).astype(np.int32)
        self.wall += time.perf_counter() - wall
        self.thread += time.thread_time() - thread
        return logits


class Run:
    """One batch of sequences, decoding."""

    def __init__(self, tokenizer: Tokenizer, batch: int, steps: int) -> None:
        self.backend = FreeBackend(tokenizer.vocabulary_size)
        settings = CoreSettings(context_length=8192, prefill_chunk=1 << 20, align_tokens=256)
        self.core = NativeCore(self.backend, KvCache(PAGES, PAGE_TOKENS), tokenizer, settings)
        output = Generate(sampling=Sampling(max_tokens=steps + 200, ignore_eos=True), stream=True)
        for index in range(batch):
            prompt = (*range(100, 100 + SHARED_TOKENS), *range(3000 + index, 3000 + index + OWN_TOKENS))
            segments = (Fill(tokens=prompt), output)
            self.core.handle(Open(sequence=RequestId(f"r{index}"), epoch=1, segments=segments, salt=""))
        for _ in range(100):
            self.step()

    def step(self) -> tuple[float, float]:
        """The loop's seconds of one step: wall, thread."""
        wall, thread = time.perf_counter(), time.thread_time()
        backend_wall, backend_thread = self.backend.wall, self.backend.thread
        assert not self.core.idle
        events: list[Event] = self.core.step()
        encode(Events(events))
        return (
            time.perf_counter() - wall - (self.backend.wall - backend_wall),
            time.thread_time() - thread - (self.backend.thread - backend_thread),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 16, 64])
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    tokenizer = load_tokenizer(resolve("default"))
    print("batch  wall ms  thread ms  (a step without its backend, medians)")
    for batch in options.batches:
        run = Run(tokenizer, batch, options.steps)
        profile = cProfile.Profile()
        if options.profile:
            profile.enable()
        wall, thread = zip(*[run.step() for _ in range(options.steps)], strict=True)
        profile.disable()
        print(f"{batch:5d}  {1e3 * statistics.median(wall):7.3f}  {1e3 * statistics.median(thread):9.3f}")
        if options.profile:
            profile.print_stats("tottime")


if __name__ == "__main__":
    main()
