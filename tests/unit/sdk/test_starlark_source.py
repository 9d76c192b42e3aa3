"""Functions for the sandbox: what goes there of a decorated function, and what is refused where it is declared."""

import linecache
import re
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

import Parrot as P
from parrotserve.errors import DeclarationError
from parrotserve.protocol import MOST_SOURCE
from parrotserve.sdk.starlark_source import starlark_source
from parrotserve.starlark_functions import define

_numbers = count()


def declared(source: str, name: str = "f") -> Callable[..., Any]:
    """The function of a module's source, as if the module had been imported from a file."""
    file = f"/programs/program-{next(_numbers)}.py"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace: dict[str, Any] = {"P": P}
    exec(compile(source, file, "exec"), namespace)
    return namespace[name]


def run(function: Callable[..., Any], **arguments: Any) -> str | None:
    source = starlark_source(function)
    return define(source.text, source.name, file=source.file, line=source.line)(arguments)


class TestWhatGoes:
    def test_the_function_alone_without_decorators_and_annotations(self):
        function = declared(
            "def deco(**options): return lambda function: function\n\n"
            "@deco(a=1)\n"
            "@deco()\n"
            'def f(text: P.SemanticVariable, n: \'int | None\' = 2, *, sep: dict[str, int] = ", ") -> "list[str]":\n'
            "    # Größe\n"
            "    parts: list[str] = [text] * n\n"
            "    return sep.join(parts)\n"
            "\n"
            "after = 1\n"
        )
        source = starlark_source(function)
        assert [re.sub(r"(?<=\S) +", " ", line) for line in source.text.splitlines()] == [
            'def f(text , n = 2, *, sep = ", ") :',
            "    # Größe",
            "    parts = [text] * n",
            "    return sep.join(parts)",
        ]
        assert (source.name, source.line) == ("f", 5)
        assert run(function, text="x", n=3) == "x, x, x"

    def test_a_function_within_another(self):
        def shout(text: str) -> str:
            """Louder."""

            def loud(word: str) -> str:
                return word.upper()

            return " ".join([loud(word) for word in text.split(" ")]) + "!"

        assert run(shout, text="hello you") == "HELLO YOU!"

    def test_annotations_of_several_lines_leave_lines_where_they_are(self):
        function = declared(
            "def f(\n    a: dict[\n        str, int\n    ],\n    b: int = 1,\n) -> str:\n    return c\n"
        )
        with pytest.raises(DeclarationError, match=r"`c` not found.*line 7: return c"):
            starlark_source(function)

    def test_texts_with_arrows_and_colons_stay(self):
        function = declared("def f(a: str = 'a -> b: c') -> str: return a + ' -> d: e'\n")
        assert run(function) == "a -> b: c -> d: e"

    def test_a_decorated_function_is_taken_through_its_wrapper(self):
        import functools

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            def wrapper(*args: Any) -> Any:
                return function(*args)

            return wrapper

        @decorate
        def twice(text: str) -> str:
            return text * 2

        assert run(twice, text="x") == "xx"


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "complaint"),
        [
            ("while a:\n        pass", "no while; write `for _ in range"),
            ("import os", "no import; it reaches nothing outside"),
            ("from os import path", "no import"),
            ("try:\n        pass\n    except ValueError:\n        pass", r"no try; .*fail\(...\)"),
            ("raise ValueError(a)", "no raise"),
            ("assert a", "no assert"),
            ("with a:\n        pass", "no with"),
            ("class A: pass", "no class"),
            ("yield a", "no yield; build a list"),
            ("return ''.join(x for x in a)", "no a generator; build a list"),
            ("global a1", "no global"),
            ("del a", "no del"),
            ("return a is None", "no is; use =="),
            ("return a is not None", "no is not; use !="),
            ("return 2 ** 3", r"no \*\*; multiply"),
            ("b = 2\n    b **= 3", r"no \*\*; multiply"),
            ("return {1, 2}", "no a set"),
            ("return {x for x in a}", "no a set"),
            ("return [b := 1, b]", "no :="),
            ("match a:\n        case _: pass", "no match; use if and elif"),
            ("return 1 < 2 < 3", "no comparison of three; join two by `and`"),
            ("for x in a: pass\n    else: pass", "no else of a for"),
            ("return f'{a.upper()}'", "no f-string with more than names"),
            ("return f'{a:>5}'", "no f-string with more than names"),
            ("return f'{a!r}'", "no f-string with more than names"),
            ("b: int", "no declaration without a value"),
            ("return b'x'", "no bytes"),
            ("return 1j", "no complex"),
            ("@str\n    def g(): pass", "no decorator"),
            ("async def g(): pass", "no async"),
            ("return helper(a)", r"`helper` not found.*nothing of the program around it"),
            ("return 'a' 'b'", "it is not Starlark: unexpected string literal"),
        ],
    )
    def test_what_starlark_does_not_have_is_refused_with_what_to_do(self, body: str, complaint: str):
        with pytest.raises(DeclarationError, match=complaint) as caught:
            starlark_source(declared(f"def f(a):\n    {body}\n"))
        assert str(caught.value).startswith("f (program-")

    def test_the_line_is_named(self):
        with pytest.raises(DeclarationError, match=r"^f \(program-\d+\.py:3\): in line 5: Starlark has no \*\*"):
            starlark_source(declared("\n\n@(lambda f: f)\ndef f(a):\n    return a ** 2\n"))

    @pytest.mark.parametrize(
        ("parameters", "complaint"),
        [
            ("*texts", r"the parameter \*texts"),
            ("**texts", r"the parameter \*\*texts"),
            ("a, /", "/ among its parameters"),
        ],
    )
    def test_every_argument_has_a_name(self, parameters: str, complaint: str):
        with pytest.raises(DeclarationError, match=f"{complaint}; a function for the sandbox gets each argument by"):
            starlark_source(declared(f"def f({parameters}): return 'x'"))

    def test_what_is_no_function_of_its_own(self):
        with pytest.raises(DeclarationError, match="no function of its own, with def"):
            starlark_source(declared("f = lambda a: a"))
        with pytest.raises(DeclarationError, match="is a coroutine"):
            starlark_source(declared("async def f(a): return a"))

    def test_a_source_that_is_not_in_a_file(self):
        namespace: dict[str, Any] = {}
        exec("def f(a): return a", namespace)
        changed = declared("def f(a): return a")
        linecache.cache[changed.__code__.co_filename] = (1, None, ["def f(a):\n", "  return (\n"], "f")
        for function in (namespace["f"], len, changed):
            with pytest.raises(DeclarationError, match="its source cannot be read; define it in a file"):
                starlark_source(function)

    def test_a_source_that_is_too_long(self):
        with pytest.raises(DeclarationError, match="characters; at most 65,536 are taken"):
            starlark_source(declared(f"def f(a):\n    return '{'x' * MOST_SOURCE}'"))

    def test_it_is_refused_where_it_is_declared(self):
        with pytest.raises(DeclarationError, match="no while"):

            @P.NativeFunction(server=True)
            def wait(text: str) -> str:
                while not text:
                    pass
                return text
