"""Transforms: how they are written, what is refused, and what each makes of a value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrotserve.errors import InvalidTransform, TransformFailed
from parrotserve.transforms import WHOLE_VALUE, Transform, apply_transforms, parse_transform


class Words:
    """Counts words as tokens."""

    def truncate(self, text: str, tokens: int) -> str:
        return " ".join(text.split(" ")[:tokens])


def apply(source: str, value: str) -> str:
    return apply_transforms(tuple(map(parse_transform, source.split(" | "))), value, Words())


class TestWriting:
    @pytest.mark.parametrize(
        ("source", "transform"),
        [
            ("strip", Transform("strip")),
            ("strip()", Transform("strip")),
            ("  code_block  ", Transform("code_block")),
            ("lines(2, 10)", Transform("lines", (2, 10))),
            ("truncate (5)", Transform("truncate", (5,))),
            ('json("a.b[0]")', Transform("json", ("a.b[0]",))),
            ("json('[\"a b\"].c')", Transform("json", ('["a b"].c',))),
            (r'regex("(\d+)\.")', Transform("regex", (r"(\d+)\.",))),
            (r'regex(r"\bword\b")', Transform("regex", (r"\bword\b",))),
            (r'regex("a|\"b\"")', Transform("regex", (r"a|\"b\"",))),
        ],
    )
    def test_a_transform_reads_like_a_call_with_literals(self, source: str, transform: Transform):
        assert parse_transform(source) == transform

    @pytest.mark.parametrize(
        "source", ["strip", "code_block", "lines(2, 10)", "truncate(5)", 'json("a.b[0]")', r'regex("\d+")']
    )
    def test_it_shows_itself_as_it_was_written(self, source: str):
        assert str(parse_transform(source)) == source

    @pytest.mark.parametrize(
        ("source", "complaint"),
        [
            ("shout", "code_block, json, lines, regex, strip, truncate"),
            ("", "is not a transform"),
            ("2lines", "is not a transform"),
            ("strip strip", "is not a transform"),
            ("lines(1)", r"takes \(int, int\)"),
            ("lines", r"takes \(int, int\)"),
            ("strip(1)", r"takes \(no arguments\)"),
            ("lines('1', 2)", r"takes \(int, int\)"),
            ("lines(True, 2)", r"takes \(int, int\)"),
            ("lines(0, 1)", "0 is not a line number; lines count from 1"),
            ("lines(3, 1)", "1 comes before 3"),
            ("truncate(0)", "0 must be at least 1"),
            ('regex("")', "is empty, and finds nothing"),
            ("truncate(-1)", "negative"),
            ("truncate(n)", "literal"),
            ("truncate(1", "is not a transform"),
            ("truncate(1 +)", "literal"),
            ("truncate(__import__('os'))", "literal"),
            ("json", r"takes \(str\)"),
            ("json(1)", r"takes \(str\)"),
            ('json("")', r"names nothing; write names and indexes such as 'a\.b\[0\]'"),
            ('json("a..b")', r"cannot be read from '\.\.b' on"),
            ('json(".a")', r"cannot be read from '\.a' on"),
            ('json("ab[")', r"cannot be read from '\[' on"),
            ('json("a[b]")', r"cannot be read from '\[b\]' on"),
            ('json("a[0]b")', "cannot be read from 'b' on"),
            ('json("a b")', "cannot be read from ' b' on"),
            ('regex("(")', r"is not a valid RE2 pattern: missing \)"),
            (r'regex("(a)\1")', "is not a valid RE2 pattern: invalid escape sequence"),
            ('regex("(?=a)")', "is not a valid RE2 pattern: invalid perl operator"),
            ('regex("(a)(b)")', r"has 2 capturing groups; at most one is allowed, write \(\?:"),
            ('regex("\bword")', 'has a backspace in it; .* put an r before the docstring: r"""'),
            ('regex("((a{50}){20}){9}")', "is not a valid RE2 pattern"),
            (f'regex("{"a" * 1001}")', "longer than 1000 characters"),
            (f"lines({'-' * 100_000}1, 2)", "must be literal numbers or texts"),
            (f"lines({'1+' * 20_000}1, 2)", "must be literal numbers or texts"),
            ("!" * 100_000, "is not a transform"),
        ],
        ids=lambda text: text[:30],
    )
    def test_a_bad_one_is_refused_with_what_would_be_right(self, source: str, complaint: str):
        with pytest.raises(InvalidTransform, match=complaint) as refused:
            parse_transform(source)
        assert len(str(refused.value)) < 1500

    def test_a_pattern_that_came_over_the_wire_is_checked_too(self):
        with pytest.raises(InvalidTransform, match="not valid Unicode"):
            Transform("regex", ("\udc80",))


class TestMeaning:
    @pytest.mark.parametrize(
        ("source", "value", "result"),
        [
            ("strip", "\n a b \t", "a b"),
            ("lines(2, 3)", "a\nb\nc\nd", "b\nc"),
            ("lines(2, 99)", "a\nb", "b"),
            ("lines(5, 9)", "a\nb", ""),
            ("lines(3, 3)", "a\nb\nc", "c"),
            ("truncate(2)", "one two three", "one two"),
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
        first, last = sorted(data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4))))
        source = f"lines({first}, {last})"
        assert parse_transform(source).name not in WHOLE_VALUE
        assert apply(source, value).startswith(apply(source, value[:cut]))


