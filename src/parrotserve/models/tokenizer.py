"""A model's tokenizer: text to tokens and back, whole or as a stream."""

import codecs
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

from tokenizers import Encoding
from tokenizers import Tokenizer as Core

from parrotserve.models.files import ModelFiles
from parrotserve.models.metadata import malformed
from parrotserve.models.tokenizer_parts import TokenizerParts, added_tokens, read_tokenizer_parts

_SHORT = 1_000
"""Characters that take about a millisecond to tokenise. Longer texts are tokenised without the interpreter's lock, so
that other threads run; for shorter ones that would cost more than it gains."""
_BEYOND = 64
"""The place of a token is certain if so many tokens follow it, wherever the text is cut behind them."""
_CHARACTERS_EACH = 8
"""Characters per token, more than most tokens have."""
_OVER_A_SPACE = re.compile(rb"[^\s] ")


def load_tokenizer(files: ModelFiles, *, rows: int | None = None) -> "Tokenizer":
    """The tokenizer in a model's files. Raises `MalformedModel`.

    `rows` is the number of tokens that the weights have. Some files name more, which no engine could compute: these are
    left out, and text that spells one is ordinary text.
    """
    parts = read_tokenizer_parts(files, rows=rows)
    try:
        return Tokenizer(parts)
    except ValueError as error:
        raise malformed(files.path, str(error)) from error


class Tokenizer:
    """Byte-level BPE as the model was trained with. Safe to use from several threads.

    Text that spells a control token is tokenised as ordinary characters, unless `special=True`.
    Characters whose bytes the vocabulary lacks (some ASCII control characters in SmolLM2's) are dropped, as the
    model's own tokenizer does; lone surrogates become U+FFFD.
    """

    def __init__(self, parts: TokenizerParts) -> None:
        self._core = parts.core
        self._literal = _literal_twin(parts.core)
        self._bytes = _token_bytes(parts.core)
        self._control = frozenset(index for index, token in added_tokens(parts.core) if token.special)
        self.eos: frozenset[int] = parts.eos
        """All tokens that end a generation."""
        self.bos: int | None = parts.bos
        self.prompt_start: list[int] = list(parts.prompt_start)
        """Tokens before every prompt; `encode` never adds them."""
        self.chat_template: str | None = parts.chat_template
        """The model's chat template in Jinja."""
        self.vocabulary_size: int = len(self._bytes)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The tokens of a text on its own. With `special`, control tokens that it spells are recognised."""
        return self._encoding(text, special=special).ids

    def _encoding(self, text: str, *, special: bool = False, offsets: bool = False) -> Encoding:
        core = self._core if special else self._literal
        if len(text) <= _SHORT:
            encode = core.encode
        else:
            encode = _releasing(core.encode_batch if offsets else core.encode_batch_fast)
        try:
            return encode(text, add_special_tokens=False)
        except TypeError:  # raised for lone surrogates, which are not valid Unicode
            return encode(_without_surrogates(text), add_special_tokens=False)

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of tokens; broken UTF-8 becomes U+FFFD. Control tokens are left out, unless `special`."""
        hidden = frozenset[int]() if special else self._control
        raw = b"".join(self.token_bytes(index) for index in ids if index not in hidden)
        return raw.decode("utf-8", errors="replace")

    def stream(self, *, special: bool = False) -> "IncrementalDecoder":
        """A decoder for tokens that come one after another."""
        return IncrementalDecoder(self, hidden=frozenset() if special else self._control)

    def count(self, text: str, *, special: bool = False) -> int:
        """Number of tokens that `encode` returns."""
        return len(self._encoding(text, special=special))

    def truncate(self, text: str, tokens: int) -> str:
        """The longest beginning of `text`, cut between characters, that has at most `tokens` tokens: one more
        character would make it too long."""
        # The place of the first token that is too many. A part of its text may still fit, as another token.
        where = self._place(text, tokens)
        if where is None:
            return text
        end, limit = where
        while end > 0 and self.count(text[:end]) > tokens:
            end -= 1
        while end < limit and self.count(text[: end + 1]) <= tokens:
            end += 1
        return text[:end]

    def _place(self, text: str, token: int) -> tuple[int, int] | None:
        """Start and end of token number `token` in the text; None if it has fewer tokens. Text far behind that is not
        tokenised, because the interpreter's lock is held while tokens are freed."""
        length = (token + _BEYOND) * _CHARACTERS_EACH
        while length < len(text):
            encoding = self._encoding(text[:length], offsets=True)
            if len(encoding) > token + _BEYOND:
                return encoding.token_to_chars(token)
            length *= 2
        return self._encoding(text, offsets=True).token_to_chars(token)

    def token_bytes(self, index: int) -> bytes:
        """The bytes of a token; empty for ids beyond the vocabulary (padding of the embedding)."""
        return self._bytes[index] if index < len(self._bytes) else b""

    def is_control(self, index: int) -> bool:
        """Whether a token is a control token, which text cannot spell."""
        return index in self._control

    def to_json(self) -> str:
        """The tokenizer as a Hugging Face `tokenizer.json`."""
        return self._core.to_str()

    @cached_property
    def joins_words(self) -> bool:
        """Whether some token spans the end of a word and the space behind it."""
        return any(_OVER_A_SPACE.search(token) for token in self._bytes)

    @cached_property
    def longest_token(self) -> int:
        """Bytes of the longest token."""
        return max(map(len, self._bytes))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of vocabulary, merges and chat template: with equal ones, equal prompts have equal tokens."""
        content = f"{self.to_json()}\0{self.chat_template or ''}"
        return hashlib.sha256(content.encode()).hexdigest()[:32]


class IncrementalDecoder:
    """Turns tokens into text as they come: the joined results of `push` and `flush` equal `decode` of all tokens."""

    __slots__ = ("_hidden", "_rest", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer, *, hidden: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._hidden = hidden
        self._rest = b""
        """Bytes of an unfinished character."""

    def push(self, ids: Sequence[int]) -> str:
        """The text of these tokens; the bytes of an unfinished character are kept for later."""
        raw = self._rest + b"".join([self._tokenizer.token_bytes(index) for index in ids if index not in self._hidden])
        # As codecs' incremental decoder does, but without the cost of calling it: this runs for every token.
        text, read = codecs.utf_8_decode(raw, "replace", False)
        self._rest = raw[read:]
        return text

    def flush(self) -> str:
        """The end of the text: U+FFFD for an unfinished character. Resets the decoder."""
        rest, self._rest = self._rest, b""
        return rest.decode(errors="replace")


def _releasing(encode_batch: Callable[..., list[Encoding]]) -> Callable[..., Encoding]:
    """Encodes one text without the interpreter's lock, which the package releases only for batches."""

    def encode(text: str, *, add_special_tokens: bool) -> Encoding:
        (encoding,) = encode_batch([text], add_special_tokens=add_special_tokens)
        return encoding

    return encode


