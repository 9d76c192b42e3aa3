"""Rendering: turning a request whose inputs are known into the sequence that an engine runs.

For each output there are two engine segments: one fill with all that comes before it, and the output itself.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

from parrotserve.criteria import NO_PRECEDENCE, Objective, Precedence
from parrotserve.engines.base import Capability, EngineDescription, EngineSegment, Fill, Generate, Open, most_allowed
from parrotserve.errors import ContextExceeded, EngineFailed, TransformFailed
from parrotserve.ids import RequestId, TenantId, VariableId
from parrotserve.models.chat import ChatTemplate, Flat, render
from parrotserve.models.prompt import PromptTokenizer
from parrotserve.models.tokenizer import Tokenizer
from parrotserve.sampling import Sampling, ToolCalls
from parrotserve.segments import Input, Output, Segment, Text
from parrotserve.transforms import Transform, TruncatesTokens, apply_transforms

LONG_TEXT = 20_000
"""Characters. A longer prompt is tokenised in a thread, so that the event loop is not blocked."""
_EACH_PIECE = 10
"""The cost of handling one piece of a prompt, as the number of characters that are tokenised in that time."""
_LONG_FOR_A_PATTERN = 500
"""Characters. As `LONG_TEXT`, but for a value that a pattern is matched against: microseconds per character."""


MOST_TRANSFORMED = 1 << 25
"""Characters that the transforms of one request may process in all: the engine's other orders wait meanwhile."""


@dataclass(frozen=True, slots=True)
class Known:
    """The value of an input, and the transforms to apply to it."""

    value: str
    transforms: tuple[Transform, ...]


@dataclass(frozen=True, slots=True)
class Late:
    """An input whose value is not known yet, and the transforms to apply to it."""

    variable: VariableId
    transforms: tuple[Transform, ...]


@dataclass(frozen=True, slots=True)
class ToGenerate:
    """An output: its sampling, whether its tokens are streamed, and the tokens delivered by earlier runs."""

    sampling: Sampling
    stream: bool
    delivered: tuple[int, ...]
    calls: ToolCalls | None = None


Piece = Text | Known | Late | ToGenerate


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A run of a request with all the data that it needs: an immutable copy, as it may wait before it is sent."""

    request: RequestId
    epoch: int
    model: str
    objective: Objective
    precedence: Precedence = NO_PRECEDENCE
    tenant: TenantId
    pieces: tuple[Piece, ...]
    ahead: bool = False
    """Whether it runs ahead: it is opened with its outputs only, and all text is sent later."""

    @property
    def slow(self) -> bool:
        """Whether rendering may take so long that it must be done in a thread."""
        return is_slow(self.pieces)


def is_slow(pieces: Iterable[Piece]) -> bool:
    """Whether tokenising the known pieces may take so long that it must be done in a thread."""
    length = 0
    for piece in pieces:
        length += _EACH_PIECE
        if isinstance(piece, Text):
            length += len(piece.text)
        elif isinstance(piece, Known):
            length += len(piece.value)
            if len(piece.value) > _LONG_FOR_A_PATTERN and any(one.name == "regex" for one in piece.transforms):
                return True
    return length > LONG_TEXT


def pieces_of(
    segments: Sequence[Flat],
    *,
    values: Mapping[VariableId, str],
    stream: frozenset[VariableId],
    delivered: Mapping[VariableId, tuple[int, ...]],
) -> tuple[Piece, ...]:
    """A request's segments, with the values that are known now filled in."""

    def piece(segment: Flat) -> Piece:
        match segment:
            case Text():
                return segment
            case Input() if segment.variable in values:
                return Known(values[segment.variable], segment.transforms)
            case Input():
                return Late(segment.variable, segment.transforms)
            case Output():
                streamed = segment.variable in stream
                return ToGenerate(segment.sampling, streamed, delivered.get(segment.variable, ()), segment.calls)

    return tuple(map(piece, segments))


def engine_segment(output: int) -> int:
    """Index of the segment of the engine's sequence that is a request's output number `output` (from 0)."""
    return 2 * output + 1


