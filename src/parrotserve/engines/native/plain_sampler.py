"""The next tokens of outputs that ask for nothing special: with few operations, however many they are.

Such an output is greedy, or draws from the model's own logits; it has no penalty, bias, ban, grammar or
log-probabilities. Which outputs do which does not change while they go on, so what the backend needs to know is
gathered once for many steps. All others are up to `sampler`.
"""

from collections.abc import Sequence

import numpy as np

from parrotserve.engines.native.logits import DrawSettings, Logits
from parrotserve.engines.native.output import Output


class PlainSampler:
    """Chooses tokens for the same outputs, step after step."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        """`outputs`: that of each row. One that is there several times, in neighbouring rows, has a draft: its next
        tokens are chosen as if that were right."""
        self._drawn = [row for row, output in enumerate(outputs) if output.is_plain_random]
        self._special = [row for row, output in enumerate(outputs) if not output.is_plain]
        self._outputs = [outputs[row] for row in self._drawn]
        self._ahead = [_before(outputs, row) for row in self._drawn]
        self._settings = DrawSettings(self._drawn, [output.sampling for output in self._outputs])
        self._positions = np.empty(len(self._drawn), dtype=np.int32)
        self._places = self._positions.data

    @property
    def is_reusable(self) -> bool:
        """Whether the next step can use it again: whether all of these outputs are plain, which they stay."""
        return not self._special

    def tokens(self, logits: Logits) -> list[int | None]:
        """The next token of every row; None where its output is not plain, or the backend cannot tell it for sure."""
        tokens: list[int | None] = logits.likeliest.tolist()
        for row in self._special:
            tokens[row] = None
        if self._drawn:
            for place, (output, ahead) in enumerate(zip(self._outputs, self._ahead, strict=True)):
                self._places[place] = len(output.tokens) + ahead
            for row, token in zip(self._drawn, logits.draw(self._settings, self._positions), strict=True):
                tokens[row] = token
        return tokens


def _before(outputs: Sequence[Output], row: int) -> int:
    """How many rows of the same output are before this one."""
    first = row
    while first and outputs[first - 1] is outputs[row]:
        first -= 1
    return row - first