class TestJson:
    VALUE = """
        {"title": "Über Papageien", "parts": [{"name": "beak", "size": 1.5, "old": false}, {}],
         "a name": {"x.y": "z"}, "none": null, "count": 123456789012345678901234567890}
    """

    @pytest.mark.parametrize(
        ("path", "result"),
        [
            ("title", "Über Papageien"),
            ("parts[0].name", "beak"),
            ("parts[0].size", "1.5"),
            ("parts[0].old", "false"),
            ("parts[-1]", "{}"),
            ("parts[0]", '{"name": "beak", "size": 1.5, "old": false}'),
            ("['a name']['x.y']", "z"),
            ("['a name']", '{"x.y": "z"}'),
            ("none", "null"),
            ("count", "123456789012345678901234567890"),
        ],
    )
    def test_a_text_is_given_as_it_is_and_the_rest_as_json(self, path: str, result: str):
        assert apply(f'json("{path}")', self.VALUE) == result

    def test_the_outermost_value_may_be_a_list(self):
        assert apply('json("[1][0]")', '[1, ["x"]]') == "x"

    def test_it_reads_what_another_transform_took_out(self):
        assert apply('code_block | json("a")', 'Here you are:\n```json\n{"a": "b"}\n```\nAnything else?') == "b"

    @pytest.mark.parametrize(
        ("path", "value", "complaint"),
        [
            ("a", "", "it is empty"),
            ("a", "Sure! {}", "Expecting value at line 1, column 1.*`code_block`"),
            ("a", '{"a": 1', "Expecting ',' delimiter at line 1"),
            ("a", '{"a": NaN}', "NaN is not a JSON number"),
            ("a", '{"a": 1e999}', "'a' is neither a number nor a text that JSON has"),
            ("a", '{"a": "\\ud800"}', "'a' is neither a number nor a text that JSON has"),
            ("a", '{"a":' * 100_000, "nested too deeply"),
            ("a", '{"a": ' + "9" * 5000 + "}", "that can be read"),
            ("b", '{"a": 1, "c": 2}', "the value has no 'b'; it has: 'a', 'c'"),
            ("b", "{}", "it has: nothing"),
            ("b", str({f"k{n}": n for n in range(20)}).replace("'", '"'), "'k7', …"),
            ("a.b[2]", '{"a": {"b": [1, 2]}}', r"'a\.b' has 2 items, so there is no \[2\]"),
            ("a[-3]", '{"a": [1, 2]}', r"'a' has 2 items, so there is no \[-3\]"),
            ("a.b", '{"a": [1, 2]}', "'a' is a list, which has no 'b'"),
            ("a[0]", '{"a": {}}', r"'a' is an object, which has no \[0\]"),
            ("a.b", '{"a": "text"}', "'a' is a text, and has nothing within it"),
            ("a.b", '{"a": true}', "'a' is true or false"),
            ("a.b", '{"a": null}', "'a' is null"),
            ("a.b", '{"a": 1.0}', "'a' is a number"),
        ],
    )
    def test_what_does_not_fit_is_refused_with_the_place(self, path: str, value: str, complaint: str):
        with pytest.raises(TransformFailed, match=complaint):
            apply(f'json("{path}")', value)


class TestRegex:
    @pytest.mark.parametrize(
        ("source", "value", "result"),
        [
            (r'regex("\d+")', "about 12 or 13", "12"),
            (r'regex("Answer: *(\w+)")', "Well. Answer: yes. Answer: no.", "yes"),
            (r'regex("(?:a|b)c|(d)c")', "dc", "d"),
            (r'regex("(?s)<(.*)>")', "<a\nb>", "a\nb"),
            (r'regex("(?i)\bPARROT\b")', "a parrot.", "parrot"),
            ('regex("x*")', "abc", ""),
            (r'regex("\p{Lu}\S*") | strip', "eine Katze", "Katze"),
        ],
    )
    def test_it_gives_the_first_match_or_its_group(self, source: str, value: str, result: str):
        assert apply(source, value) == result

    @pytest.mark.parametrize(
        ("source", "value", "complaint"),
        [
            (r'regex("\d+")', "no number here", r"no match of '\\\\d\+' in the value's 14 characters"),
            ('regex("a|(b)")', "a", "the group took no part in the match"),
            ('regex("(?:a|b)*a(?:a|b){900}c")', "ab" * 200_000, "400,000 characters are too many for a pattern"),
        ],
    )
    def test_what_does_not_fit_is_refused_with_the_reason(self, source: str, value: str, complaint: str):
        with pytest.raises(TransformFailed, match=complaint):
            apply(source, value)

    @pytest.mark.timeout(20)
    def test_no_pattern_explodes(self):
        with pytest.raises(TransformFailed, match="no match"):
            apply('regex("(x+x+)+y")', "x" * 100_000)  # exponential for engines that backtrack


def test_only_what_later_text_cannot_change_may_be_run_ahead_through():
    assert frozenset({"json", "regex"}) <= WHOLE_VALUE


def test_a_misspelt_transform_is_told_which_was_meant():
    with pytest.raises(InvalidTransform, match=r"no transform 'stirp'; did you mean 'strip'\?"):
        Transform("stirp")
    with pytest.raises(InvalidTransform, match=r"no transform 'xyzzy'\. There are: code_block, "):
        Transform("xyzzy")
