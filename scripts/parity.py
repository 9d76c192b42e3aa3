"""Compares the native engine's greedy tokens with those of transformers (tests/data/golden/greedy.json).

A token may differ only if the logits of the two likeliest tokens were closer than `CLOSE`. After a difference the
sequence continues from the expected tokens, so that every step of every prompt is compared.
"""

import json
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypedDict

from parrotserve.engines.base import EndStatus, Extend, Fill, Generate, Open, SegmentFinished, SequenceEnded
from parrotserve.engines.native.build import build_engine
from parrotserve.engines.native.loop import NativeCore
from parrotserve.engines.native.settings import DEFAULT_PREFILL_CHUNK, BackendName, Launch, NativeSettings
from parrotserve.ids import RequestId, new_id
from parrotserve.models.files import ModelFiles
from parrotserve.sampling import Sampling

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "data" / "golden" / "greedy.json"
CLOSE = 1e-3
BATCH = 16


class Next(TypedDict):
    """Greedy tokens after a prompt, and how much the logit of each exceeds that of the second likeliest."""

    tokens: list[int]
    gaps: list[float]


class Golden(TypedDict):
    """The contents of the file that golden.py writes."""

    shared: list[int]
    prompts: list[list[int]]
    alone: list[Next]
    """What follows each prompt."""
    behind_shared: list[Next]
    """What follows each prompt if `shared` precedes it."""


class Setting(StrEnum):
    """With which others prompts run."""

    ALONE = "alone"
    MIXED = "in a mixed batch of 16"
    SHARING = "behind a shared prefix of 500 tokens, in a batch of 16"


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How an engine computes. Nothing of this may change a text."""

    prefill_chunk: int = DEFAULT_PREFILL_CHUNK
    group: bool = True
    late: bool = False
    """Whether the second half of each prompt arrives only after its first step."""

    def __str__(self) -> str:
        words = [f"chunks of {self.prefill_chunk}", "" if self.group else "not grouped", "late" if self.late else ""]
        return ", ".join(filter(None, words))


@dataclass(frozen=True)
class Difference:
    """A step at which the engine chose another token than expected."""

    prompt: int
    step: int
    expected: int
    found: int
    gap: float

    @property
    def allowed(self) -> bool:
        """Whether rounding explains the difference."""
        return self.gap < CLOSE

    def __str__(self) -> str:
        verdict = "a near tie" if self.allowed else "NOT a near tie"
        return f"prompt {self.prompt}, step {self.step}: {self.found}, not {self.expected}; gap {self.gap}: {verdict}"


def read_golden() -> Golden:
    """The committed expectations."""
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def excerpt(golden: Golden, prompts: Iterable[int], tokens: int) -> Golden:
    """An excerpt with these prompts only, and the first `tokens` tokens after each."""
    chosen = list(prompts)

    def cut(entries: Sequence[Next]) -> list[Next]:
        return [Next(tokens=entries[n]["tokens"][:tokens], gaps=entries[n]["gaps"][:tokens]) for n in chosen]

    return Golden(
        shared=golden["shared"],
        prompts=[golden["prompts"][n] for n in chosen],
        alone=cut(golden["alone"]),
        behind_shared=cut(golden["behind_shared"]),
    )


def reference_engine(files: ModelFiles, manner: Manner = Manner()) -> NativeCore:
    """The engine's loop with the float32 backend, in this process."""
    settings = NativeSettings(backend=BackendName.REFERENCE, prefill_chunk=manner.prefill_chunk, group=manner.group)
    launch = Launch(model=files.name, path=str(files.path), format=files.format, settings=settings)
    return build_engine(launch)[1]


def compare(core: NativeCore, golden: Golden, setting: Setting, *, late: bool = False) -> list[Difference]:
    """All differences of the prompts in one setting. Raises RuntimeError if a sequence fails."""
    prompts = golden["prompts"]
    if setting is Setting.SHARING:
        return _Comparison(core, prompts, golden["behind_shared"], shared=golden["shared"], late=late).run(BATCH)
    return _Comparison(core, prompts, golden["alone"], late=late).run(BATCH if setting is Setting.MIXED else 1)


class _Comparison:
    def __init__(
        self,
        core: NativeCore,
        prompts: Sequence[Sequence[int]],
        expected: Sequence[Next],
        *,
        shared: Sequence[int] = (),
        late: bool = False,
    ) -> None:
        self._core = core
        self._prompts = prompts
        self._expected = expected
        self._shared = tuple(shared)
        self._late = late
        self._owed: list[Extend] = []
        """Late content for segments of sequences that are open already."""
        self._id = new_id("comparison")  # an engine runs each (sequence, epoch) once
        self._differences: list[Difference] = []
        self._compared: dict[int, int] = {}
        """Number of steps of each prompt that have been compared."""

    def run(self, batch: int) -> list[Difference]:
        waiting = deque(range(len(self._prompts)))
        open_now: set[int] = set()
        while waiting or open_now:
            while waiting and len(open_now) < batch:
                open_now.add(waiting[0])
                self._open(waiting.popleft())
            owed, self._owed = self._owed, []
            events = self._core.step()
            for content in owed:
                self._core.handle(content)
            for event in events:
                if isinstance(event, SegmentFinished):
                    self._compare(_prompt(event.sequence), event.tokens)
                elif isinstance(event, SequenceEnded):
                    prompt = _prompt(event.sequence)
                    if event.status is not EndStatus.DONE:
                        raise RuntimeError(f"Prompt {prompt} ended as {event.status}: {event.error}")
                    open_now.discard(prompt)
                    if self._compared[prompt] < len(self._expected[prompt]["tokens"]):
                        waiting.appendleft(prompt)
        return self._differences

    def _open(self, prompt: int) -> None:
        entry = self._expected[prompt]
        done = self._compared.get(prompt, 0)
        sampling = Sampling(max_tokens=len(entry["tokens"]), ignore_eos=True)
        name = RequestId(f"{self._id}:{prompt}")
        content = tuple(self._prompts[prompt])
        fills = [Fill(tokens=self._shared)] if self._shared else []
        if self._late:
            half = len(content) // 2
            fills.append(Fill(tokens=content[:half]))
            self._owed.append(Extend(sequence=name, epoch=done + 1, segment=len(fills), tokens=content[half:]))
        # Different salts keep prompts that should run as if alone from sharing KV. A new epoch lets a prompt continue
        # after a difference.
        self._core.handle(
            Open(
                sequence=name,
                epoch=done + 1,
                segments=(
                    *fills,
                    Fill() if self._late else Fill(tokens=content),
                    Generate(sampling=sampling, delivered=tuple(entry["tokens"][:done])),
                ),
                salt=self._id if self._shared else f"{self._id}:{prompt}",
            )
        )

    def _compare(self, prompt: int, tokens: Sequence[int]) -> None:
        entry = self._expected[prompt]
        for step, (expected, found) in enumerate(zip(entry["tokens"], tokens, strict=True)):
            if found != expected:
                self._differences.append(Difference(prompt, step, expected, found, entry["gaps"][step]))
                self._compared[prompt] = step + 1
                return
        self._compared[prompt] = len(tokens)


def _prompt(sequence: RequestId) -> int:
    return int(sequence.rpartition(":")[2])


def describe(setting: Setting, golden: Golden, differences: Sequence[Difference]) -> str:
    """The result in one setting as text."""
    lines = [f"{len(golden['prompts'])} prompts {setting}: {len(differences)} differences", *map(str, differences)]
    return "\n  ".join(lines)
