"""The text of an output as its tokens come: decoded, cut at a stop string, and released once it is certain."""

from collections.abc import Sequence
from typing import Protocol

from parrotserve.engines.native.stops import StopSearch
from parrotserve.sampling import Sampling


class TokenStream(Protocol):
    """Decodes tokens one after the other, holding back bytes of an unfinished character."""

    def push(self, ids: Sequence[int], /) -> str:
        """The text that these tokens complete; control tokens add none."""
        ...

    def flush(self) -> str:
        """The bytes that were held back, as replacement characters."""
        ...


class EngineTokenizer(Protocol):
    """The part of a model's tokenizer that an engine needs (`parrotserve.models.tokenizer.Tokenizer` has it)."""

    eos: frozenset[int]
    bos: int | None

    def encode(self, text: str, /) -> list[int]: ...

    def stream(self) -> TokenStream: ...

    def to_json(self) -> str:
        """The tokenizer as a Hugging Face `tokenizer.json`, for grammars."""
        ...


class OutputText:
    """Incremental text of one output: without one leading space, unless it is to be kept, up to the first stop string.

    The results of `push` and `finish` concatenate to `text`. How tokens are grouped in calls makes no difference, so a
    rerun that pushes the delivered tokens first is in the same state as the earlier run.
    """

    __slots__ = (
        "_decoded",
        "_given",
        "_keep_space",
        "_min_tokens",
        "_stops",
        "_stream",
        "_tokens",
        "_waiting",
        "cut",
        "space_dropped",
    )

    def __init__(self, stream: TokenStream, sampling: Sampling) -> None:
        self._stream = stream
        self._stops = StopSearch(sampling.stop) if sampling.stop else None
        self._min_tokens = sampling.min_tokens
        self._keep_space = sampling.keep_space
        self._tokens = 0
        self._waiting: list[int] = []
        """Tokens that are not decoded yet, as nobody has asked for their text."""
        self._decoded = ""
        self._given = 0
        self.cut: int | None = None
        """The offset in the text at which a stop string began, once one has appeared."""
        self.space_dropped = False

    @property
    def text(self) -> str:
        """All text so far, including what is held back."""
        self._catch_up()
        return self._decoded[: self.cut]

    @property
    def given(self) -> int:
        """Number of characters that are certain, and were released."""
        self._catch_up()
        return self._given

    def given_since(self, start: int) -> str:
        """The certain text from character `start` on."""
        self._catch_up()
        return self._decoded[start : self._given]

    @property
    def stopped(self) -> bool:
        return self.cut is not None

    def put(self, token: int) -> None:
        """As `push`, for callers that ask for the text later: without stop strings, it is decoded only then."""
        if self._stops:
            self.push(token)
        else:
            self._waiting.append(token)

    def push(self, token: int) -> str:
        """The text that became certain with this token. Must not be called once stopped."""
        self._catch_up()
        self._tokens += 1
        new = self._append(self._stream.push((token,)))
        if not self._stops:
            return self._give(len(self._decoded))
        found = self._stops.push(new)
        if self._tokens >= self._min_tokens:
            self.cut = found
        return self._give(len(self._decoded) - self._stops.held if self.cut is None else self.cut)

    def finish(self) -> str:
        """Ends the text, and returns the rest of it, which is now certain."""
        self._catch_up()
        if not self.stopped:
            self._append(self._stream.flush())
        return self._give(len(self.text))

    def _catch_up(self) -> None:
        if self._waiting:
            self._append(self._stream.push(self._waiting))
            self._tokens += len(self._waiting)
            self._waiting = []
            self._given = len(self._decoded)

    def _append(self, text: str) -> str:
        """Appends decoded text, without a leading space that is to be dropped. Returns what was appended."""
        if not (self._keep_space or self._decoded or self.space_dropped) and text.startswith(" "):
            self.space_dropped = True
            text = text[1:]
        self._decoded += text
        return text

    def _give(self, end: int) -> str:
        new = self._decoded[self._given : end]
        self._given = end
        return new