class Renderer:
    """Renders prompts for one model, by its chat template and its tokenizer."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None) -> None:
        self._tokenizer = tokenizer
        self._template = template

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._tokenizer

    @property
    def template(self) -> ChatTemplate | None:
        """The model's chat template."""
        return self._template

    def flatten(
        self,
        segments: Sequence[Segment],
        *,
        chat: bool,
        tools: Sequence[Mapping[str, Any]] = (),
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> tuple[Flat, ...]:
        """The segments with roles replaced by text. Raises `TemplateError` if the chat template refuses them."""
        return render(
            segments, template=self._template, chat=chat, tools=tools, chat_template_kwargs=chat_template_kwargs
        )

    def most_tokens(self, text: str) -> int:
        """The number of tokens of a text of a prompt; of a long one, an upper bound, without tokenising it."""
        if len(text) > LONG_TEXT:
            return len(text.encode(errors="replace"))
        return self._tokenizer.count(text, special=True)

    async def open(self, opening: Opening, engine: EngineDescription, *, published: Collection[str] = ()) -> Open:
        """The command that runs it. Raises `TransformFailed` if a transform does not fit its value, `ContextExceeded`
        if the prompt does not fit the engine's context, and `EngineFailed` if the engine lacks a capability that a
        sampling needs.

        If the constant text before the first placeholder, or a beginning of it up to the end of a message, is one of
        the `published` texts, all tenants share its KV.
        """
        _check_capabilities(opening, engine)
        self._check_length(opening.pieces, engine)
        check_transforms(opening.pieces)
        as_tokens = Capability.TOKENS in engine.capabilities
        known = self._token_segments if as_tokens else self._text_segments
        build = _late_segments if opening.ahead else partial(known, engine=engine)
        segments = await asyncio.to_thread(build, opening) if opening.slow else build(opening)
        shares = as_tokens and bool(published)
        return Open(
            sequence=opening.request,
            epoch=opening.epoch,
            segments=segments,
            salt=opening.tenant,
            public=self.public_tokens(opening.pieces, published) if shares else 0,
            objective=opening.objective,
            precedence=opening.precedence,
        )

    def prompt(self, engine: EngineDescription) -> PromptTokenizer:
        """A tokenizer of one prompt for an engine; it raises `ContextExceeded` before a text that would not fit.

        A short batch may use one long value many times: the whole prompt could be more than there is memory for.
        """
        return PromptTokenizer(self.tokenizer, within=partial(_check_fits, engine))

    def _check_length(self, pieces: Iterable[Piece], engine: EngineDescription) -> None:
        """Refuse a prompt without tokenising it if it would not fit even if all its tokens were as long as can be."""
        texts = (piece.text for piece in pieces if isinstance(piece, Text))
        values = (piece.value for piece in pieces if isinstance(piece, Known) and not piece.transforms)
        _check_fits(engine, -(-sum(map(len, chain(texts, values))) // self._tokenizer.longest_token))

    async def beginning(self, pieces: Sequence[Piece], engine: EngineDescription) -> tuple[int, ...]:
        """The tokens of the beginning of a prompt. Raises `TransformFailed` and `ContextExceeded`."""
        known = [piece for piece in pieces if isinstance(piece, Text | Known)]
        check_transforms(known)

        def build() -> tuple[int, ...]:
            prompt = self.prompt(engine)
            return tuple(token for piece in known for token in self._tokens(prompt, piece))

        return await asyncio.to_thread(build) if is_slow(known) else build()

    def _tokens(self, prompt: PromptTokenizer, piece: Text | Known | Late) -> list[int]:
        return text_tokens(prompt, piece) if isinstance(piece, Text) else prompt.text(_text(piece, self.tokenizer))

    def _token_segments(self, opening: Opening, engine: EngineDescription) -> tuple[EngineSegment, ...]:
        prompt = self.prompt(engine)
        segments: list[EngineSegment] = []
        tokens: list[int] = []
        for piece in opening.pieces:
            if isinstance(piece, ToGenerate):
                tokens += prompt.before_output()
                segments += (Fill(tokens=tuple(tokens)), _generate(piece, space_withheld=prompt.withheld))
                tokens = []
            else:
                tokens += self._tokens(prompt, piece)
        return tuple(segments)

    def public_tokens(self, pieces: Sequence[Piece], published: Collection[str]) -> int:
        """The number of tokens at a prompt's beginning that belong to a published text."""
        prompt = PromptTokenizer(self.tokenizer)
        texts = (piece for piece in pieces[: published_pieces(pieces, published)] if isinstance(piece, Text))
        return sum(len(prompt.text(piece.text, template=piece.template)) for piece in texts)

    def _text_segments(self, opening: Opening, engine: EngineDescription) -> tuple[EngineSegment, ...]:
        def build() -> Iterator[EngineSegment]:
            texts: list[str] = []
            length = 0
            for piece in opening.pieces:
                if isinstance(piece, ToGenerate):
                    yield Fill(text="".join(texts))
                    yield _generate(piece)
                    texts = []
                else:
                    texts.append(_text(piece, self.tokenizer))
                    length += len(texts[-1])
                    _check_fits(engine, length // self._tokenizer.longest_token)

        return tuple(build())


def check_transforms(pieces: Iterable[Piece]) -> None:
    """Raises `TransformFailed` if the transforms of the known inputs would take too long together."""
    known = (piece for piece in pieces if isinstance(piece, Known))
    length = sum(len(piece.value) * len(piece.transforms) for piece in known)
    if length > MOST_TRANSFORMED:
        raise TransformFailed(
            f"The transforms of this request would look through {length:,} characters, and may look through "
            f"{MOST_TRANSFORMED:,}: use fewer of them, or shorter values."
        )


def _check_fits(engine: EngineDescription, least: int) -> None:
    """Raises `ContextExceeded` if a prompt of at least `least` tokens does not fit the engine's context."""
    if least > engine.context_length:
        allowed = most_allowed(engine.context_length, cut_by_cache=engine.cut_by_cache)
        raise ContextExceeded(
            f"The prompt has at least {least} tokens, which exceeds the available context size: {allowed}"
        )


def published_pieces(pieces: Sequence[object], published: Collection[str]) -> int:
    """The number of pieces (or segments) at a prompt's beginning that together are a published text."""
    # Only whole texts count: the last token of a part of a text may reveal what follows it.
    constant, public = "", 0
    for index, piece in enumerate(pieces):
        if not isinstance(piece, Text) or piece.tokens or piece.private:
            break
        constant += "" if piece.template else piece.text
        if constant.strip() in published:
            public = index + 1
    return public


def most_tokens(command: Open) -> int | None:
    """The most tokens that a sequence may have: those of its fills (bytes, if the engine takes text), and the maximum
    of its outputs. None while some of its fills are late."""
    if any(isinstance(segment, Fill) and segment.late for segment in command.segments):
        return None
    return sum(
        segment.sampling.max_tokens
        if isinstance(segment, Generate)
        else len(segment.tokens or (segment.text or "").encode())
        for segment in command.segments
    )


def _late_segments(opening: Opening) -> tuple[EngineSegment, ...]:
    outputs = (piece for piece in opening.pieces if isinstance(piece, ToGenerate))
    return tuple(segment for output in outputs for segment in (Fill(), _generate(output)))


def _check_capabilities(opening: Opening, engine: EngineDescription) -> None:
    outputs = [_generate(piece) for piece in opening.pieces if isinstance(piece, ToGenerate)]
    asked = {
        Capability.GRAMMAR: any(output.has_grammar for output in outputs),
        Capability.LOGPROBS: any(output.sampling.logprobs is not None for output in outputs),
    }
    for capability, wanted in asked.items():
        if wanted and capability not in engine.capabilities:
            raise EngineFailed(f"The engines of {engine.model} cannot do what its sampling asks: {capability}.")


def _text(piece: Text | Known | Late, tokenizer: TruncatesTokens) -> str:
    if isinstance(piece, Text):
        return piece.text
    assert isinstance(piece, Known), "only what runs ahead has unknown inputs"
    return apply_transforms(piece.transforms, piece.value, tokenizer)


def text_tokens(prompt: PromptTokenizer, piece: Text) -> list[int]:
    """The tokens that continue a prompt with this text: the given token ids if it has them, else the tokenised text."""
    return prompt.tokens(piece.tokens) if piece.tokens else prompt.text(piece.text, template=piece.template)


def _generate(piece: ToGenerate, *, space_withheld: bool = False) -> Generate:
    sampling = piece.sampling
    if sampling.keep_space and space_withheld:
        sampling = replace(sampling, keep_space=False)  # it is the prompt's own, which the model was left to repeat
    return Generate(sampling=sampling, stream=piece.stream, delivered=piece.delivered, calls=piece.calls)
