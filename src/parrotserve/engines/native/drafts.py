"""Drafts by prompt lookup: guesses of an output's next tokens, for texts that repeat earlier passages.

This is speculative decoding without a second model. A step that reads all weights for one row takes hardly longer for a
few. So tokens that probably come next are computed in the same step, and kept as far as the model then chooses them
itself, at their own positions and with their own random numbers: each one kept saves a step. As a row's logits do not
depend on the rest of the batch, results are the same to the byte.

The draft is what followed the last earlier place with the same few tokens as the end of the text (A. Saxena, Prompt
Lookup Decoding, 2023). If little followed, because that place is near the end, it is repeated. Such places occur in
texts that quote, revise or continue what they were given, and with models that repeat themselves.

The number of tokens that the two places have in common shows how likely a draft is right: after a single token one text
in six goes on alike, after a dozen nearly all do. Each output corrects these figures by the results of its own drafts.
"""

from collections.abc import Sequence

_LENGTHS = (1, 2, 3, 4, 6, 9, 14)
"""Kinds of matches, by the least number of tokens in common; each kind has fewer than the next kind's least."""
_PRIORS = ((0.3, 1.7), (1.5, 2.0), (2.5, 2.0), (4.0, 1.0), (6.0, 0.7), (8.0, 0.4), (10.0, 0.2))
"""Initial hits and misses of every output, for each kind: roughly those of SmolLM2 in the benchmarks' workloads."""
_KIND = tuple(sum(length >= least for least in _LENGTHS) - 1 for length in range(_LENGTHS[-1] + 1))
"""The kind of a match, as an index into `_LENGTHS`, by its number of tokens in common, which is counted up to the last
length."""
_LOOKED_FOR = 6
"""Longest match that is searched for; the full length of a match is counted once it is found."""
_MOST = 8
"""The most tokens in a draft."""
_KEPT = 0.9
"""Factor by which a kind's earlier hits and misses decay with each further one."""
_LEAST_LIKELY, _MOST_LIKELY = 0.01, 0.99
"""Bounds of likelihoods: however good the record, the next token may differ."""


class Drafter:
    """Makes drafts for one output, and remembers how good they were, or would have been."""

    __slots__ = ("_likelihoods", "_matched", "_next_look", "_records", "_start", "_text")

    def __init__(self) -> None:
        self._text = ""
        """The tokens as a string, one character each: strings have the fastest search."""
        self._start = 0
        """Where the draft begins: directly after the earlier place."""
        self._matched = 0
        """Number of tokens before `_start` that equal those at the end of the text, counted up to the last of
        `_LENGTHS`; 0: no earlier place is known."""
        self._next_look = 0
        """Length that the text must have before it is searched again."""
        self._records = [list(prior) for prior in _PRIORS]
        """Hits and misses, by kind."""
        self._likelihoods = [hits / (hits + misses) for hits, misses in _PRIORS]
        """Probability that the next token of a draft is right if those before it are, by kind."""

    def draft(self, known: Sequence[int], *, most: int, least: float) -> tuple[int, ...]:
        """At most `most` tokens that may follow `known`; the probability that all of them are right is at least
        `least`. `known` must be that of the last call, or continue it.
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
        """Takes in the new tokens of the text. As long as they equal those after the earlier place, the match moves
        along; hits and misses are both recorded."""
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
        """Searches for the last earlier place that has as many tokens in common with the end of the text as a draft of
        likelihood `least` needs; of several, one with more tokens in common is preferred."""
        text, self._matched = self._text, 0
        needed = self._needed(least)
        # A place with that many tokens in common mostly has more: it will still be found a few tokens later.
        self._next_look = len(text) + (needed + 1) // 2
        length, end = needed, len(text) - 1
        while length <= end and (at := text.rfind(text[-length:], 0, end)) >= 0:
            self._start = at + length
            self._matched = _in_common(text, at, length)
            length = self._matched + 1
            if length > _LOOKED_FOR:
                return

    def _needed(self, least: float) -> int:
        """The number of tokens in common that a draft of likelihood `least` needs; one kind less than needed, to learn
        whether that kind is better than estimated."""
        for kind, likelihood in enumerate(self._likelihoods):
            if likelihood >= least:
                return _LENGTHS[max(kind - 1, 0)]
        return _LENGTHS[-1]

    def _worthwhile(self, most: int, least: float) -> int:
        """The largest number of tokens, at most `most`, that are all right with a probability of at least `least`."""
        together = 1.0
        for place in range(most):
            together *= self._likelihoods[_KIND[min(self._matched + place, _LENGTHS[-1])]]
            if together < least:
                return place
        return max(most, 0)


def _in_common(text: str, at: int, length: int) -> int:
    """Number of tokens before the end of `text` that equal those before `at + length`, of which `length` surely do."""
    while length < _LENGTHS[-1] and at > 0 and text[at - 1] == text[-length - 1]:
        at, length = at - 1, length + 1
    return length
