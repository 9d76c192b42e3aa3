"""Functions in Starlark, the language of server-side native functions: how one is made, called, and blamed.

Starlark (https://github.com/bazelbuild/starlark/blob/master/spec.md) looks like Python and has access to nothing: no
files, no network, no clock, no imports. It may still use unlimited time and memory; the sandbox bounds that.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import starlark

from parrotserve.errors import NativeCallFailed

TextFunction = Callable[[Mapping[str, Any]], str | None]
"""Takes arguments by name; returns the result as text, or None if there is no result."""

_CALLER = "parrot_call"
"""Name of the Starlark function that calls the user's and converts its result to text by Starlark's own rules."""
_ERROR = re.compile(r"error: (?P<what>.*?)\n\s*--> .*?:(?P<line>\d+):\d+\n.*?\n\s*\d+ \| (?P<code>[^\n]*)", re.DOTALL)
_MOST_SAID = 500


def define(source: str, name: str, *, file: str = "", line: int = 1) -> TextFunction:
    """The function `name` of a source whose first line is line `line` of a file.

    If the source is not valid Starlark, and if a call fails, raises `NativeCallFailed` with what happened and the line.
    """
    text = f"{source}\n\ndef {_CALLER}(arguments):\n    result = {name}(**arguments)\n"
    text += "    return None if result == None else str(result)\n"
    module = starlark.Module()
    try:
        starlark.eval(module, starlark.parse(file, text, _dialect()), _GLOBALS)
        frozen = module.freeze()
    except starlark.StarlarkError as error:
        raise _failed(error, file, line) from error

    def call(arguments: Mapping[str, Any]) -> str | None:
        try:
            result = frozen.call(_CALLER, dict(arguments))
        except starlark.StarlarkError as error:
            raise _failed(error, file, line) from error
        return result if isinstance(result, str) else None

    return call


def _dialect() -> starlark.Dialect:
    dialect = starlark.Dialect.extended()
    dialect.enable_load = False
    dialect.enable_f_strings = True
    dialect.enable_types = starlark.DialectTypes.DISABLE
    return dialect


_GLOBALS = starlark.Globals.extended_by(
    [starlark.LibraryExtension.Map, starlark.LibraryExtension.Filter, starlark.LibraryExtension.Json]
)


def _failed(error: starlark.StarlarkError, file: str, first: int) -> NativeCallFailed:
    """The error in one sentence, with its line, instead of Starlark's drawing of its place in the source."""
    match = _ERROR.search(f"{error}\n")
    if match is None:
        return NativeCallFailed(_shortened(str(error).removeprefix("error: ").strip()))
    what = match["what"].removeprefix("Parse error: ").partition(", expected one of")[0]
    place = f"{file}, line" if file else "line"
    return NativeCallFailed(
        f"{_shortened(what)} ({place} {int(match['line']) + first - 1}: {match['code'].strip()[:120]})"
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_SAID else text[: _MOST_SAID - 1] + "…"
