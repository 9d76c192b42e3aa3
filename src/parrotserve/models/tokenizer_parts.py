"""Building a model's tokenizer from its files: `tokenizer.json`, or the key-values of a GGUF file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.pre_tokenizers import PreTokenizer

from parrotserve.models.config import folder_eos
from parrotserve.models.files import ModelFiles, ModelFormat
from parrotserve.models.gguf_file import GgufFile
from parrotserve.models.metadata import Metadata, malformed, read_json
from parrotserve.models.template_source import folder_template, gguf_template, special_text, tokenizer_config


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerParts:
    """What a model's files define about its tokenizer."""

    core: Tokenizer
    eos: frozenset[int]
    """All tokens that end a generation."""
    bos: int | None
    prompt_start: tuple[int, ...]
    """Tokens that the model expects before every prompt: its BOS token, or none."""
    chat_template: str | None


_END_NAMES = frozenset(
    ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>", "</s>")
)
"""Control tokens that end a turn in every model that has them; files often name only one of theirs."""

_CONTROL, _USER_DEFINED = 3, 4
"""GGUF token types that are matched before the text is split into words."""


def read_tokenizer_parts(files: ModelFiles, *, rows: int | None = None) -> TokenizerParts:
    """Build the tokenizer. With `rows`, the number of tokens that the weights have, later tokens are left out.

    Raises `MalformedModel` for broken files and kinds of tokenizer that are not supported.
    """
    parts = gguf_parts(GgufFile(files.path).metadata) if files.format is ModelFormat.GGUF else _folder_parts(files)
    if rows is None or parts.core.get_vocab_size(with_added_tokens=True) <= rows:
        return parts
    start = max(parts.prompt_start, default=-1)
    if start >= rows:
        raise malformed(files.path, f"its prompts start with token {start}, but its weights have only {rows} tokens")
    return replace(
        parts,
        core=_below(parts.core, rows),
        eos=frozenset(end for end in parts.eos if end < rows),
        bos=None if parts.bos is None or parts.bos >= rows else parts.bos,
    )


def gguf_parts(data: Metadata) -> TokenizerParts:
    """The tokenizer in a GGUF file's key-values."""
    kind = data.text("tokenizer.ggml.model")
    if kind != "gpt2":
        raise data.malformed(f"its tokenizer is of the kind {kind!r}; supported is 'gpt2' (byte-level BPE)")
    tokens = data.texts("tokenizer.ggml.tokens")
    types = data.integers("tokenizer.ggml.token_type")
    if len(tokens) != len(types):
        raise data.malformed(f"it has {len(tokens)} tokens but {len(types)} token types")
    pre = _pre_tokenizer(data)
    core = Tokenizer(_bpe(data, tokens, ignore_merges=pre.ignore_merges))
    core.pre_tokenizer = pre_tokenizers.Sequence(list(pre.steps))
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([_added(t, special=True) for t, k in zip(tokens, types, strict=True) if k == _CONTROL])
    core.add_tokens([_added(t, special=False) for t, k in zip(tokens, types, strict=True) if k == _USER_DEFINED])
    ids = {name: data.token(f"tokenizer.ggml.{name}_token_id", len(tokens)) for name in _GGUF_IDS}
    ends = {ids["eos"], ids["eot"], ids["eom"]} | _named_ends(core)
    bos = ids["bos"]
    # llama.cpp's rule if the key is absent: byte-level BPE adds none, except Llama 3's and Tekken.
    add_bos = bos is not None and data.flag("tokenizer.ggml.add_bos_token", pre.adds_bos)
    return TokenizerParts(
        core=core,
        eos=frozenset(end for end in ends if end is not None),
        bos=bos,
        prompt_start=(bos,) if add_bos and bos is not None else (),
        chat_template=gguf_template(data),
    )


_GGUF_IDS = ("bos", "eos", "eot", "eom")


def _bpe(data: Metadata, tokens: list[str], *, ignore_merges: bool) -> models.BPE:
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise data.malformed("tokenizer.ggml.tokens names a token twice")
    merges = [(left, right) for left, _, right in (m.partition(" ") for m in data.texts("tokenizer.ggml.merges"))]
    try:
        return models.BPE(vocabulary, merges, ignore_merges=ignore_merges)
    except Exception as error:  # the package raises a bare Exception for a merge of unknown tokens
        raise data.malformed(f"tokenizer.ggml.merges does not fit its tokens ({error})") from error


def _added(text: str, *, special: bool) -> AddedToken:
    return AddedToken(text, special=special, normalized=False)


