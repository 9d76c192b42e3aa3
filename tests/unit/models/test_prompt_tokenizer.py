"""Tokenising at segment boundaries: nothing is lost, and prompts that begin alike begin with equal tokens."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny_models
from hypothesis import given
from hypothesis import strategies as st

from parrotserve.models.chat import ChatTemplate, load_chat_template, render
from parrotserve.models.files import ModelFiles
from parrotserve.models.prompt import PromptTokenizer
from parrotserve.models.tokenizer import Tokenizer, load_tokenizer
from parrotserve.sampling import Sampling
from parrotserve.segments import Input, Output, Text

pytestmark = pytest.mark.model

# Neither surrogates, which are no text, nor the characters whose bytes this model's vocabulary lacks.
LACKING = "\x04\x06\x13\x14\x16\x1d"
texts = st.text(
    st.one_of(
        st.sampled_from(" \n\tab1.'é🎉<|_"),
        st.characters(codec="utf-8", max_codepoint=0x2FFFF, exclude_characters=LACKING),
    ),
    max_size=12,
)


@dataclass(frozen=True)
class Piece:
    """A text of a prompt, written by its chat template or not."""

    text: str
    template: bool = False


pieces = st.lists(
    st.one_of(
        st.builds(Piece, texts),
        st.builds(Piece, st.sampled_from(["<|im_end|>\n<|im_start|>user\n", "<|im_start|>", "\n"]), st.just(True)),
    ),
    max_size=8,
)


def tokens_of(tokenizer: Tokenizer, prompt: list[Piece]) -> list[int]:
    steps = PromptTokenizer(tokenizer)
    tokens = [token for piece in prompt for token in steps.text(piece.text, template=piece.template)]
    return tokens + steps.before_output()


@given(pieces)
def test_the_tokens_decode_to_the_prompt(tokenizer: Tokenizer, prompt: list[Piece]):
    text = "".join(piece.text for piece in prompt)
    assert tokenizer.decode(tokens_of(tokenizer, prompt), special=True) == text.removesuffix(" ")


@given(pieces, pieces, pieces)
def test_equal_beginnings_are_equal_tokens(tokenizer: Tokenizer, common: list[Piece], a: list[Piece], b: list[Piece]):
    def split(rest: list[Piece]) -> list[int]:
        steps = PromptTokenizer(tokenizer)
        tokens = [token for piece in common for token in steps.text(piece.text, template=piece.template)]
        for piece in rest:
            steps.text(piece.text, template=piece.template)
        return tokens

    assert split(a) == split(b)
    held_back = "".join(piece.text for piece in common)
    assert held_back.startswith(tokenizer.decode(split(a), special=True))
    assert held_back.removeprefix(tokenizer.decode(split(a), special=True)).strip() == ""


running = st.text(st.one_of(st.sampled_from(" \n\tab1.'é🎉<|_({"), st.characters(max_codepoint=0x2FFF, codec="utf-8")),
                  max_size=30)  # fmt: skip


@given(st.one_of(texts, st.just("Say ")), running, running, st.booleans())
def test_tokens_of_a_beginning_stay_whatever_is_written_later(
    tokenizer: Tokenizer, before: str, written: str, later: str, first: bool
):
    prompt = PromptTokenizer(tokenizer)
    if not first:
        prompt.text(before)
    certain = prompt.beginning(written)
    assert prompt.beginning(written) == certain
    assert prompt.text(written + later)[: len(certain)] == certain


def test_whole_words_are_certain(tokenizer: Tokenizer):
    assert tokenizer.decode(PromptTokenizer(tokenizer).beginning("def go(): pa")) == "def go():"
    assert PromptTokenizer(tokenizer).beginning("word") == []


@given(texts, texts)
def test_control_tokens_come_only_from_the_template(tokenizer: Tokenizer, before: str, after: str):
    spelled = [Piece(f"{before}<|im_"), Piece(f"end|>{after}"), Piece(f"{before}<|im_start|>{after}")]
    assert not any(map(tokenizer.is_control, tokens_of(tokenizer, spelled)))
    template = tokens_of(tokenizer, [Piece(before), Piece("<|im_end|>", template=True), Piece(after)])
    assert sum(map(tokenizer.is_control, template)) == 1


def decoded(tokenizer: Tokenizer, tokens: list[int]) -> list[str]:
    return [tokenizer.token_bytes(token).decode(errors="backslashreplace") for token in tokens]


def test_white_space_at_a_boundary_waits_for_what_follows(tokenizer: Tokenizer):
    steps = PromptTokenizer(tokenizer)
    assert decoded(tokenizer, steps.text("the task: ")) == ["the", " task", ":"]
    assert steps.text("") == []
    assert steps.text(" ") == []
    assert decoded(tokenizer, steps.text("code")) == [" ", " code"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("a:", []), ("a: ", []), ("a:  ", [" "]), ("a:\n", ["\n"]), ("a:\n ", ["\n"]), ("a: \n", [" \n"])],
)
def test_one_space_before_an_output_is_the_output_s(tokenizer: Tokenizer, text: str, tokens: list[str]):
    steps = PromptTokenizer(tokenizer)
    assert decoded(tokenizer, steps.text(text)) == ["a", ":"]
    assert decoded(tokenizer, steps.before_output()) == tokens
    assert decoded(tokenizer, steps.text(" and")) == [" and"]


def test_bos_comes_first_and_once(tmp_path: Path):
    extra = {"tokenizer.ggml.add_bos_token": True}
    tokenizer = load_tokenizer(tiny_models.write_gguf(tmp_path / "a.gguf", extra=extra))
    a = tokenizer.encode("a")
    assert tokens_of(tokenizer, [Piece("a"), Piece("a")]) == [1, *a, *a]
    assert tokens_of(tokenizer, [Piece(""), Piece("<|im_start|>a", template=True)]) == [1, *a]
    assert tokens_of(tokenizer, [Piece(" "), Piece("a")])[0] == 1
    assert tokens_of(tokenizer, []) == [1]


# --- What boundary tokenisation costs: everything in which it differs from tokenising whole prompts ----------------

TEMPLATES = [
    "You are an expert software engineer.\nWrite python code of {}.\nCode: ",
    "You write test code for {}.\nYour test code: ",
    "Question: {}\nAnswer:",
    "Summarise:\n\n{}\n\nSummary:",
    'Translate "{}" to French.',
    "({})",
    "Key={};",
    "def f({}):\n    return ",
    "{}'s house",
    "The {}s are",
    "{}{}",
    "pre{}post",
]
VALUES = [
    "a snake game",
    "x",
    " spaced ",
    "line\n",
    "\n\nfirst",
    "def f():\n    pass\n",
    "42",
    "naïve",
    "🎉",
    "",
    "it's",
]


def corpus(template: ChatTemplate) -> list[tuple[str, str, list[Piece]]]:
    """Every template with every value, as a chat."""
    found: list[tuple[str, str, list[Piece]]] = []
    for pattern in TEMPLATES:
        for value in VALUES:
            constant = pattern.split("{}")
            segments = [Text(constant[0])]
            for text in constant[1:]:
                segments += [Input("v"), Text(text)]  # type: ignore[arg-type, list-item]
            flat = render([*segments, Output("o", Sampling())], template=template, chat=True)  # type: ignore[arg-type]
            prompt = [
                Piece(segment.text, segment.template) if isinstance(segment, Text) else Piece(value)
                for segment in flat
                if not isinstance(segment, Output)
            ]
            found.append((pattern, value, prompt))
    return found


DIVERGENCES = {
    ("({})", ""): ("(|)", "()"),
    ("The {}s are", "a snake game"): (" game|s", " games"),
    ("The {}s are", "naïve"): ("ïve|s", "ï|ves"),
    ("The {}s are", "x"): (" x|s", " xs"),
    ('Translate "{}" to French.', ""): (' "|"', ' ""'),
    ("def f({}):\n    return ", ""): ("(|):", "():"),
    ("pre{}post", "def f():\n    pass\n"): ("pre|def", "pred|ef"),
    ("pre{}post", "naïve"): ("pre|na", "p|ren|a"),
    ("{}'s house", "🎉"): ("'s", "'|s"),
    ("{}{}", "naïve"): ("ïve|na", "ï|ven|a"),
    ("{}{}", "x"): ("x|x", "xx"),
}
"""What boundary tokenisation gives, and what whole-prompt tokenisation would: a word or a sign that runs over a
boundary, and nothing else."""


def differing(ours: list[str], whole: list[str]) -> tuple[str, str]:
    """Where two tokenisations of one text differ, tokens parted by bars."""
    while ours and whole and ours[0] == whole[0]:
        ours, whole = ours[1:], whole[1:]
    while ours and whole and ours[-1] == whole[-1]:
        ours, whole = ours[:-1], whole[:-1]
    return "|".join(ours), "|".join(whole)


def test_every_divergence_from_whole_prompt_tokenisation(tokenizer: Tokenizer, smollm: ModelFiles):
    template = load_chat_template(smollm)
    assert template is not None
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for pattern, value, prompt in corpus(template):
        ours = tokens_of(tokenizer, prompt)
        whole = tokenizer.encode("".join(piece.text for piece in prompt), special=True)
        if ours != whole:
            found[pattern, value] = differing(decoded(tokenizer, ours), decoded(tokenizer, whole))
    assert found == DIVERGENCES


def test_tokens_that_a_program_gives_are_read_as_they_are(tokenizer: Tokenizer):
    steps = PromptTokenizer(tokenizer)
    given = [1, 28120, 198, 2]
    assert steps.tokens(given) + steps.before_output() == given


def test_what_was_held_back_comes_before_given_tokens(tokenizer: Tokenizer):
    steps = PromptTokenizer(tokenizer)
    tokens = steps.text("one \n") + steps.tokens([28120])
    assert tokenizer.decode(tokens[:-1]) == "one \n"
    assert tokens[-1] == 28120


@pytest.mark.parametrize(("prompt", "withheld"), [("one ", True), ("one", False), ("one\n", False), ("one  ", True)])
def test_a_prompt_knows_whether_it_left_a_space_to_the_model(tokenizer: Tokenizer, prompt: str, withheld: bool):
    steps = PromptTokenizer(tokenizer)
    steps.text(prompt)
    steps.before_output()
    assert steps.withheld is withheld
