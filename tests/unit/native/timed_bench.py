"""An engine's core on a virtual clock, whose steps take as long as what they hold says."""

import math
from itertools import pairwise

from token_backend import Bench, fill, generate

from parrotserve.criteria import Objective, Precedence
from parrotserve.engines.base import SequenceEnded, TokensGenerated
from parrotserve.engines.native.backend import StepBatch
from parrotserve.step_cost import FEW_ROWS


class Timed(Bench):
    """A bench whose steps read for `start` seconds, and compute for 0.2 ms a row."""

    def __init__(self, *, start: float = 0.005, few: float | None = None, **settings: object) -> None:
        """`few`: the seconds for which steps of few rows read, before they compute, if they are not as others."""
        super().__init__(**{"pages": 4096, **settings})  # type: ignore[arg-type]
        self.step_seconds = 0.0
        self._start = start
        self._few = few
        self.backend.on_step = self._take_time
        self.told: dict[str, list[float]] = {}
        """When each sequence's tokens came, of those that are streamed."""
        self.ends: dict[str, float] = {}

    def _take_time(self, batch: StepBatch) -> None:
        rows = len(batch.tokens)
        if self._few is not None and rows <= FEW_ROWS:
            self.time += self._few + 0.0002 * rows
        else:
            self.time += math.hypot(self._start, 0.0002 * rows)

    def step(self) -> list[object]:  # type: ignore[override]
        events = super().step()
        for event in events:
            if isinstance(event, TokensGenerated):
                self.told.setdefault(event.sequence, []).extend([self.time] * len(event.tokens))
            if isinstance(event, SequenceEnded):
                self.ends[event.sequence] = self.time
        return list(events)

    def warm_up(self) -> None:
        """So that the model has seen both kinds of work, and one sequence alone."""
        for place in range(4):
            self.open(f"warm {place}", fill("w" * 300 + str(place)), generate(10 - 2 * place, ignore_eos=True))
        self.run()

    def gaps(self, name: str) -> list[float]:
        return [after - before for before, after in pairwise(self.told[name])]

    def work(
        self,
        name: str,
        *,
        objective: Objective,
        prompt: str = "",
        tokens: int = 100,
        place: int = 0,
        stages: int = 0,
        stream: bool = True,
        salt: str = "",
    ) -> None:
        segments = fill(prompt or "prompt of " + name), generate(tokens, ignore_eos=True, stream=stream)
        self.open(name, *segments, objective=objective, precedence=Precedence(place, stages=stages), salt=salt)

    def ended_at(self, names: str) -> float:
        """When the last of all those ended whose names begin so."""
        return max(time for name, time in self.ends.items() if name.startswith(names))
