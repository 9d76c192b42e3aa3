"""What is said of a result, and of what it took."""

import pytest

from parrotserve.cli.result import figures_line, raw, resolved, told
from parrotserve.cli.watch import Figures, Watched
from parrotserve.ids import SessionId
from parrotserve.sdk.variable import SemanticVariable

LONG = "a text that is too long to be shown a second time " * 2


@pytest.fixture
def shown() -> list[Watched]:
    texts = {
        "write.code": LONG,
        "pick.word": "yes",
        "plan.step": "a text of forty-two characters, no more...",
        "plan.lines": "two\nlines",
    }
    return [Watched(title, SessionId("s"), value=value) for title, value in texts.items()]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (LONG, "write.code"),
        ("yes", "'yes'"),
        ((LONG, 3), "(write.code, 3)"),
        ([LONG, "other"], "[write.code, 'other']"),
        ({"code": LONG}, "{'code': write.code}"),
        (["a text of forty-two characters, no more..."], "['a text of forty-two characters, no more...']"),
        ((f"{LONG}, but longer", "yes"), f"('{LONG}, but longer', 'yes')"),
        (["a text of forty-two characters, no more...", "yes", LONG], "[plan.step, 'yes', write.code]"),
        (["a text of forty-two characters, no more..."] * 2, "[plan.step, plan.step]"),
        ("two\nlines", "plan.lines"),
    ],
)
def test_a_long_text_that_was_shown_goes_by_its_title(result, expected, shown):
    assert told(result, shown) == f": {expected}"


def test_no_result_is_nothing(shown):
    assert told(None, shown) == " nothing"


@pytest.mark.parametrize(
    ("result", "expected"),
    [(None, ""), ("text", "text"), (("a", "b"), "a\n\nb"), ({"x.py": "code"}, "x.py:\ncode"), (3, "3")],
)
def test_a_pipe_gets_the_texts_themselves(result, expected):
    assert raw(result) == expected


def test_variables_in_a_result_are_got():
    variable = SemanticVariable("value")
    assert resolved((variable, [variable], {"x": variable}, 1)) == ("value", ["value"], {"x": "value"}, 1)


def test_figures_are_one_line():
    assert figures_line(Figures(requests=1, prompt_tokens=1200, output_tokens=30), 1.25) == (
        "1 request, 1,200 tokens read, 30 written, 1.2 s"
    )
    assert figures_line(Figures(requests=2, native_calls=1, prompt_tokens=20, cached_tokens=16), 0) == (
        "2 requests, 1 native call, 20 tokens read (16 from the cache), 0 written, 0.0 s"
    )
