"""Starlark functions: their results as text, and their errors in a sentence."""

from typing import Any

import pytest

from parrotserve.errors import NativeCallFailed
from parrotserve.starlark_functions import define


def run(body: str, **arguments: Any) -> str | None:
    return define(f"def f({', '.join(arguments)}):\n    {body}\n", "f", file="program.py", line=10)(arguments)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("return a", "x"),
        ("return a + 'é𝄞'", "xé𝄞"),
        ("return len('é𝄞')", "2"),
        ("return True", "True"),
        ("return 7 // 2", "3"),
        ("return 0.5", "0.5"),
        ("return [a, 1, None]", '["x", 1, None]'),
        ("return json.encode({'a': [a]})", '{"a":["x"]}'),
        ("return json.decode('[1, 2]')[1]", "2"),
        ("return ''", ""),
        ("return f'{a}-{a}'", "x-x"),
        ("return None", None),
        ("pass", None),
    ],
)
def test_the_result_is_text_by_starlarks_own_rules(body: str, text: str | None):
    assert run(body, a="x") == text


def test_arguments_are_what_json_has():
    assert run("return a['b'][0] + c * d", a={"b": ["x", None]}, c="y", d=2) == "xyy"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return a[5]", "Index `5` is out of bound (program.py, line 11: return a[5])"),
        ("return f(a)", "Starlark call stack overflow (program.py, line 11: return f(a))"),
        ("fail('no', a)", "fail: no x (program.py, line 11: fail('no', a))"),
        ("return nothing", "Variable `nothing` not found (program.py, line 11: return nothing)"),
        ("return a +", "unexpected new line here (program.py, line 11: return a +)"),
        ("load('x', 'y')", "unexpected"),
        ("return open(a)", "Variable `open` not found"),
        ("print(a)", "Variable `print` not found"),
        ("fail('x' * 10000)", "fail: xxx"),
    ],
)
def test_an_error_is_one_short_sentence_with_its_place(body: str, said: str):
    with pytest.raises(NativeCallFailed) as caught:
        run(body, a="x")
    assert str(caught.value).startswith(said) or said == "unexpected"
    assert len(str(caught.value)) < 800
    assert "\n" not in str(caught.value)


def test_calls_of_one_function_share_nothing():
    call = define("seen = []\ndef f(a):\n    seen.append(a)\n    return str(seen)\n", "f")
    with pytest.raises(NativeCallFailed, match="Immutable"):
        call({"a": "x"})


def test_the_first_line_of_the_source_is_where_it_was_written():
    with pytest.raises(NativeCallFailed, match="line 101: return a"):
        define("def f(a):\n    return a / 2\n", "f", line=100)({"a": "x"})
