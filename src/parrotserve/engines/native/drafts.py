"""What an output is likely to go on with, because its text repeats what came before: speculative decoding by lookup.

A step that reads all weights for one row takes hardly longer for a few. So tokens that probably come next are run
along, and those that the model then chooses itself, at their own positions and with their own random numbers, are kept:
each saves a step. As a row's logits do not depend on what else is in the batch, results are the same to the byte.

The draft is what followed the last place where the text had the same few tokens (A. Saxena, Prompt Lookup Decoding,
2023), again and again if that place is the end of the text itself. Texts that quote, revise or continue what they were
given have such places, and so have models that repeat themselves.
"""

import math
from collections.abc import Sequence

_WIDTHS = (3, 2)
"""So many tokens have to be the same, the first that are found."""
_MOST = 8
"""Tokens in a draft at most."""
_PRIOR = (3.0, 2.0)
"""Hits and misses that an output is thought to have had, before it had any."""
_KEPT = 0.9
"""What of the hits and misses counts on at the next draft."""
_LEAST_LIKELY, _MOST_LIKELY = 0.01, 0.99
"""However long a record is, the next token may be another."""


class Drafter:
    """Drafts for one output, and remembers how good they were."""

    __slots__ = ("_hits", "_misses", "_text", "likelihood")

    def __init__(self) -> None:
        self._text = ""
        """A character for each token: nothing finds what was there before as fast as a string does."""
        self._hits, self._misses = _PRIOR
        self.likelihood = self._likelihood()
        """That the next token of a draft is right if those before it are."""

    def draft(self, known: Sequence[int], *, most: int, least: float) -> tuple[int, ...]:
        """At most `most` tokens that `known` may go on with, each right with a probability of `least` at least.

        `known` is what it was the last time, or longer.
        """
        count = min(most, self._worthwhile(least))
        if count > 0:
            self._text += "".join(map(chr, known[len(self._text) :]))
            start = self._find()
            if start is not None:
                period = len(known) - start
                return tuple(known[start + place % period] for place in range(count))
        return ()

    def learn(self, drafted: int, hits: int) -> None:
        """Of so many tokens the first `hits` were right."""
        self._hits = _KEPT * self._hits + hits
        self._misses = _KEPT * self._misses + (hits < drafted)
        self.likelihood = self._likelihood()

    def _likelihood(self) -> float:
        return min(max(self._hits / (self._hits + self._misses), _LEAST_LIKELY), _MOST_LIKELY)

    def _worthwhile(self, least: float) -> int:
        """Tokens up to which all are right with a probability of `least` at least."""
        if least <= 0.0:
            return _MOST
        if least >= 1.0:
            return 0
        return min(_MOST, int(math.log(least) / math.log(self.likelihood)))

    def _find(self) -> int | None:
        """The position after the last earlier place that ends like the text."""
        text = self._text
        for width in _WIDTHS:
            at = text.rfind(text[-width:], 0, len(text) - 1) if len(text) > width else -1
            if at >= 0:
                return at + width
        return None