def _literal_twin(core: Core) -> Core:
    """The same tokenizer, sharing vocabulary and merges, but treating control tokens as plain text."""
    twin = Core(core.model)
    if core.normalizer is not None:
        twin.normalizer = core.normalizer
    if core.pre_tokenizer is not None:
        twin.pre_tokenizer = core.pre_tokenizer
    for index, token in added_tokens(core):
        add = twin.add_special_tokens if token.special else twin.add_tokens
        add([token])
        if twin.token_to_id(token.content) != index:
            raise ValueError(f"its added token {token.content!r} has the id {index}, out of order")
    twin.encode_special_tokens = True
    return twin


def _token_bytes(core: Core) -> list[bytes]:
    """The bytes of every token, by id."""
    byte_of = _byte_level_alphabet()
    table: list[bytes] = []
    added = dict(added_tokens(core))
    for index in range(core.get_vocab_size(with_added_tokens=True)):
        token = core.id_to_token(index) or ""
        if index in added:
            table.append(token.encode())
        else:
            try:
                table.append(bytes([byte_of[char] for char in token]))
            except KeyError as error:
                raise ValueError(f"its token {token!r} is not byte-level BPE, the only kind supported") from error
    return table


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes are written as themselves, the others as characters from U+0100 up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(0x100 + place): byte for place, byte in enumerate(others)})
    return alphabet


def _without_surrogates(text: str) -> str:
    return text.encode("utf-16", errors="surrogatepass").decode("utf-16", errors="replace")
