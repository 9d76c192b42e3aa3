"""One output that is being generated: its tokens so far, and all that determines the next one and the end."""

from collections.abc import Sequence

from parrotserve.engines.base import Generate
from parrotserve.engines.native.drafts import Drafter
from parrotserve.engines.native.draw import Draw, Seen, has_penalties
from parrotserve.engines.native.grammar import Grammar
from parrotserve.engines.native.output_text import EngineTokenizer, OutputText
from parrotserve.sampling import FinishReason, TokenLogprob


class OutputState:
    """A segment that is being generated: the tokens so far, and all that determines the next one."""

    def __init__(
        self,
        generate: Generate,
        *,
        segment: int,
        prompt: Sequence[int],
        room: int,
        tokenizer: EngineTokenizer,
        grammar: Grammar | None,
    ) -> None:
        """`prompt`: all tokens before it. `room`: tokens that the context has left after the prompt."""
        sampling = generate.sampling
        self.segment = segment
        self.start = len(prompt)
        """Position of its first token in the sequence."""
        self.sampling = sampling
        self.scale = 1 / sampling.temperature if sampling.temperature > 0.0 else 0.0
        """Factor on logits before a token is drawn: 1 / temperature; 0 if the output is greedy."""
        self.limit = min(sampling.max_tokens, room)
        self.tokens: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.text = OutputText(tokenizer.stream(), sampling)
        self.grammar = grammar
        self.reason: FinishReason | None = None
        self.drafter = Drafter()
        self._penalised = has_penalties(sampling)
        self._unbiased = sampling.logprobs is None and not sampling.logit_bias and not self._penalised
        self._plain = grammar is None and self._unbiased
        self._tokenizer = tokenizer
        self._eos = tuple(sorted(tokenizer.eos))
        self._seen = Seen(prompt if sampling.repetition_penalty != 1.0 else ())
        for token in generate.delivered:
            if self.reason is None:
                self.push(token)
        self.delivered = len(self.tokens)
        self.told_tokens = len(self.tokens)
        """Number of tokens that were reported to the reader of a stream; `told_text`: number of characters."""
        self.told_text = self.text.given

    @property
    def is_plain_greedy(self) -> bool:
        """Whether the next token is simply the one with the highest raw logit."""
        return self.scale == 0.0 and self._plain and not self._bans_end

    @property
    def is_plain_random(self) -> bool:
        """Whether the next token is drawn at random from the raw logits, without other rules."""
        return self.scale > 0.0 and self._plain and not self._bans_end

    @property
    def is_plain(self) -> bool:
        """Whether its next token depends only on the model's own logits and its position."""
        return self.is_plain_greedy or self.is_plain_random

    @property
    def may_draft(self) -> bool:
        """Whether it can have a draft: the rules for each of its tokens must be known before the tokens ahead of it."""
        return self._unbiased and not self._bans_end

    @property
    def left(self) -> int:
        """How many more tokens it may have."""
        return self.limit - len(self.tokens)

    @property
    def _bans_end(self) -> bool:
        """Whether end-of-turn tokens are banned for now, because of `min_tokens`. Once allowed, they stay allowed."""
        return len(self.tokens) < self.sampling.min_tokens and not self.sampling.ignore_eos

    def draft(self, known: Sequence[int], *, most: int, least: float) -> tuple[int, ...]:
        """Tokens that may come next; see `Drafter.draft`."""
        found = self.drafter.draft(known, most=most, least=least)
        return found if self.grammar is None else found[: self.grammar.fitting(found)]

    def draws(self, vocabulary: int, draft: Sequence[int] = ()) -> list[Draw]:
        """The questions to the sampler: which of `vocabulary` tokens comes next, and which after each token of its
        draft. Raises `InvalidSchema` if its grammar gets too complex."""
        allowed = [None] if self.grammar is None else self.grammar.allowed_along(draft, vocabulary)
        return [
            Draw(
                self.sampling,
                position=len(self.tokens) + place,
                banned=self._eos if self._bans_end else (),
                seen=self._seen,
                allowed=mask,
            )
            for place, mask in enumerate(allowed)
        ]

    def push(self, token: int, logprob: TokenLogprob | None = None) -> None:
        """Adds a token; afterwards, `reason` says whether the output is complete."""
        self.tokens.append(token)
        if logprob is not None:
            self.logprobs.append(logprob)
        if self._penalised:
            self._seen.add(token)
        self.reason = self._reason_to_end(token)
        if self.reason is not None:
            self.text.finish()

    def kept(self) -> list[int]:
        """The tokens of a complete output that stay in the sequence: without end of turn, cut before a stop string."""
        if self.text.cut is not None:
            return self._tokens_before_cut(self.text.cut + self.text.space_dropped)
        ended_by_model = self.tokens and self.tokens[-1] in self._eos and not self.sampling.ignore_eos
        return self.tokens[:-1] if ended_by_model else self.tokens

    def _reason_to_end(self, token: int) -> FinishReason | None:
        if token in self._eos and not self.sampling.ignore_eos:
            return FinishReason.STOP
        self.text.put(token)
        if self.grammar is not None:
            self.grammar.push(token)
        if self.text.stopped or (self.grammar is not None and self.grammar.complete):
            return FinishReason.STOP
        return FinishReason.LENGTH if len(self.tokens) >= self.limit else None

    def _tokens_before_cut(self, cut: int) -> list[int]:
        """The tokens of the first `cut` decoded characters. If the cut goes through a token, its rest is re-encoded."""
        stream = self._tokenizer.stream()
        texts = [stream.push((token,)) for token in self.tokens]
        length, kept = 0, 0
        for count, text in enumerate(texts, start=1):
            if length + len(text) > cut:
                break
            if text:
                length, kept = length + len(text), count
        rest = "".join(texts)[length:cut]
        return self.tokens[:kept] + (self._tokenizer.encode(rest) if rest else [])
