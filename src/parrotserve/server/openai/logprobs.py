"""Log-probabilities in the two forms that OpenAI's answers have."""

import codecs
from collections.abc import Sequence

from parrotserve.models.tokenizer import Tokenizer
from parrotserve.sampling import TokenLogprob
from parrotserve.server.openai.answers import ChatLogprobs, CompletionLogprobs, TokenLogprobAnswer, TopLogprob

_LEAST = -9999.0
"""Stands for minus infinity, which JSON does not have."""


class Offsets:
    """Where in a text its tokens begin, in characters. A character of several tokens begins with the first of them."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._written = 0

    def place(self, written: bytes) -> int:
        """Where the next token, of these bytes, begins."""
        start = self._written
        self._written += len(self._decoder.decode(written))
        return start


def chat_logprobs(tokens: Sequence[TokenLogprob], tokenizer: Tokenizer) -> ChatLogprobs:
    """The chosen tokens that are part of the text, and their likeliest rivals, for a chat."""
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
    tokens: Sequence[TokenLogprob], tokenizer: Tokenizer, *, offsets: Offsets, top: bool
) -> CompletionLogprobs:
    """The same for a completion, with the place in the text at which each token begins."""
    written = _written(tokens, tokenizer)
    texts = [_text(each.token, tokenizer) for each in written]
    # The chosen token is always among them, however unlikely it is.
    rivals = [
        {_text(token, tokenizer): _finite(logprob) for token, logprob in (*each.top, (each.token, each.logprob))}
        for each in written
    ]
    return CompletionLogprobs(
        tokens=texts,
        token_logprobs=[_finite(each.logprob) for each in written],
        top_logprobs=rivals if top else None,
        text_offset=[offsets.place(tokenizer.token_bytes(each.token)) for each in written],
    )


def _written(tokens: Sequence[TokenLogprob], tokenizer: Tokenizer) -> list[TokenLogprob]:
    """All but the token that ended the model's turn, which is not part of the text."""
    return [each for each in tokens if not tokenizer.is_control(each.token)]


def _text(token: int, tokenizer: Tokenizer) -> str:
    return tokenizer.token_bytes(token).decode("utf-8", errors="replace")


def _finite(logprob: float) -> float:
    return max(logprob, _LEAST)
