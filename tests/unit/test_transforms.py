"""Transforms: how they are written, what is refused, and what each makes of a value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrotserve.errors import InvalidTransform
from parrotserve.transforms import WHOLE_VALUE, Transform, apply_transforms, parse_transform


class Words:
    """Counts words as tokens."""

    def truncate(self, text: str, tokens: int) -> str:
        return " ".join(text.split(" ")[:tokens])


def apply(source: str, value: str) -> str:
    return apply_transforms(tuple(map(parse_transform, source.split("|"))), value, Words())


class TestWriting:
    @pytest.mark.parametrize(
        ("source", "transform"),
        [
            ("strip", Transform("strip")),
            ("strip()", Transform("strip")),
            ("  code_block  ", Transform("code_block")),
            ("lines(2, 10)", Transform("lines", (2, 10))),
            ("truncate (5)", Transform("truncate", (5,))),
        ],
    )
    def test_a_transform_reads_like_a_call_with_literals(self, source: str, transform: Transform):
        assert parse_transform(source) == transform

    @pytest.mark.parametrize("source", ["strip", "code_block", "lines(2, 10)", "truncate(5)"])
    def test_it_shows_itself_as_it_was_written(self, source: str):
        assert str(parse_transform(source)) == source

    @pytest.mark.parametrize(
        ("source", "complaint"),
        [
            ("shout", "code_block, lines, strip, truncate"),
            ("", "is no transform"),
            ("2lines", "is no transform"),
            ("strip strip", "is no transform"),
            ("lines(1)", r"takes \(int, int\)"),
            ("lines", r"takes \(int, int\)"),
            ("strip(1)", r"takes \(no arguments\)"),
            ("lines('1', 2)", r"takes \(int, int\)"),
            ("lines(True, 2)", r"takes \(int, int\)"),
            ("truncate(-1)", "negative"),
            ("truncate(n)", "literal"),
            ("truncate(1", "is no transform"),
            ("truncate(1 +)", "literal"),
            ("truncate(__import__('os'))", "literal"),
        ],
    )
    def test_a_bad_one_is_refused_with_what_would_be_right(self, source: str, complaint: str):
        with pytest.raises(InvalidTransform, match=complaint):
            parse_transform(source)


class TestMeaning:
    @pytest.mark.parametrize(
        ("source", "value", "result"),
        [
            ("strip", "\n a b \t", "a b"),
            ("lines(2, 3)", "a\nb\nc\nd", "b\nc"),
            ("lines(2, 99)", "a\nb", "b"),
            ("lines(5, 9)", "a\nb", ""),
            ("lines(3, 2)", "a\nb\nc", ""),
            ("truncate(2)", "one two three", "one two"),
            ("truncate(0)", "one", ""),
            ("strip | lines(1, 1) | truncate(1)", "\n\none two\nthree", "one"),
        ],
    )
    def test_each_does_what_its_name_says_from_left_to_right(self, source: str, value: str, result: str):
        assert apply(source, value) == result

    @pytest.mark.parametrize(
        ("value", "block"),
        [
            ("Sure!\n```python\nx = 1\n```\nDone.", "x = 1"),
            ("```\na\n```\n```\nb\n```", "a"),
            ("  no fence at all ", "no fence at all"),
            ("```python\nthe model ran out of tok", "the model ran out of tok"),
            ("```\nprint('```')\n```", "print('```')"),
            ("```\n    indented\n\n```", "    indented"),
            ("```\n```", ""),
            ("", ""),
        ],
    )
    def test_code_block_is_the_inside_of_the_first_fence_closed_or_not(self, value: str, block: str):
        assert apply("code_block", value) == block

    @given(value=st.text(alphabet=st.sampled_from("ab`\n\r \u2028")), cut=st.integers(0, 20), data=st.data())
    def test_what_may_be_run_ahead_through_never_takes_text_back(self, value: str, cut: int, data: st.DataObject):
        first, last = data.draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
        source = f"lines({first}, {last})"
        assert parse_transform(source).name not in WHOLE_VALUE
        assert apply(source, value).startswith(apply(source, value[:cut]))
