"""What an output is likely to go on with, because its text repeats what came before: speculative decoding by lookup.

A step that reads all weights for one row takes hardly longer for a few. So tokens that probably come next are run
along, and those that the model then chooses itself, at their own positions and with their own random numbers, are kept:
each saves a step. As a row's logits do not depend on what else is in the batch, results are the same to the byte.

The draft is what followed the last place where the text had the same few tokens (A. Saxena, Prompt Lookup Decoding,
2023), again and again if that place is the end of the text itself. Texts that quote, revise or continue what they were
given have such places, and so have models that repeat themselves. How likely a draft is right is told by how many
tokens the two places have in common: one in six goes on alike where it is a single token, nearly all do where it is a
dozen. Each output corrects that by what came of its own.
"""

from collections.abc import Sequence

_LENGTHS = (1, 2, 3, 4, 6, 9, 14)
"""Tokens in common from which on matches count as of a kind."""
_PRIORS = ((0.3, 1.7), (1.5, 2.0), (2.5, 2.0), (4.0, 1.0), (6.0, 0.7), (8.0, 0.4), (10.0, 0.2))
"""Hits and misses that an output is thought to have had with each kind, before it had any: what SmolLM2 has in the
benchmarks' workloads, roughly."""
_KIND = tuple(sum(length >= least for least in _LENGTHS) - 1 for length in range(_LENGTHS[-1] + 1))
"""By tokens in common, counted up to the last of `_LENGTHS`: the place of their kind there."""
_LOOKED_FOR = 6
"""A match of so many tokens is as good as a longer one: it is found, and its length is counted then."""
_MOST = 8
"""Tokens in a draft at most."""
_KEPT = 0.9
"""What of a kind's hits and misses counts on at its next one."""
_LEAST_LIKELY, _MOST_LIKELY = 0.01, 0.99
"""However long a record is, the next token may be another."""


class Drafter:
    """Drafts for one output, and remembers how good they were, or would have been."""

    __slots__ = ("_likelihoods", "_matched", "_next_look", "_records", "_start", "_text")

    def __init__(self) -> None:
        self._text = ""
        """A character for each token: nothing finds what was there before as fast as a string does."""
        self._start = 0
        """Where the earlier place goes on."""
        self._matched = 0
        """How many tokens before `_start` are those at the end of the text, at most as many as are told apart."""
        self._next_look = 0
        """The length of text from which on it is looked through again."""
        self._records = [list(prior) for prior in _PRIORS]
        """Hits and misses, by kind."""
        self._likelihoods = [hits / (hits + misses) for hits, misses in _PRIORS]
        """That the next token of a draft is right if those before it are, by kind."""

    def draft(self, known: Sequence[int], *, most: int, least: float) -> tuple[int, ...]:
        """At most `most` tokens that `known` may go on with, all right with a probability of `least` at least.

        `known` is what it was the last time, or longer.
        """
        if not self._matched and len(known) < self._next_look:
            return ()
        self._read(known)
        if self._matched < _LOOKED_FOR:
            self._look(least)
        if not self._matched:
            return ()
        count, period = self._worthwhile(min(most, _MOST), least), len(known) - self._start
        return tuple(known[self._start + place % period] for place in range(count))

    def _read(self, known: Sequence[int]) -> None:
        """Learns from how the text went on, and goes along as far as it did so as in the earlier place."""
        before = len(self._text)
        self._text = text = self._text + "".join(map(chr, known[before:]))
        place = before
        while self._matched and place < len(text):
            right = text[self._start] == text[place]
            self._learn(_KIND[self._matched], right)
            self._matched = min(self._matched + 1, _LENGTHS[-1]) if right else 0
            self._start, place = self._start + 1, place + 1

    def _learn(self, kind: int, right: bool) -> None:
        record = self._records[kind]
        record[0] = _KEPT * record[0] + right
        record[1] = _KEPT * record[1] + (not right)
        self._likelihoods[kind] = min(max(record[0] / (record[0] + record[1]), _LEAST_LIKELY), _MOST_LIKELY)

    def _look(self, least: float) -> None:
        """Looks for the last earlier place that has the most tokens in common with the end of the text, of those that
        have as many as a draft of `least` needs."""
        text, self._matched = self._text, 0
        needed = self._needed(least)
        # A place with so many tokens in common has mostly some more: it is still found a token or a few later.
        self._next_look = len(text) + (needed + 1) // 2
        length, end = needed, len(text) - 1
        while length <= end and (at := text.rfind(text[-length:], 0, end)) >= 0:
            self._start = at + length
            self._matched = _in_common(text, at, length)
            length = self._matched + 1
            if length > _LOOKED_FOR:
                return

    def _needed(self, least: float) -> int:
        """Tokens in common from which on a draft may be worth it; and one kind less, to see whether it is better than
        thought."""
        for kind, likelihood in enumerate(self._likelihoods):
            if likelihood >= least:
                return _LENGTHS[max(kind - 1, 0)]
        return _LENGTHS[-1]

    def _worthwhile(self, most: int, least: float) -> int:
        """Tokens up to which all are right with a probability of `least` at least."""
        together = 1.0
        for place in range(most):
            together *= self._likelihoods[_KIND[min(self._matched + place, _LENGTHS[-1])]]
            if together < least:
                return place
        return max(most, 0)


def _in_common(text: str, at: int, length: int) -> int:
    """How many tokens before the end of `text` are the same as before `at + length`, where `length` are known to be."""
    while length < _LENGTHS[-1] and at > 0 and text[at - 1] == text[-length - 1]:
        at, length = at - 1, length + 1
    return length
