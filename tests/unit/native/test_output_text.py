"""The text of an output while its tokens come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrotserve.engines.fake_tokenizer import END, FakeTokenizer
from parrotserve.engines.native.output_text import OutputText
from parrotserve.sampling import Sampling

TOKENIZER = FakeTokenizer()


def output(*stop: str, min_tokens: int = 0) -> OutputText:
    return OutputText(TOKENIZER.stream(), Sampling(stop=stop, min_tokens=min_tokens))


def push(text: OutputText, string: str) -> list[str]:
    """What becomes certain with each byte, until a stop string appears."""
    given_out: list[str] = []
    for token in TOKENIZER.encode(string):
        if text.stopped:
            break
        given_out.append(text.push(token))
    return given_out


def test_text_is_given_out_as_it_comes():
    assert push(output(), "abc") == ["a", "b", "c"]


def test_one_leading_space_is_dropped_and_no_other():
    text = output()
    push(text, "  a b")
    text.finish()
    assert text.text == " a b"


def test_an_unfinished_character_is_held_back():
    text = output()
    assert push(text, "é") == ["", "é"]
    assert push(text, "x") == ["x"]


def test_a_character_that_stays_unfinished_is_replaced_at_the_end():
    text = output()
    text.push(TOKENIZER.encode("é")[0])
    assert text.finish() == "�"
    assert text.text == "�"


def test_what_may_begin_a_stop_string_is_held_back_until_it_does_not():
    assert push(output("stop"), "a stomp") == ["a", " ", "", "", "", "stom", "p"]


def test_what_is_still_held_back_at_the_end_is_given_out():
    text = output("stop")
    assert push(text, "sto") == ["", "", ""]
    assert text.finish() == "sto"


def test_a_stop_string_ends_the_text_and_is_no_part_of_it():
    text = output("\n\n")
    assert "".join(push(text, "one\ntwo\n\nthree")) == "one\ntwo"
    assert text.stopped
    assert text.finish() == ""
    assert text.text == "one\ntwo"


def test_the_stop_string_that_is_complete_first_counts():
    text = output("bcde", "cd")
    push(text, "abcde")
    assert text.text == "ab"


def test_the_dropped_space_is_no_stop_string():
    text = output(" ")
    push(text, " one two")
    assert text.text == "one"


def test_a_stop_string_may_be_the_first_thing_said():
    text = output("###")
    push(text, "###")
    assert text.stopped
    assert text.text == ""


def test_stop_strings_count_only_from_min_tokens_on():
    text = output("x", min_tokens=4)
    push(text, "axbxc")
    assert text.text == "axb"


def test_a_stop_string_that_ended_too_early_does_not_end_the_text_later():
    text = output("ab", min_tokens=3)
    push(text, "abc")
    assert not text.stopped
    assert text.finish() == ""
    assert text.text == "abc"


def test_control_tokens_add_no_text():
    text = output()
    assert text.push(END) == ""
    assert text.push(ord("a")) == "a"


def decoded(tokens: list[int]) -> str:
    decoder = TOKENIZER.stream()
    return "".join(decoder.push([token]) for token in tokens)


def reference(tokens: list[int], stop: tuple[str, ...], min_tokens: int) -> str:
    """All at once: the shortest beginning in which a stop string ends, cut before it."""
    for count in range(max(min_tokens, 1), len(tokens) + 1):
        before, text = decoded(tokens[: count - 1]), decoded(tokens[:count])
        dropped = text.startswith(" ")
        before, text = before[dropped:], text[dropped:]
        cuts = [
            end - len(one) for one in stop for end in range(len(before) + 1, len(text) + 1) if text[:end].endswith(one)
        ]
        if cuts:
            return text[: min(cuts)]
    whole = TOKENIZER.decode(tokens)
    return whole[whole.startswith(" ") :]


@given(
    string=st.text(alphabet="ab é", max_size=30),
    stop=st.lists(st.text(alphabet="ab é", min_size=1, max_size=4), max_size=3).map(tuple),
    min_tokens=st.integers(0, 5),
    loose=st.lists(st.integers(128, 255), max_size=2),
)
def test_what_is_given_out_joins_to_the_text_whatever_comes(
    string: str, stop: tuple[str, ...], min_tokens: int, loose: list[int]
):
    tokens = TOKENIZER.encode(string) + loose
    text = output(*stop, min_tokens=min_tokens)
    parts: list[str] = []
    for token in tokens:
        if not text.stopped:
            parts.append(text.push(token))
            assert text.given_since(0) == "".join(parts)
    parts.append(text.finish())
    assert "".join(parts) == text.text
    assert text.text == reference(tokens, stop, min_tokens)


@pytest.mark.parametrize("count", range(8))
def test_a_rerun_that_pushes_delivered_tokens_stands_where_the_first_run_stood(count: int):
    tokens = TOKENIZER.encode(" stéstop")
    first, second = output("stop"), output("stop")
    told = "".join(first.push(token) for token in tokens[:count])
    for token in tokens[:count]:
        second.push(token)
    assert second.given_since(0) == told
