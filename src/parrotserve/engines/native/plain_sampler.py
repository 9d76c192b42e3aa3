"""The next tokens of plain outputs: with few operations, however many outputs there are.

A plain output is greedy, or draws from the model's own logits; it has no penalty, bias, ban, grammar or
log-probabilities. This does not change while the output goes on, so the backend's settings are gathered once for many
steps. All others are left to `sampler`.
"""

from collections.abc import Sequence

import numpy as np

from parrotserve.engines.native.logits import DrawSettings, Logits
from parrotserve.engines.native.output import OutputState


class PlainSampler:
    """Chooses tokens for the same outputs, step after step."""

    def __init__(self, outputs: Sequence[OutputState]) -> None:
        """`outputs`: the output of each row. One that appears in several neighbouring rows has a draft: its tokens are
        chosen as if the draft were right."""
        self._drawn = [row for row, output in enumerate(outputs) if output.is_plain_random]
        self._special = [row for row, output in enumerate(outputs) if not output.is_plain]
        self._outputs = [outputs[row] for row in self._drawn]
        self._ahead = [_before(outputs, row) for row in self._drawn]
        self._settings = DrawSettings(self._drawn, [output.sampling for output in self._outputs])
        self._positions = np.empty(len(self._drawn), dtype=np.int32)
        self._places = self._positions.data

    @property
    def is_reusable(self) -> bool:
        """Whether the next step can use it again: all of its outputs must be plain, as these stay plain."""
        return not self._special

    def tokens(self, logits: Logits) -> list[int | None]:
        """The next token of every row; None if its output is not plain, or the backend cannot determine it for sure."""
        tokens: list[int | None] = logits.likeliest.tolist()
        for row in self._special:
            tokens[row] = None
        if self._drawn:
            for place, (output, ahead) in enumerate(zip(self._outputs, self._ahead, strict=True)):
                self._places[place] = len(output.tokens) + ahead
            for row, token in zip(self._drawn, logits.draw(self._settings, self._positions), strict=True):
                tokens[row] = token
        return tokens


def _before(outputs: Sequence[OutputState], row: int) -> int:
    """Number of rows of the same output directly before this one."""
    first = row
    while first and outputs[first - 1] is outputs[row]:
        first -= 1
    return row - first
