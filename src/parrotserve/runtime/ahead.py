"""Running ahead: prompts that are read while inputs of them are still being written.

A sequence that runs ahead has late segments only. Its engine is sent what is known, in order, up to the first input
that is not; of that one, what its writer has written, as far as no later text can change its tokens. The end of
the first late segment is kept back until the machine completes the request, so nothing is generated before.
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
"""Characters that are worth sending. At least a quarter of what is there already, too: so the whole is tokenised
only a few times over."""

Content = Text | Known | Late


@dataclass(slots=True)
class Written:
    """What is known of a variable."""

    text: str
    whole: bool


@dataclass(slots=True)
class AheadSequence:
    """One sequence, and what its engine has been sent of it."""

    request: RequestId
    epoch: int
    stretches: list[list[Content]]
    """What leads to each output."""
    tokenizer: Tokenizer
    prompt: PromptTokenizer
    most_output: int
    """Tokens that its outputs may have, together."""
    sent: int = 0
    """Tokens of the first stretch."""
    ordered: bool = False
    """Whether its engine's keeper has an order to send it more, not carried out yet."""
    _done: int = 0
    """Pieces of the first stretch that were sent whole."""
    _begun: list[int] = field(default_factory=list[int])
    """Tokens of the next piece that were sent already."""
    _told: int = 0
    """Characters of that piece when its beginning was last looked at."""

    @property
    def awaits(self) -> VariableId | None:
        """The input that it cannot pass."""
        pieces = self.stretches[0]
        piece = pieces[self._done] if self._done < len(pieces) else None
        return piece.variable if isinstance(piece, Late) else None

    def is_news(self, length: int) -> bool:
        """Whether so many characters of what it awaits are worth looking at."""
        return length - self._told >= max(_LEAST_NEWS, length // 4)

    def is_long(self, written: Callable[[VariableId], Written]) -> bool:
        """Whether it may take so long to tokenise that it is to be done in a thread."""
        return is_slow(self._as_known(written))

    def _as_known(self, written: Callable[[VariableId], Written]) -> Iterator[Text | Known]:
        for stretch in self.stretches:
            for piece in stretch:
                if isinstance(piece, Late):
                    yield Known(written(piece.variable).text, piece.transforms)
                else:
                    yield piece

    def go_on(self, written: Callable[[VariableId], Written]) -> list[Extend]:
        """What can be sent now."""
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
        """All the rest; every input is known. Raises `TransformFailed`."""
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
        """Of a piece's tokens, those that were not sent before. Raises `EngineFailed` if these were others."""
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
        """A sequence is opened that runs ahead; `prompt` is to make its tokens. If it has been opened anew since, on an
        engine whose orders were carried out sooner, nothing changes."""
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
        """A sequence, if it runs ahead in this epoch."""
        found = self._sequences.get(request)
        return found if found is not None and found.epoch == epoch else None

    def end(self, request: RequestId, epoch: int | None = None) -> None:
        """A sequence runs ahead no more: that of this epoch, or whichever there is."""
        if epoch is not None and self.find(request, epoch) is None:
            return
        sequence = self._sequences.pop(request, None)
        for variable in _late(sequence) if sequence is not None else ():
            readers = self._readers.get(variable, {})
            readers.pop(request, None)
            if not readers:
                self._readers.pop(variable, None)

    def readers(self, variable: VariableId, length: int | None = None) -> list[AheadSequence]:
        """Who can go on now that a variable is known, or has grown to so many characters."""
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
