"""Grammars of outputs that satisfy a JSON schema, or whose calls do: which tokens may come next."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from parrotserve.engines.native.draw import Mask
from parrotserve.engines.schema import cannot_be_enforced, grammar_of
from parrotserve.sampling import ToolCalls

_LIMITS = LLParserLimits(verbose_errors=False)


class Grammar:
    """The grammar of one output, and its state after the tokens so far."""

    __slots__ = ("_matcher",)

    def __init__(
        self,
        schema: dict[str, Any] | None,
        tokenizer: LLTokenizer,
        *,
        calls: ToolCalls | None = None,
        tags: Collection[str] = (),
    ) -> None:
        """The output satisfies the schema, or has `calls` instead; without a schema, it is any text with `calls` in it.
        `tags` are the tags of calls that are tokens of the model. Raises `InvalidSchema` if a schema cannot be
        enforced."""
        grammar = grammar_of(schema, calls, tokens=tags)
        self._matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=_LIMITS)
        self._check()

    @property
    def complete(self) -> bool:
        """Whether only the end can follow."""
        return self._matcher.is_stopped()

    def allowed(self, vocabulary: int) -> Mask:
        """[vocabulary]: which tokens may come next. Raises `InvalidSchema` when the grammar gets too complex."""
        mask = _allowed_by(self._matcher, vocabulary)
        self._check()
        return mask

    def allowed_along(self, tokens: Sequence[int], vocabulary: int) -> list[Mask]:
        """`allowed` now, and after each of these tokens, as far as the grammar permits. Raises as `allowed` does."""
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
        """Number of these tokens that the grammar permits next, such that something may follow them."""
        ahead = self._matcher.deep_copy()
        fitting = ahead.try_consume_tokens(list(tokens))
        return max(fitting - ahead.is_stopped(), 0)

    def push(self, token: int) -> None:
        """Advances by a token of the output. Raises `InvalidSchema` if the grammar forbids it."""
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