def _named_ends(core: Tokenizer) -> set[int]:
    added = core.get_added_tokens_decoder()
    return {index for index, token in added.items() if token.special and token.content in _END_NAMES}


# --- How text is split into words before merging, by the names that GGUF files use -----------------------------


@dataclass(frozen=True, slots=True)
class _PreTokenizer:
    steps: tuple[PreTokenizer, ...]
    ignore_merges: bool = False
    """A word that is a token is taken whole, without merges."""
    adds_bos: bool = False


def _split(pattern: str) -> PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated")


def _bytes(*, words: bool) -> PreTokenizer:
    """Maps bytes to byte-level characters; with `words`, splits by GPT-2's pattern first."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words)


_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _pre_tokenizers() -> dict[str, _PreTokenizer]:
    digits = pre_tokenizers.Digits(individual_digits=True)
    single_digits = _PreTokenizer((digits, _bytes(words=True)))
    llama3 = _PreTokenizer(
        (_split(f"{_CONTRACTIONS}{_WORDS}\\p{{N}}{{1,3}}{_REST}"), _bytes(words=False)),
        ignore_merges=True,
        adds_bos=True,
    )
    qwen2 = _PreTokenizer((_split(f"{_CONTRACTIONS}{_WORDS}\\p{{N}}{_REST}"), _bytes(words=False)))
    # As llama.cpp treats files that name no pre-tokenizer.
    default = (_split(r"[\p{P}\$\+<=>\^~\|]+"), _split(_GPT2), _split(r"\p{N}+"), _split("[0-9][0-9][0-9]"))
    return {
        "default": _PreTokenizer((*default, _bytes(words=False))),
        "gpt-2": _PreTokenizer((_bytes(words=True),)),
        "smollm": single_digits,
        "starcoder": single_digits,
        "refact": single_digits,
        "llama-bpe": llama3,
        "llama3": llama3,
        "llama-v3": llama3,
        "qwen2": qwen2,
        "deepseek-r1-qwen": qwen2,
        "tekken": _PreTokenizer((_split(_TEKKEN), _bytes(words=False)), ignore_merges=True, adds_bos=True),
    }


def _pre_tokenizer(data: Metadata) -> _PreTokenizer:
    name = data.text("tokenizer.ggml.pre", "default")
    known = _pre_tokenizers()
    try:
        return known[name]
    except KeyError as error:
        names = ", ".join(known)
        raise data.malformed(f"its pre-tokenizer {name!r} is not known; known are {names}") from error


# --- Hugging Face folders ---------------------------------------------------------------------------------------


def _folder_parts(files: ModelFiles) -> TokenizerParts:
    core = _read_core(files.path / "tokenizer.json")
    config = tokenizer_config(files.path)
    bos = _id_of(core, special_text(config, "bos_token"))
    named = folder_eos(files, read_json(files.path / "config.json")) | _named_ends(core)
    end = _id_of(core, special_text(config, "eos_token"))
    start = core.encode("", add_special_tokens=True).ids
    return TokenizerParts(
        core=core,
        eos=named if end is None else named | {end},
        bos=bos,
        prompt_start=(bos,) if bos is not None and start[:1] == [bos] else (),
        chat_template=folder_template(files.path, config),
    )


def _read_core(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises bare Exceptions
        raise malformed(path, f"the tokenizer in it cannot be read ({error})") from error


def _id_of(core: Tokenizer, text: str | None) -> int | None:
    return None if text is None else core.token_to_id(text)


def _below(core: Tokenizer, rows: int) -> Tokenizer:
    """The same tokenizer with only the ids below `rows`: what spelled a removed token is spelled with others."""
    if not isinstance(core.model, models.BPE):
        return core  # refused later, for not being byte-level BPE
    whole = json.loads(core.to_str())
    model = whole["model"]
    vocabulary = {token: index for token, index in model["vocab"].items() if index < rows}
    model["merges"] = [
        (left, right)
        for left, right in model["merges"]
        if left in vocabulary and right in vocabulary and left + right in vocabulary
    ]
    model["vocab"] = vocabulary
    whole["added_tokens"] = [token for token in whole["added_tokens"] if token["id"] < rows]
    return Tokenizer.from_str(json.dumps(whole))


def added_tokens(core: Tokenizer) -> Sequence[tuple[int, AddedToken]]:
    """Tokens matched before the text is split into words, by id."""
    return sorted(core.get_added_tokens_decoder().items())
