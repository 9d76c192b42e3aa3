"""A tokenizer without a model, for `FakeEngine` and for tests: every byte is a token."""

import codecs
import hashlib
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Core

END = 256
START = 257
_CONTROL = {END: "<|end|>", START: "<|start|>"}


class FakeTokenizer:
    """The ids of a text are its UTF-8 bytes; two control tokens start a text and end a turn.

    Has the methods of `parrotserve.models.tokenizer.Tokenizer`.
    """

    def __init__(self, *, chat_template: str | None = None) -> None:
        self.eos: frozenset[int] = frozenset({END})
        self.bos: int | None = START
        self.prompt_start: list[int] = []
        self.chat_template = chat_template
        self.vocabulary_size: int = 256 + len(_CONTROL)
        self.joins_words = False
        self.longest_token = max(map(len, _CONTROL.values()))

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The bytes of a text; with `special`, control tokens that it spells are recognised."""
        if special:
            for token, spelling in _CONTROL.items():
                if spelling in text:
                    before, after = text.split(spelling, 1)
                    return [*self.encode(before, special=True), token, *self.encode(after, special=True)]
        return list(text.encode("utf-8", errors="replace"))

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of tokens; broken UTF-8 becomes U+FFFD."""
        stream = self.stream(special=special)
        return stream.push(tuple(ids)) + stream.flush()

    def stream(self, *, special: bool = False) -> "FakeStream":
        """A decoder for tokens that come one after another."""
        return FakeStream(self, special=special)

    def count(self, text: str, *, special: bool = False) -> int:
        """Number of tokens that `encode` returns."""
        return len(self.encode(text, special=special))

    def truncate(self, text: str, tokens: int) -> str:
        """The longest beginning of `text` that has at most `tokens` tokens, cut between characters."""
        return bytes(self.encode(text)[:tokens]).decode("utf-8", errors="ignore")

    def token_bytes(self, index: int) -> bytes:
        """The bytes of a token."""
        return bytes([index]) if index < 256 else _CONTROL.get(index, "").encode()

    def is_control(self, index: int) -> bool:
        """Whether a token is a control token, which text cannot spell."""
        return index in _CONTROL

    def to_json(self) -> str:
        """The same tokenizer as a Hugging Face `tokenizer.json`: byte-level BPE without merges."""
        core = Core(models.BPE(vocab={_letter(byte): byte for byte in range(256)}, merges=[]))
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        core.decoder = decoders.ByteLevel()
        core.add_special_tokens([AddedToken(spelling, special=True) for spelling in _CONTROL.values()])
        return core.to_str()

    @property
    def fingerprint(self) -> str:
        """Hash of everything that determines the tokens of prompts."""
        return hashlib.sha256(f"bytes\0{self.chat_template or ''}".encode()).hexdigest()[:32]


class FakeStream:
    """Decodes bytes as they come, and keeps an unfinished character for later."""

    def __init__(self, tokenizer: FakeTokenizer, *, special: bool) -> None:
        self._tokenizer = tokenizer
        self._special = special
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, ids: Sequence[int]) -> str:
        """The text of these tokens, without an unfinished character."""
        shown = (index for index in ids if self._special or not self._tokenizer.is_control(index))
        return self._decoder.decode(b"".join(map(self._tokenizer.token_bytes, shown)))

    def flush(self) -> str:
        """The end of the text: U+FFFD for an unfinished character. Resets the decoder."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def _letter(byte: int) -> str:
    """GPT-2's alphabet: printable bytes are written as themselves, the others as characters from U+0100 up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    if byte in printable:
        return chr(byte)
    return chr(0x100 + sum(other not in printable for other in range(byte)))
