"""A backend that remembers tokens instead of KV: its logits depend on exactly the tokens a row may attend to.

One wrong page, slot, span or position changes everything after it; batching, chunking and grouping change nothing.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from parrotserve.aside import Doing, at_once
from parrotserve.criteria import NO_PRECEDENCE, Objective, Precedence
from parrotserve.engines.base import (
    EndStatus,
    Event,
    Extend,
    Fill,
    Generate,
    Open,
    SegmentFinished,
    SequenceEnded,
    StepsTimed,
    TokensGenerated,
)
from parrotserve.engines.fake_tokenizer import FakeTokenizer
from parrotserve.engines.native.backend import StepBatch
from parrotserve.engines.native.cache import KvCache, NaiveCache
from parrotserve.engines.native.logits import FloatArray, Logits, WholeLogits
from parrotserve.engines.native.loop import NativeCore
from parrotserve.engines.native.settings import CoreSettings
from parrotserve.ids import RequestId
from parrotserve.sampling import Sampling

PAGE = 4
VOCABULARY = 258
TOKENIZER = FakeTokenizer()

Model = Callable[[tuple[int, ...]], FloatArray]


def hashed(context: tuple[int, ...]) -> FloatArray:
    """Arbitrary logits, the same for the same tokens; lower-case letters and the end of turn are likely."""
    digest = hashlib.blake2b(repr(context).encode(), digest_size=8).digest()
    logits = np.random.default_rng(int.from_bytes(digest, "big")).standard_normal(VOCABULARY).astype(np.float32)
    logits[ord("a") : ord("z") + 1] += 6
    logits[256] += 3
    logits[257] -= 100
    return logits


def forgetful(context: tuple[int, ...]) -> FloatArray:
    """As `hashed`, of the last two tokens alone: what the likeliest tokens make repeats itself before long."""
    return hashed(context[-2:])


def reciting(text: str) -> Model:
    """Generates `text` after any prompt of which it is no part, byte by byte, then ends its turn."""
    script = [*text.encode(), 256]

    def logits(context: tuple[int, ...]) -> FloatArray:
        said = max(n for n in range(len(script)) if n == 0 or list(context[-n:]) == script[:n])
        row = np.zeros(VOCABULARY, dtype=np.float32)
        row[script[said]] = 10
        return row

    return logits


class TokenBackend:
    def __init__(self, *, pages: int, model: Model = hashed) -> None:
        self.page_tokens = PAGE
        self.steps: list[StepBatch] = []
        self.on_step: Callable[[StepBatch], None] = lambda batch: None
        self._memory = np.full((pages, PAGE), -1)
        self._model = model

    @property
    def computed_rows(self) -> int:
        return sum(len(batch.tokens) for batch in self.steps)

    def step(self, batch: StepBatch) -> Logits:
        copied = {name: getattr(batch, name).copy() for name in ("tokens", "positions", "slots")}
        self.steps.append(replace(batch, **copied))
        self.on_step(batch)
        assert len(set(batch.slots.tolist())) == len(batch.slots), "two rows write the same slot"
        self._memory.reshape(-1)[batch.slots] = batch.tokens
        rows = [self._model(self._context(batch, int(row))) for row in batch.logit_rows]
        return WholeLogits(np.stack(rows) if rows else np.zeros((0, VOCABULARY), dtype=np.float32))

    def _context(self, batch: StepBatch, row: int) -> tuple[int, ...]:
        context: dict[int, int] = {}
        spans = batch.spans
        for index, (first, last) in enumerate(spans.rows):
            if not first <= row < last:
                continue
            pages = spans.pages[spans.page_starts[index] : spans.page_starts[index + 1]]
            start, count = spans.keys[index]
            stop = min(count, batch.positions[row] + 1 - start) if spans.causal[index] else count
            tokens = self._memory[pages].reshape(-1)[:stop]
            for place, token in enumerate(tokens.tolist()):
                assert start + place not in context, "a row attends to a position twice"
                context[start + place] = token
        assert sorted(context) == list(range(batch.positions[row] + 1)), "a row misses positions"
        return tuple(context[place] for place in sorted(context))


class Bench:
    """A core with its parts in reach, and short words for what tests do with it."""

    def __init__(
        self,
        *,
        pages: int = 256,
        model: Model = hashed,
        context: int | None = None,
        share: bool = True,
        doing: Doing = at_once,
        **settings: int | bool,
    ) -> None:
        self.backend = TokenBackend(pages=pages, model=model)
        self.cache = KvCache(pages, PAGE) if share else NaiveCache(pages, PAGE)
        self.time = 0.0
        self.step_seconds = 0.5
        self.core = NativeCore(
            self.backend,
            self.cache,
            TOKENIZER,
            CoreSettings(context_length=context or pages * PAGE, share=share, **settings),  # type: ignore[arg-type]
            clock=self._clock,
            doing=doing,
        )
        self.events: list[Event] = []
        """All but the times of steps."""
        self.times: list[StepsTimed] = []

    def _clock(self) -> float:
        self.time += self.step_seconds
        return self.time

    def open(
        self,
        name: str,
        *segments: Fill | Generate,
        epoch: int = 1,
        salt: str = "",
        public: int = 0,
        objective: Objective = Objective.LATENCY,
        precedence: Precedence = NO_PRECEDENCE,
    ) -> None:
        self.core.handle(
            Open(
                sequence=RequestId(name),
                epoch=epoch,
                segments=tuple(segments),
                salt=salt,
                public=public,
                objective=objective,
                precedence=precedence,
            )
        )

    def extend(self, name: str, segment: int, text: str, *, offset: int = 0, last: bool = True) -> None:
        tokens = tuple(TOKENIZER.encode(text))
        self.core.handle(
            Extend(sequence=RequestId(name), epoch=1, segment=segment, offset=offset, tokens=tokens, last=last)
        )

    def step(self) -> list[Event]:
        told = self.core.step()
        self.cache.check_integrity()
        self.times += [event for event in told if isinstance(event, StepsTimed)]
        events: list[Event] = [event for event in told if not isinstance(event, StepsTimed)]
        self.events += events
        return events

    def run(self, *, steps: int = 5000) -> list[Event]:
        """Steps until nothing is left to do."""
        for _ in range(steps):
            if self.core.idle:
                return self.events
            self.step()
        raise AssertionError(f"still busy after {steps} steps")

    def finished(self, name: str) -> list[SegmentFinished]:
        return [event for event in self.events if isinstance(event, SegmentFinished) and event.sequence == name]

    def text(self, name: str, index: int = 0) -> str:
        return self.finished(name)[index].text

    def ended(self, name: str) -> SequenceEnded:
        (event,) = [event for event in self.events if isinstance(event, SequenceEnded) and event.sequence == name]
        return event

    def status(self, name: str) -> EndStatus:
        return self.ended(name).status


def fill(text: str) -> Fill:
    return Fill(tokens=tuple(TOKENIZER.encode(text)))


def late() -> Fill:
    return Fill()


def generate(
    max_tokens: int = 12, *, stream: bool = False, delivered: Sequence[int] = (), **sampling: object
) -> Generate:
    return Generate(
        sampling=Sampling(max_tokens=max_tokens, **sampling),  # type: ignore[arg-type]
        stream=stream,
        delivered=tuple(delivered),
    )


def alone(*segments: object, **settings: object) -> str:
    """The text of a sequence that nothing runs beside."""
    bench = Bench(**settings)  # type: ignore[arg-type]
    bench.open("alone", *segments)  # type: ignore[arg-type]
    bench.run()
    return bench.text("alone")


def streamed(bench: Bench, name: str = "a") -> list[TokensGenerated]:
    """What was told of a sequence while it ran."""
    return [event for event in bench.events if isinstance(event, TokensGenerated) and event.sequence == name]
