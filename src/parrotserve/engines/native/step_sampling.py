"""From a step's logits to the next tokens of its sequences.

Plain outputs get their tokens from `plain_sampler`, all at once; the others put a question (`Draw`) to `sampler` for
each of their rows. An error in an output ends its sequence only.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile

from parrotserve.engines.native.draw import Draw
from parrotserve.engines.native.logits import Logits
from parrotserve.engines.native.persistent_batch import BuiltBatch
from parrotserve.engines.native.plain_sampler import PlainSampler
from parrotserve.engines.native.sampler import sample
from parrotserve.engines.native.sequence import SequenceState
from parrotserve.engines.native.speculation import Drafts
from parrotserve.errors import EngineFailed, ParrotError
from parrotserve.sampling import TokenLogprob

log = logging.getLogger(__name__)

Sampled = tuple[SequenceState, list[int], TokenLogprob | None]
"""A sequence, its next token and those after it if its draft is right, and the log-probability, if it is asked for."""
Fail = Callable[[SequenceState, ParrotError], None]
"""Ends a sequence with an error."""
_Answers = dict[int, tuple[int, TokenLogprob | None]]
"""By row with a question: its token, and the log-probability, if it is asked for."""


def next_tokens(built: BuiltBatch, logits: Logits, drafts: Drafts, fail: Fail) -> list[Sampled]:
    """The next tokens of the batch's sequences that have an output. Sequences with errors are passed to `fail`."""
    plain_sampler = built.sampler or PlainSampler([state.output for state in built.rows if state.output is not None])
    built.sampler = plain_sampler if plain_sampler.is_reusable else None
    plain, highest = plain_sampler.tokens(logits), logits.highest.tolist()
    sampled: list[Sampled] = []
    questions: dict[int, Draw] = {}
    for state, rows in built.runs:
        row = rows[0]
        try:
            if math.isnan(highest[row]):
                raise EngineFailed("The model's logits are not numbers: its weights are damaged, or overflow.")
            token = plain[row]
            if token is not None:
                sampled.append((state, [token, *_known(plain, highest, rows[1:])], None))
            elif state.output is not None:
                draws = state.output.draws(logits.rows.shape[1], drafts.get(state, ()))
                questions.update(zip(_numbers(highest, rows), draws, strict=False))
        except ParrotError as error:
            fail(state, error)
    if questions:
        sampled += _by_sequence(built.runs, _answers(built, logits, questions, fail))
    return sampled


def _answers(built: BuiltBatch, logits: Logits, questions: Mapping[int, Draw], fail: Fail) -> _Answers:
    """The sampler's answers, by row. If it fails, each sequence is tried alone, to find those that it fails on."""
    try:
        return sample(logits, questions)
    except Exception:
        log.exception("sampling failed; trying each sequence by itself")
    answers: _Answers = {}
    for state, rows in built.runs:
        own = {row: questions[row] for row in rows if row in questions}
        try:
            answers |= sample(logits, own)
        except Exception as error:
            fail(state, EngineFailed(f"The next token could not be drawn: {type(error).__name__}."))
    return answers


def _by_sequence(runs: Sequence[tuple[SequenceState, Sequence[int]]], answers: _Answers) -> list[Sampled]:
    found = ((state, [answers[row] for row in rows if row in answers]) for state, rows in runs)
    return [(state, [token for token, _ in told], told[0][1]) for state, told in found if told]


def _numbers(highest: Sequence[float], rows: Sequence[int]) -> Iterator[int]:
    """These rows, up to the first whose logits contain NaN."""
    return takewhile(lambda row: not math.isnan(highest[row]), rows)


def _known(tokens: Sequence[int | None], highest: Sequence[float], rows: Sequence[int]) -> Sequence[int]:
    """The tokens of these rows, up to the first whose token is not known, or whose logits contain NaN."""
    known: list[int] = []
    for row in _numbers(highest, rows):
        token = tokens[row]
        if token is None:
            break
        known.append(token)
    return known
