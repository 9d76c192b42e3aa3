"""Drafts by prompt lookup: what an output is likely to go on with, because its text repeats what came before.

This is speculative decoding without a second model. A step that reads all weights for one row takes hardly longer for a
few. So tokens that probably come next are run along, and those that the model then chooses itself, at their own
positions and with their own random numbers, are kept: each saves a step. As a row's logits do not depend on what else
is in the batch, results are the same to the byte.

The draft is what followed the last place where the text had the same few tokens as at its end (A. Saxena, Prompt Lookup
Decoding, 2023). If what followed is short, because that place is near the end, it is repeated. Texts that quote, revise
or continue what they were given have such places, and so have models that repeat themselves.

How likely a draft is right is told by how many tokens the two places have in common: after a single token one text in
six goes on alike, after a dozen nearly all do. Each output corrects these figures by what came of its own drafts.
"""

from collections.abc import Sequence

_LENGTHS = (1, 2, 3, 4, 6, 9, 14)
"""Kinds of matches: each has at least so many tokens in common, and fewer than the next kind."""
_PRIORS = ((0.3, 1.7), (1.5, 2.0), (2.5, 2.0), (4.0, 1.0), (6.0, 0.7), (8.0, 0.4), (10.0, 0.2))
"""Hits and misses that an output is credited with for each kind before it has had any: roughly what SmolLM2 has in the
benchmarks' workloads."""
_KIND = tuple(sum(length >= least for least in _LENGTHS) - 1 for length in range(_LENGTHS[-1] + 1))
"""The kind of a match, as an index into `_LENGTHS`, by its tokens in common, which are counted up to the last of
these."""
_LOOKED_FOR = 6
"""No longer matches than this are searched for: the length of one that is found is counted afterwards."""
_MOST = 8
"""Tokens in a draft at most."""
_KEPT = 0.9
"""How much of a kind's hits and misses still counts at its next one."""
_LEAST_LIKELY, _MOST_LIKELY = 0.01, 0.99
"""Bounds of likelihoods: however good a record is, the next token may be another."""


class Drafter:
    """Drafts for one output, and remembers how good they were, or would have been."""

    __slots__ = ("_likelihoods", "_matched", "_next_look", "_records", "_start", "_text")

    def __init__(self) -> None:
        self._text = ""
        """A character for each token: nothing finds what was there before as fast as a string does."""
        self._start = 0
        """Where the draft begins: behind the earlier place."""
        self._matched = 0
        """How many tokens before `_start` are those at the end of the text, counted up to the last of `_LENGTHS`; 0: no
        place is known."""
        self._next_look = 0
        """The text is not searched again before it has this length."""
        self._records = [list(prior) for prior in _PRIORS]
        """Hits and misses, by kind."""
        self._likelihoods = [hits / (hits + misses) for hits, misses in _PRIORS]
        """How likely the next token of a draft is right if those before it are, by kind."""

    def draft(self, known: Sequence[int], *, most: int, least: float) -> tuple[int, ...]:
        """At most `most` tokens that `known` may go on with; the probability that all of them are right is `least` or
        more. `known` is what it was the last time, or longer.
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
        """Takes in how the text went on. As long as it does so like the earlier place, the match moves along with it;
        both hits and misses are learned from."""
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
        """Searches for the last earlier place with as many tokens in common with the end of the text as a draft of
        likelihood `least` needs; where there are several, for one with more of them."""
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
        """How many tokens in common a draft of likelihood `least` needs; by one kind fewer, to learn whether that is
        better than thought."""
        for kind, likelihood in enumerate(self._likelihoods):
            if likelihood >= least:
                return _LENGTHS[max(kind - 1, 0)]
        return _LENGTHS[-1]

    def _worthwhile(self, most: int, least: float) -> int:
        """How many tokens, at most `most`, are all right with a probability of `least` or more."""
        together = 1.0
        for place in range(most):
            together *= self._likelihoods[_KIND[min(self._matched + place, _LENGTHS[-1])]]
            if together < least:
                return place
        return max(most, 0)


def _in_common(text: str, at: int, length: int) -> int:
    """How many tokens before the end of `text` are the same as those before `at + length`; `length` are known to be."""
    while length < _LENGTHS[-1] and at > 0 and text[at - 1] == text[-length - 1]:
        at, length = at - 1, length + 1
    return length
