"""Outputs that satisfy a JSON schema, or have calls that do: which tokens may come next, after the ones that came."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from parrotserve.engines.native.draw import Mask
from parrotserve.engines.schema import cannot_be_enforced, grammar_of
from parrotserve.sampling import Calls

_LIMITS = LLParserLimits(verbose_errors=False)


class Grammar:
    """The state of one output's grammar."""

    __slots__ = ("_matcher",)

    def __init__(
        self,
        schema: dict[str, Any] | None,
        tokenizer: LLTokenizer,
        *,
        calls: Calls | None = None,
        tags: Collection[str] = (),
    ) -> None:
        """Instead of what the schema says, or in any text where there is none, the output may have `calls`; those of
        their tags that are tokens of the model are among `tags`. Raises `InvalidSchema` if a schema cannot be
        enforced."""
        grammar = grammar_of(schema, calls, tokens=tags)
        self._matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=_LIMITS)
        self._check()

    @property
    def complete(self) -> bool:
        """Whether nothing but the end can follow."""
        return self._matcher.is_stopped()

    def allowed(self, vocabulary: int) -> Mask:
        """[vocabulary]: which tokens may come next. Raises `InvalidSchema` when the grammar gets too complex."""
        mask = _allowed_by(self._matcher, vocabulary)
        self._check()
        return mask

    def allowed_along(self, tokens: Sequence[int], vocabulary: int) -> list[Mask]:
        """`allowed` as it is now, and after each of these tokens as far as they go. Raises what `allowed` raises."""
        found = [self.allowed(vocabulary)]
        ahead = self._matcher.deep_copy()
        for token in tokens:
            ahead.consume_token(token)
            mask = _allowed_by(ahead, vocabulary)
            if ahead.is_error():
                break
            found.append(mask)
        return found

    def fitting(self, tokens: Sequence[int]) -> int:
        """How many of these tokens may come next, one after the other, and something after them."""
        ahead = self._matcher.deep_copy()
        fitting = ahead.try_consume_tokens(list(tokens))
        return max(fitting - ahead.is_stopped(), 0)

    def push(self, token: int) -> None:
        """The output goes on with this token. Raises `InvalidSchema` if the grammar forbids it."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise cannot_be_enforced(self._matcher.get_error())


def _allowed_by(matcher: LLMatcher, vocabulary: int) -> Mask:
    bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
    mask = np.zeros(vocabulary, dtype=np.bool_)
    known = np.unpackbits(bits, bitorder="little")[:vocabulary]
    mask[: len(known)] = known
    return mask
