"""Log-probabilities in the two forms that OpenAI's answers have."""

from collections.abc import Sequence
from itertools import accumulate

from parrotserve.models.tokenizer import Tokenizer
from parrotserve.sampling import TokenLogprob
from parrotserve.server.openai.answers import ChatLogprobs, CompletionLogprobs, TokenLogprobAnswer, TopLogprob

_LEAST = -9999.0
"""Stands for minus infinity, which JSON does not have."""


def chat_logprobs(tokens: Sequence[TokenLogprob], tokenizer: Tokenizer) -> ChatLogprobs:
    """The chosen tokens that have a text, and their rivals."""
    content = [
        TokenLogprobAnswer(
            token=_text(each.token, tokenizer),
            logprob=_finite(each.logprob),
            bytes=list(tokenizer.token_bytes(each.token)),
            top_logprobs=[
                TopLogprob(
                    token=_text(token, tokenizer), logprob=_finite(logprob), bytes=list(tokenizer.token_bytes(token))
                )
                for token, logprob in each.top
            ],
        )
        for each in _written(tokens, tokenizer)
    ]
    return ChatLogprobs(content=content, refusal=None)


def completion_logprobs(
    tokens: Sequence[TokenLogprob], tokenizer: Tokenizer, *, offset: int, top: bool
) -> CompletionLogprobs:
    """The same, with where in the text each token begins, from `offset` on."""
    written = _written(tokens, tokenizer)
    texts = [_text(each.token, tokenizer) for each in written]
    starts = list(accumulate(map(len, texts), initial=offset))[:-1]
    rivals = [{_text(token, tokenizer): _finite(logprob) for token, logprob in each.top} for each in written]
    return CompletionLogprobs(
        tokens=texts,
        token_logprobs=[_finite(each.logprob) for each in written],
        top_logprobs=rivals if top else None,
        text_offset=starts,
    )


def _written(tokens: Sequence[TokenLogprob], tokenizer: Tokenizer) -> list[TokenLogprob]:
    """Without the token that ended the model's turn: it is no part of the text."""
    return [each for each in tokens if not tokenizer.is_control(each.token)]


def _text(token: int, tokenizer: Tokenizer) -> str:
    return tokenizer.token_bytes(token).decode("utf-8", errors="replace")


def _finite(logprob: float) -> float:
    return max(logprob, _LEAST)
