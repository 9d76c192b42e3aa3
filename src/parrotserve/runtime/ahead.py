"""Running ahead: prefilling prompts while some of their inputs are still being generated.

The fills of a sequence that runs ahead are all late segments. Its engine is sent the known text, in order, up to the
first input that is not complete, and of that input the part generated so far, as far as no later text can change its
tokens. The end of the first late segment is held back until the machine completes the request, so nothing is generated
before.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from parrotserve.engines.base import Extend
from parrotserve.errors import EngineFailed
from parrotserve.ids import RequestId, VariableId
from parrotserve.models.prompt import PromptTokenizer
from parrotserve.models.tokenizer import Tokenizer
from parrotserve.runtime.render import Known, Late, Opening, ToGenerate, check_transforms, is_slow, text_tokens
from parrotserve.segments import Text
from parrotserve.transforms import WHOLE_VALUE, apply_transforms

_LEAST_NEWS = 48
"""Fewest new characters of an input that are worth sending. They must also be a quarter of its text, so that the text
is tokenised only a few times in all."""

Content = Text | Known | Late


@dataclass(slots=True)
class Written:
    """The known text of a variable, and whether it is the whole value."""

    text: str
    whole: bool


@dataclass(slots=True)
class AheadSequence:
    """One sequence, and how much of it its engine has been sent."""

    request: RequestId
    epoch: int
    stretches: list[list[Content]]
    """The pieces before each output."""
    tokenizer: Tokenizer
    prompt: PromptTokenizer
    most_output: int
    """Maximum number of tokens of all its outputs together."""
    sent: int = 0
    """Number of tokens of the first stretch that were sent."""
    ordered: bool = False
    """Whether its engine's keeper has an order to send it more that is not carried out yet."""
    _done: int = 0
    """Number of pieces of the first stretch that were sent completely."""
    _begun: list[int] = field(default_factory=list[int])
    """Tokens of the next piece that were sent already."""
    _told: int = 0
    """Length of that piece's text, in characters, when its beginning was last tokenised."""

    @property
    def awaits(self) -> VariableId | None:
        """The incomplete input that it waits for."""
        pieces = self.stretches[0]
        piece = pieces[self._done] if self._done < len(pieces) else None
        return piece.variable if isinstance(piece, Late) else None

    def is_news(self, length: int) -> bool:
        """Whether tokenising the awaited input is worthwhile now that its text has `length` characters."""
        return length - self._told >= max(_LEAST_NEWS, length // 4)

    def is_long(self, written: Callable[[VariableId], Written]) -> bool:
        """Whether tokenising may take so long that it must be done in a thread."""
        return is_slow(self._as_known(written))

    def _as_known(self, written: Callable[[VariableId], Written]) -> Iterator[Text | Known]:
        for stretch in self.stretches:
            for piece in stretch:
                if isinstance(piece, Late):
                    yield Known(written(piece.variable).text, piece.transforms)
                else:
                    yield piece

    def go_on(self, written: Callable[[VariableId], Written]) -> list[Extend]:
        """The commands that can be sent now."""
        tokens: list[int] = []
        pieces = self.stretches[0]
        while self._done < len(pieces):
            whole = self._whole(pieces[self._done], written)
            if whole is None:
                tokens += self._beginning(pieces[self._done], written)
                break
            tokens += self._rest(whole)
        return self._extend(tokens)

    def complete(self, written: Callable[[VariableId], Written]) -> list[Extend]:
        """The commands with all that was not sent yet; every input must be known. Raises `TransformFailed`."""
        check_transforms(self._as_known(written))
        commands: list[Extend] = []
        for number, pieces in enumerate(self.stretches):
            tokens: list[int] = []
            while self._done < len(pieces):
                whole = self._whole(pieces[self._done], written)
                assert whole is not None, "an input is not known"
                tokens += self._rest(whole)
            tokens += self.prompt.before_output()
            commands.append(
                Extend(
                    sequence=self.request,
                    epoch=self.epoch,
                    segment=2 * number,
                    offset=self.sent if number == 0 else 0,
                    tokens=tuple(tokens),
                )
            )
            self._done = 0
        return commands

    def _whole(self, piece: Content, written: Callable[[VariableId], Written]) -> list[int] | None:
        if isinstance(piece, Text):
            return text_tokens(self.prompt, piece)
        if isinstance(piece, Late):
            known = written(piece.variable)
            if not known.whole:
                return None
            piece = Known(known.text, piece.transforms)
        return self.prompt.text(apply_transforms(piece.transforms, piece.value, self.tokenizer))

    def _rest(self, whole: list[int]) -> list[int]:
        """The tokens of a piece that were not sent yet. Raises `EngineFailed` if those sent are not its beginning."""
        begun, self._begun, self._told = self._begun, [], 0
        self._done += 1
        if whole[: len(begun)] != begun:
            raise EngineFailed("The beginning of an input became other tokens when its end came; this is a bug.")
        return whole[len(begun) :]

    def _beginning(self, piece: Content, written: Callable[[VariableId], Written]) -> list[int]:
        assert isinstance(piece, Late)
        text = written(piece.variable).text
        self._told = len(text)
        if any(transform.name in WHOLE_VALUE for transform in piece.transforms):
            return []
        begun = self.prompt.beginning(apply_transforms(piece.transforms, text, self.tokenizer))
        news, self._begun = begun[len(self._begun) :], begun or self._begun
        return news

    def _extend(self, tokens: list[int]) -> list[Extend]:
        if not tokens:
            return []
        offset, self.sent = self.sent, self.sent + len(tokens)
        extend = Extend(
            sequence=self.request, epoch=self.epoch, segment=0, offset=offset, tokens=tuple(tokens), last=False
        )
        return [extend]


class AheadSequences:
    """All sequences that run ahead. Owned by one event loop."""

    def __init__(self) -> None:
        self._sequences: dict[RequestId, AheadSequence] = {}
        self._readers: dict[VariableId, dict[RequestId, None]] = {}

    def __len__(self) -> int:
        return len(self._sequences)

    def begin(self, opening: Opening, tokenizer: Tokenizer, prompt: PromptTokenizer) -> None:
        """Add a sequence that runs ahead and is being opened; `prompt` tokenises it. Does nothing if a later epoch of
        it was opened already, on an engine whose orders were carried out sooner."""
        found = self._sequences.get(opening.request)
        if found is not None and found.epoch > opening.epoch:
            return
        self.end(opening.request)
        sequence = AheadSequence(
            opening.request,
            opening.epoch,
            list(_stretches(opening.pieces)),
            tokenizer,
            prompt,
            sum(piece.sampling.max_tokens for piece in opening.pieces if isinstance(piece, ToGenerate)),
        )
        self._sequences[opening.request] = sequence
        for variable in _late(sequence):
            self._readers.setdefault(variable, {})[opening.request] = None

    def find(self, request: RequestId, epoch: int) -> AheadSequence | None:
        """The sequence of a request, if it runs ahead in this epoch."""
        found = self._sequences.get(request)
        return found if found is not None and found.epoch == epoch else None

    def end(self, request: RequestId, epoch: int | None = None) -> None:
        """Remove a request's sequence if it is of this epoch (None: of any epoch)."""
        if epoch is not None and self.find(request, epoch) is None:
            return
        sequence = self._sequences.pop(request, None)
        for variable in _late(sequence) if sequence is not None else ():
            readers = self._readers.get(variable, {})
            readers.pop(request, None)
            if not readers:
                self._readers.pop(variable, None)

    def readers(self, variable: VariableId, length: int | None = None) -> list[AheadSequence]:
        """The sequences that can be extended now that a variable is complete (`length` None) or has so many
        characters."""
        found = [self._sequences[request] for request in self._readers.get(variable, ())]
        return [one for one in found if one.awaits == variable and (length is None or one.is_news(length))]


def _stretches(pieces: Iterable[Text | Known | Late | ToGenerate]) -> Iterator[list[Content]]:
    stretch: list[Content] = []
    for piece in pieces:
        if isinstance(piece, ToGenerate):
            yield stretch
            stretch = []
        else:
            stretch.append(piece)


def _late(sequence: AheadSequence) -> set[VariableId]:
    return {piece.variable for pieces in sequence.stretches for piece in pieces if isinstance(piece, Late)}
